//! How soon the page shows what happened, and whether a large cluster slows it down.

use super::chromium::Browser;
use super::world::stage;
use serde_json::Value;

/// From an agent's event to the DOM, in the median.
pub(crate) const MOST_MS: u64 = 250;

#[tokio::test]
async fn a_decision_is_in_the_page_within_250_ms() {
    let (url, browser) = (stage(5, 20).await, Browser::start().await);
    browser.open(&url).await;
    measure(&browser).await;
    // A machine that is busy with something else is not the page's fault: the best of three counts.
    let mut best = u64::MAX;
    for node in ["n2", "n3", "n4"] {
        browser.js("window.delays = []").await;
        browser.click(&format!("[data-node={node}] [data-verb=kill]")).await;
        browser.until("return window.delays.length >= 11").await;
        best = best.min(median(&browser, "the stage set, 5 nodes and 20 VMs").await);
        if best <= MOST_MS {
            break;
        }
    }
    assert!(best <= MOST_MS, "{best} ms");
    browser.end().await;
}

/// Notes for each decision how long after it was taken it came into the page: both clocks are this machine's.
pub(crate) async fn measure(browser: &Browser) {
    browser.js(
        "window.delays = []; new MutationObserver((list) => { const now = Date.now(); for (const it of list) for (const added of it.addedNodes) \
         if (added.matches?.('.decision.new')) window.delays.push(now - Number(added.dataset.wallMs)); }) \
         .observe(document.querySelector('.feed-panel .feed'), {childList: true})",
    ).await;
}

pub(crate) async fn median(browser: &Browser, what: &str) -> u64 {
    let mut delays: Vec<u64> = numbers(&browser.js("return window.delays").await);
    delays.sort_unstable();
    let (median, most) = (delays[delays.len() / 2], delays.last().copied().unwrap_or(0));
    println!(
        "{what}: from a decision to the DOM {median} ms in the median of {}, {most} ms at most",
        delays.len()
    );
    median
}

fn numbers(list: &Value) -> Vec<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .map(|it| it.max(0.0).round() as u64)
        .collect()
}

const FRAMES: &str = "window.frames = []; let before = performance.now(); \
    const next = (now) => { window.frames.push(now - before); before = now; requestAnimationFrame(next); }; requestAnimationFrame(next)";
const SEARCH: &str = "const done = arguments[0]; const field = document.querySelector('main [type=search]'); const begin = performance.now(); \
    field.value = 'db-1'; field.dispatchEvent(new Event('input')); \
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begin))))";

/// Limits are wide, because a machine that tests is busy; what was measured is printed.
#[tokio::test]
async fn a_page_with_64_nodes_and_10_000_vms_stays_responsive() {
    let (url, browser) = (stage(64, 10_000).await, Browser::start().await);
    browser.open(&url).await;
    browser.until_text(".figure .value", "10,000 / 10,000").await;
    let elements = browser
        .js("return document.querySelectorAll('*').length")
        .await
        .as_u64()
        .unwrap_or(u64::MAX);
    assert!(elements < 15_000, "{elements} elements");
    measure(&browser).await;
    browser.js(FRAMES).await;
    browser.click("[data-node=n2] [data-verb=kill]").await;
    browser.until("return window.delays.length >= 40").await;
    let mut frames = numbers(&browser.js("return window.frames").await);
    frames.sort_unstable();
    let at = |permille: usize| frames[(frames.len() - 1) * permille / 1_000];
    let typed = numbers(&Value::Array(vec![
        browser.client.execute_async(SEARCH, Vec::new()).await.expect("a search"),
    ]))[0];
    browser.until_text(".found", "VMs found").await;
    println!(
        "64 nodes, 10,000 VMs, {elements} elements: a frame took {} ms in the median, {} ms in 99 of 100, {} ms at most; a search was shown after {typed} ms",
        at(500),
        at(990),
        at(1_000)
    );
    assert!(at(500) <= 50, "a frame took {} ms in the median", at(500));
    assert!(at(950) <= 250, "a frame took {} ms in 95 of 100", at(950));
    assert!(typed <= 1_000, "a search was shown after {typed} ms");
    let delay = median(&browser, "the same during a failover").await;
    assert!(delay <= MOST_MS, "{delay} ms");
    browser.end().await;
}
