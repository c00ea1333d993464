//! By keyboard, by screen reader, in the dark, and on a phone.

use super::chromium::Browser;
use super::world::stage;
use serde_json::json;

const VIEWS: [&str; 7] =
    ["overview", "election", "incidents", "policies", "settings", "events", "overview/node/n2"];
const ESCAPE: &str = "\u{e00c}";
const ENTER: &str = "\u{e007}";

/// A page on which something happened.
async fn after_a_failover() -> Browser {
    let (url, browser) = (stage(4, 12).await, Browser::start().await);
    browser.open(&url).await;
    browser.click("[data-node=n2] [data-verb=kill]").await;
    browser
        .until("return document.querySelectorAll('article[data-node=n2] .chip').length === 0")
        .await;
    browser
}

#[tokio::test]
async fn everything_is_reached_by_keyboard_and_the_focus_comes_back() {
    let (url, browser) = (stage(3, 6).await, Browser::start().await);
    browser.open(&url).await;
    browser.keys("\u{e004}").await;
    assert_eq!(
        browser.js("return document.activeElement.id").await,
        "skip",
        "Tab reaches the way past the menu first"
    );
    browser.keys(ENTER).await;
    assert_eq!(browser.js("return document.activeElement.id").await, "main");
    for (key, view) in [("2", "election"), ("4", "policies"), ("1", "overview")] {
        browser.keys(key).await;
        browser.until(&format!("return document.body.dataset.view === '{view}'")).await;
    }
    browser.keys("/").await;
    assert_eq!(browser.js("return document.activeElement.type").await, "search");
    browser.js("document.querySelector('article[data-node=n1] .chip').focus()").await;
    let chip = browser.js("return document.activeElement.textContent").await;
    browser.keys(ENTER).await;
    browser.until("return document.activeElement.id === 'drawer-title'").await;
    browser.keys(ESCAPE).await;
    browser.until("return document.querySelector('#drawer').hidden").await;
    assert_eq!(browser.js("return document.activeElement.textContent").await, chip);
    browser.keys("?").await;
    browser
        .until("return document.querySelector('dialog[open]')?.contains(document.activeElement)")
        .await;
    browser.end().await;
}

const UNNAMED: &str = "const name = (it) => (it.getAttribute('aria-label') ?? '').trim() || [...(it.labels ?? [])].map((one) => one.textContent).join('').trim() || it.textContent.trim() || it.title; \
    return [...document.querySelectorAll('a[href], button, input, select, textarea, summary')].filter((it) => it.checkVisibility() && !name(it)).map((it) => it.outerHTML)";
const UNREFERRED: &str = "return [...document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for]')].flatMap((it) => \
    ['aria-labelledby', 'aria-describedby', 'for'].flatMap((key) => (it.getAttribute(key) ?? '').split(' '))).filter((id) => id && !document.getElementById(id))";

#[tokio::test]
async fn every_view_has_landmarks_one_heading_of_its_own_and_names_for_all_that_can_be_used() {
    let browser = after_a_failover().await;
    for landmark in ["header", "nav[aria-label]", "main", "[aria-live=polite]"] {
        assert_eq!(browser.js(&format!("return document.querySelectorAll('body > {landmark}, header > {landmark}').length")).await, 1, "{landmark}");
    }
    assert_eq!(browser.js("return document.documentElement.lang").await, "en");
    for view in VIEWS {
        browser.view(view).await;
        browser.until("return document.querySelectorAll('main h1').length === 1").await;
        assert_eq!(browser.js(UNNAMED).await, json!([]), "{view}: without a name");
        assert_eq!(browser.js(UNREFERRED).await, json!([]), "{view}: labels of nothing");
    }
    browser.until_text("#said", ".").await;
    browser.end().await;
}

/// Texts whose contrast with what lies behind them is less than WCAG 2.2 AA asks for.
const FAINT: &str = "
const parse = (text) => { const box = document.createElement('canvas').getContext('2d', {willReadFrequently: true}); box.clearRect(0, 0, 1, 1); box.fillStyle = text; box.fillRect(0, 0, 1, 1); return [...box.getImageData(0, 0, 1, 1).data]; };
const known = new Map(); const colour = (text) => known.get(text) ?? (known.set(text, parse(text)), known.get(text));
const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((it) => it / 255).map((it) => it <= .04045 ? it / 12.92 : ((it + .055) / 1.055) ** 2.4); return .2126 * x + .7152 * y + .0722 * z; };
const behind = (it) => { for (let at = it; at; at = at.parentElement) { const found = colour(getComputedStyle(at).backgroundColor); if (found[3] > 250) return found; } return colour(getComputedStyle(document.body).backgroundColor); };
const faint = new Set();
for (const it of document.querySelectorAll('body *')) {
  const says = [...it.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
  if (!says || !it.checkVisibility({opacityProperty: true, visibilityProperty: true}) || it.closest('.visually-hidden, .skip, .ghost, :disabled, option')) continue;
  const style = getComputedStyle(it); const [a, b] = [light(colour(style.color)), light(behind(it))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize); const least = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  const ratio = (a + .05) / (b + .05);
  if (ratio < least) faint.add(`${ratio.toFixed(2)} ${it.tagName}.${it.className}: ${it.textContent.trim().slice(0, 40)}`);
}
return [...faint]";

#[tokio::test]
async fn texts_stand_out_in_the_dark_and_in_the_light() {
    let browser = after_a_failover().await;
    for theme in ["dark", "light"] {
        browser.click("#theme").await;
        browser
            .until(&format!("return document.documentElement.dataset.theme === '{theme}'"))
            .await;
        // Colours take a moment to change.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        for view in VIEWS {
            browser.view(view).await;
            tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
            assert_eq!(browser.js(FAINT).await, json!([]), "{theme}, {view}");
        }
    }
    browser.end().await;
}

#[tokio::test]
async fn a_phone_shows_every_view_without_scrolling_sideways() {
    let browser = after_a_failover().await;
    browser.viewport(360, 740).await;
    for view in VIEWS {
        browser.view(view).await;
        browser.until("return document.querySelectorAll('main h1').length === 1").await;
        let width = browser.js("return document.documentElement.scrollWidth").await;
        assert_eq!(width, 360, "{view}");
        let small = "return [...document.querySelectorAll('#tabs a')].filter((it) => it.getBoundingClientRect().height < 44).length";
        assert_eq!(browser.js(small).await, 0, "{view}: a finger needs 44 pixels");
    }
    browser.end().await;
}
