//! `steadfast demo` in the browser: real agents, HA-watch and its page in one process.

use super::chromium::Browser;
use super::pace::{MOST_MS, measure, median};
use super::stories::{DIALOG, upload};
use super::world::file;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A demonstration that ends with the test.
pub(crate) struct Demo {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    /// As somebody starts it who has just built it.
    pub(crate) fn start(nodes: u32, vms: u32) -> Self {
        let test = std::env::current_exe().expect("a test");
        let program = test.ancestors().nth(2).expect("a target directory").join("steadfast");
        let mut child = Command::new(&program)
            .args(["demo", "--port", "0"])
            .args(["--nodes", &nodes.to_string(), "--vms", &vms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; try: cargo build --release -p steadfast-engine",
                    program.display()
                )
            });
        let mut lines =
            BufReader::new(child.stdout.take().expect("its words")).lines().map_while(Result::ok);
        let url = lines
            .by_ref()
            .find_map(|line| line.split_once("the page").map(|(_, url)| url.trim().to_owned()));
        // What it says later is read and left, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.expect("the address of its page") }
    }
}

async fn ready() -> (Demo, Browser) {
    let (demo, browser) = (Demo::start(3, 6), Browser::start().await);
    browser.open(&demo.url).await;
    browser.until_text(".figure .value", "6 / 6").await;
    browser.until_text(".health-text", "Everything is in good order").await;
    (demo, browser)
}

/// A module of `tests/wat` for placement.
fn module(fixture: &str) -> Vec<u8> {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("wat/{name}.wat"));
        std::fs::read_to_string(path).expect("a fixture")
    };
    let text = read("skeleton")
        .replace("{{NAME}}", fixture)
        .replace("{{KINDS}}", "\\\"placement\\\"")
        .replace("{{EXPORTS}}", "(export \"steadfast_placement\")")
        .replace("{{FIXTURE}}", &read(fixture));
    wat::parse_str(text).expect("a module")
}

#[tokio::test]
async fn the_leader_dies_and_everybody_sees_it_at_once() {
    let (_demo, browser) = ready().await;
    measure(&browser).await;
    let leader = browser.js("return document.querySelector('.node.leader').dataset.node").await;
    let leader = leader.as_str().expect("a leader").to_owned();
    browser.click(&format!("[data-node={leader}] [data-verb=kill]")).await;
    browser.until_text(&format!("article[data-node={leader}] .badge"), "Full failure").await;
    browser.until_text(".health-text", "Every protected VM runs").await;
    browser
        .until(&format!(
            "return document.querySelectorAll('article[data-node={leader}] .chip').length === 0"
        ))
        .await;
    let median = median(&browser, "steadfast demo, 3 nodes and 6 VMs").await;
    assert!(median <= MOST_MS, "{median} ms");

    browser.view("election").await;
    browser.until_text(".election-line", "leads, in term").await;
    browser.until_text(".ballot.winner .term", "healthy").await;
    browser.view("incidents").await;
    browser.until_text(".incident-row", &format!("{leader} failed")).await;
    for milestone in ["evicted", "fenced", "guest running"] {
        browser.until_text(".timeline strong", milestone).await;
    }
    browser.press(".timeline", "Why?").await;
    browser.until_text(".timeline .decision-more", "PROTOCOL").await;
    browser.view("overview").await;
    browser.click(&format!("[data-node={leader}] [data-verb=boot]")).await;
    browser.until_text(&format!("article[data-node={leader}] .badge"), "Member").await;
    browser.until_text(".health-text", "Everything is in good order").await;
    browser.end().await;
}

