//! What operators do, and see.

use super::chromium::Browser;
use super::world::{file, stage};
use fantoccini::Locator;
use std::path::Path;

pub(crate) const DIALOG: &str = "dialog[open]";

#[tokio::test]
async fn a_failover_is_watched_from_the_first_sign_to_the_last_vm() {
    let (url, browser) = (stage(3, 9).await, Browser::start().await);
    browser.open(&url).await;
    browser.until_text(".health-text", "Everything is in good order").await;
    browser.js(
        "window.flown = 0; new MutationObserver((list) => { for (const it of list) for (const added of it.addedNodes) \
         if (added.classList?.contains('ghost')) window.flown += 1; }).observe(document.body, {childList: true})",
    ).await;
    browser.click("[data-node=n3] [data-verb=kill]").await;
    browser.until_text("article[data-node=n3] .badge", "Full failure").await;
    browser.until_text(".health-text", "n3: Full failure").await;
    browser
        .until("return document.querySelectorAll('article[data-node=n3] .chip').length === 0")
        .await;
    browser
        .until(
            "return document.querySelectorAll('article.node .chip[data-tone=good]').length === 9",
        )
        .await;
    browser.until_text(".health-text", "Every protected VM runs").await;
    assert_eq!(browser.js("return window.flown").await, 3, "each VM is seen to move");
    browser.until_text("#said", "QEMU process").await;
    browser.view("incidents").await;
    for milestone in ["suspected", "evicted", "fenced", "guest running"] {
        browser.until_text(".timeline strong", milestone).await;
    }
    browser.press(".timeline li[data-name=evicted]", "Why?").await;
    browser.until_text(".timeline .decision-more", "last beat").await;
    browser.end().await;
}

#[tokio::test]
async fn an_election_is_seen_ballot_by_ballot_with_the_policys_reasons() {
    let (url, browser) = (stage(5, 5).await, Browser::start().await);
    browser.open(&url).await;
    browser.click("[data-node=n1] [data-verb=kill]").await;
    browser.view("election").await;
    browser.js(
        "window.seen = []; const list = document.querySelector('.ballots'); \
         new MutationObserver(() => window.seen.push(list.children.length)).observe(list, {childList: true})",
    ).await;
    browser.until_text(".election-line", "is under way").await;
    browser.until_text(".election-line", "n2 leads, in term 4").await;
    browser.until_text(".ballot.winner", "free CPU").await;
    browser.until_text(".election .fine", "1 node without a ballot: n1").await;
    let counts = browser.js("return window.seen").await;
    let counts: Vec<u64> =
        counts.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect();
    assert!((1..=4).all(|count| counts.contains(&count)), "not one by one: {counts:?}");
    browser.end().await;
}

#[tokio::test]
async fn ha_is_switched_on_and_off_for_a_vm() {
    let (url, browser) = (stage(3, 3).await, Browser::start().await);
    browser.open(&url).await;
    browser.press(".toolbar", "Protect a VM").await;
    browser.fill("Name of the VM, as libvirt has it", "local-disk").await;
    browser.press(DIALOG, "Switch HA on").await;
    browser.until_text(".refusal", "is on this node's own storage").await;
    browser.until_text(".refusal", "ove it to shared storage").await;
    browser.fill("Name of the VM, as libvirt has it", "payroll").await;
    browser.press(DIALOG, "Switch HA on").await;
    browser.until_text(".dialog .done", "payroll is protected").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text(".chip", "payroll").await;

    browser.js("[...document.querySelectorAll('.chip')].find((it) => it.textContent.includes('payroll')).click()").await;
    browser.press("#drawer", "Priority").await;
    browser.fill("Priority, 0 to 1000", "901").await;
    browser.press(DIALOG, "Change priority").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text("#drawer dd", "901").await;
    browser.press("#drawer", "Switch HA off").await;
    browser.press(DIALOG, "Switch HA off").await;
    browser.press(DIALOG, "Close").await;
    browser.until("return ![...document.querySelectorAll('.chip')].some((it) => it.textContent.includes('payroll'))").await;
    browser.end().await;
}

