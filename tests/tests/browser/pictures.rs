//! The README's pictures, made anew by `cargo test ... --test browser -- --ignored pictures`.

use super::chromium::Browser;
use super::demo::Demo;
use std::path::Path;
use std::time::Duration;

async fn picture(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/pictures");
    std::fs::create_dir_all(&folder).expect("the folder of pictures");
    // What just changed glows for a moment.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let bytes = browser.client.screenshot().await.expect("a picture");
    std::fs::write(folder.join(format!("{name}.png")), bytes).expect("written");
}

/// A demonstration, before and after the leader dies.
#[tokio::test]
#[ignore = "it writes pictures, and proves nothing"]
async fn pictures_for_the_readme() {
    let (demo, browser) = (Demo::start(4, 13), Browser::start().await);
    browser.viewport(1_280, 800).await;
    browser.open(&demo.url).await;
    browser.until_text(".health-text", "Everything is in good order").await;
    browser.until_text(".fate", "fit").await;
    browser.click("#theme").await;
    browser.click("#theme").await;
    browser.until("return document.documentElement.dataset.theme === 'light'").await;
    browser.js("document.activeElement.blur()").await;
    picture(&browser, "overview-light").await;

    let leader = browser.js("return document.querySelector('.node.leader').dataset.node").await;
    let leader = leader.as_str().expect("a leader").to_owned();
    browser.click(&format!("[data-node={leader}] [data-verb=kill]")).await;
    let moved = "return document.querySelectorAll('article[data-tone=bad] .chip').length === 0";
    browser.until_text(&format!("article[data-node={leader}] .badge"), "Full failure").await;
    browser.until(moved).await;
    browser.until_text(".health-text", "Every protected VM runs").await;
    browser.view("election").await;
    browser.until_text(".ballot", "winner").await;
    picture(&browser, "election").await;

    browser.click("#theme").await;
    browser.click("#theme").await;
    browser.until("return document.documentElement.dataset.theme === 'dark'").await;
    browser.view("incidents").await;
    browser.until_text(".timeline strong", "guest running").await;
    browser.js("document.activeElement.blur()").await;
    picture(&browser, "incident").await;
    browser.view("overview").await;
    browser.js("document.querySelector('.toasts').replaceChildren()").await;
    picture(&browser, "overview-dark").await;
    browser.viewport(360, 740).await;
    browser.click(".demo > summary").await;
    picture(&browser, "phone").await;
    browser.end().await;
}