#[tokio::test]
async fn a_vm_is_protected_and_not_any_more() {
    let (_demo, browser) = ready().await;
    browser.press(".toolbar", "Protect a VM").await;
    browser.fill("Name of the VM, as libvirt has it", "scratch").await;
    browser.press(DIALOG, "Switch HA on").await;
    browser.until_text(".dialog .done", "scratch is protected").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text(".chip", "scratch").await;
    browser.js("[...document.querySelectorAll('.chip')].find((it) => it.textContent.includes('scratch')).click()").await;
    browser.press("#drawer", "Priority").await;
    browser.fill("Priority, 0 to 1000", "901").await;
    browser.press(DIALOG, "Change priority").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text("#drawer dd", "901").await;
    browser.press("#drawer", "Switch HA off").await;
    browser.press(DIALOG, "Switch HA off").await;
    browser.press(DIALOG, "Close").await;
    browser.until("return ![...document.querySelectorAll('.chip')].some((it) => it.textContent.includes('scratch'))").await;
    browser.end().await;
}

#[tokio::test]
async fn a_policy_that_never_ends_is_refused_and_a_good_one_decides_until_it_is_rolled_back() {
    let (_demo, browser) = ready().await;
    browser.view("policies").await;
    let deciding = "[data-kind=placement] .policy[data-deciding=true]";
    browser.until_text(deciding, "steadfast.default.placement").await;
    upload(&browser, "placement", &file("endless-loop.wasm", &module("endless-loop"))).await;
    browser.until_text("[data-kind=placement] .refusal", "fuel").await;
    upload(&browser, "placement", &file("good.wasm", &module("good"))).await;
    browser.until_text("[data-kind=placement] .drop .done", "passed all checks").await;
    browser.until_text("[data-kind=placement] .drop .done", "It is on all nodes").await;
    browser.until_text(deciding, "good 1.0.0").await;
    browser.press("[data-kind=placement]", "Roll back").await;
    browser.until_text(DIALOG, "good 1.0.0 decides no more").await;
    browser.press(DIALOG, "Roll back").await;
    browser.until_text(DIALOG, "steadfast.default.placement").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text(deciding, "steadfast.default.placement").await;
    browser.end().await;
}

#[tokio::test]
async fn an_unsafe_time_out_is_refused_by_the_agents_own_proof() {
    let (_demo, browser) = ready().await;
    browser.view("settings").await;
    browser.until_text(".verdict", "they are safe").await;
    browser.fill("Watchdog", "9000").await;
    browser.until_text(".verdict", "Refused: these are not safe").await;
    browser.until_text(".verdict .inequality", "2 W <= L + S").await;
    browser.fill("Watchdog", "3500").await;
    browser.until_text(".verdict", "These are safe").await;
    browser.until_text(".snippet pre", "watchdog_ms = 3500").await;
    browser.end().await;
}

#[tokio::test]
async fn a_node_is_emptied_live_and_filled_again_and_ha_is_off_for_a_while() {
    let (_demo, browser) = ready().await;
    let on_n2 = "return document.querySelectorAll('article[data-node=n2] .chip').length";
    let before = browser.js(on_n2).await;
    assert_ne!(before, Value::from(0), "there is something to move");
    browser.click("article[data-node=n2] h3 a").await;
    browser.press("#drawer", "Maintenance").await;
    browser.fill("Reason", "new memory").await;
    browser.press(DIALOG, "Begin maintenance").await;
    browser.press(DIALOG, "Close").await;
    browser.until(&format!("{on_n2} === 0")).await;
    browser.until_text("article[data-node=n2] .badge", "Maintenance").await;
    assert_eq!(
        browser.js("return document.querySelectorAll('article.node .chip').length").await,
        6
    );
    browser.press("#drawer", "End maintenance").await;
    browser.press(DIALOG, "End maintenance").await;
    browser.press(DIALOG, "Close").await;
    browser.until(&format!("{on_n2} === {}", json!(before))).await;
    browser.keys("\u{e00c}").await;

    browser.press(".toolbar", "Disarm").await;
    browser.fill("Reason", "new switches").await;
    browser.press(DIALOG, "Disarm").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text(".banner", "switched off for everybody: “new switches”").await;
    browser.press(".banner", "Arm again").await;
    browser.press(DIALOG, "Arm").await;
    browser.press(DIALOG, "Close").await;
    browser.until("return document.querySelectorAll('.banner').length === 0").await;
    browser.end().await;
}