#[tokio::test]
async fn a_bad_policy_is_refused_with_its_reason_a_good_one_decides_and_is_rolled_back() {
    let (url, browser) = (stage(3, 3).await, Browser::start().await);
    browser.open(&url).await;
    browser.view("policies").await;
    upload(&browser, "placement", &file("bad.wasm", b"this is no module")).await;
    browser.until_text("[data-kind=placement] .refusal", "it is no WebAssembly module").await;
    browser
        .until_text(
            "[data-kind=placement] .policy[data-deciding=true]",
            "steadfast.default.placement",
        )
        .await;

    let good = wat::parse_str("(module)").expect("a module");
    upload(&browser, "placement", &file("good.wasm", &good)).await;
    browser.until_text("[data-kind=placement] .drop .done", "passed all checks").await;
    browser.until_text("[data-kind=placement] .policy[data-deciding=true]", "acme").await;
    browser.until_text("[data-kind=placement] .shadow", "Shadow differences (1)").await;

    browser.press("[data-kind=placement]", "Roll back").await;
    browser.press(DIALOG, "Roll back").await;
    browser.press(DIALOG, "Close").await;
    browser
        .until_text(
            "[data-kind=placement] .policy[data-deciding=true]",
            "steadfast.default.placement",
        )
        .await;
    browser.press("[data-kind=placement]", "Take the rollback back").await;
    browser.press(DIALOG, "Take it back").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text("[data-kind=placement] .policy[data-deciding=true]", "acme").await;
    browser.end().await;
}

pub(crate) async fn upload(browser: &Browser, kind: &str, path: &Path) {
    let input = format!("[data-kind={kind}] input[type=file]");
    let input = browser.client.find(Locator::Css(&input)).await.expect("a place for files");
    input.send_keys(path.to_str().expect("UTF-8")).await.expect("a file is chosen");
}

#[tokio::test]
async fn an_unsafe_time_out_is_refused_with_the_inequality_while_it_is_typed() {
    let (url, browser) = (stage(3, 3).await, Browser::start().await);
    browser.open(&url).await;
    browser.view("settings").await;
    browser.until_text(".verdict", "they are safe").await;
    browser.fill("Watchdog", "9000").await;
    browser.until_text(".verdict", "Refused: these are not safe").await;
    browser.until_text(".verdict .inequality", "2 W <= L + S").await;
    browser.until("return document.querySelector('[name=watchdog_ms]').getAttribute('aria-invalid') === 'true'").await;
    let shown = browser.js("return document.querySelector('.snippet').checkVisibility()").await;
    assert_eq!(shown, false, "what is not safe is not offered");

    browser.fill("Watchdog", "3500").await;
    browser.until_text(".verdict", "These are safe").await;
    browser.until_text(".snippet pre", "watchdog_ms = 3500").await;
    browser.fill("Full failure", "3000").await;
    browser.until_text(".shift.more", "+1.5 s").await;
    browser.end().await;
}

#[tokio::test]
async fn a_node_is_emptied_and_ha_is_switched_off_and_on_again() {
    let (url, browser) = (stage(3, 6).await, Browser::start().await);
    browser.open(&url).await;
    browser.click("article[data-node=n2] h3 a").await;
    browser.press("#drawer", "Maintenance").await;
    browser.fill("Reason", "new memory").await;
    browser.press(DIALOG, "Begin maintenance").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text("article[data-node=n2] .badge", "Maintenance").await;
    browser.press("#drawer", "End maintenance").await;
    browser.press(DIALOG, "End maintenance").await;
    browser.press(DIALOG, "Close").await;
    browser.until_text("article[data-node=n2] .badge", "Member").await;
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
    browser.view("events").await;
    browser.fill("Words", "switched").await;
    browser.until("return document.querySelectorAll('.events .decision').length === 2").await;
    browser.end().await;
}
