//! A headless Chromium with a page in it, by WebDriver.

use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let driver = driver.expect("chromedriver: apt-get install chromium chromium-driver");
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1440,900",
        ];
        let wanted = json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(serde_json::from_value::<Capabilities>(wanted).expect("capabilities"));
        let end = Instant::now() + PATIENCE;
        let client = loop {
            match builder.connect(&format!("http://127.0.0.1:{port}")).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "no browser: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        Self { client, driver }
    }

    /// Opens the page and waits until it is live.
    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.expect("the page");
        self.until("return document.querySelectorAll('article.node').length > 0").await;
    }

    /// Goes to a view by its address.
    pub(crate) async fn view(&self, path: &str) {
        self.js(&format!("location.hash = '#/{path}'")).await;
        let name = path.split('/').next().unwrap_or(path);
        self.until(&format!("return document.body.dataset.view === '{name}'")).await;
    }

    pub(crate) async fn js(&self, script: &str) -> Value {
        self.client
            .execute(script, Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until a script returns something else than false and nothing.
    pub(crate) async fn until(&self, script: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.js(script).await;
            if !matches!(found, Value::Null | Value::Bool(false)) {
                return found;
            }
            if Instant::now() > end {
                let text = self.js("return document.body.innerText").await;
                panic!("never: {script}; the page says:\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn until_text(&self, within: &str, text: &str) {
        let (within, text) = (json!(within), json!(text));
        self.until(&format!("return [...document.querySelectorAll({within})].some((it) => it.textContent.includes({text}))")).await;
    }

    /// As a person clicks: it must be in sight and nothing may lie above it.
    pub(crate) async fn click(&self, css: &str) {
        let end = Instant::now() + PATIENCE;
        while let Err(why) = self.try_click(css).await {
            assert!(Instant::now() < end, "{css}: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is live may be replaced at any moment.
    async fn try_click(&self, css: &str) -> Result<(), CmdError> {
        let found = self.client.find(Locator::Css(css)).await?;
        let element = serde_json::to_value(&found).expect("an element");
        self.client
            .execute("arguments[0].scrollIntoView({block: 'center'})", vec![element])
            .await?;
        found.click().await
    }

    /// Clicks the button with these words, within `css`.
    pub(crate) async fn press(&self, css: &str, words: &str) {
        let script = "for (const it of document.querySelectorAll('[data-test]')) delete it.dataset.test; \
             const all = [...document.querySelectorAll(`${arguments[0]} button`)]; \
             const found = all.find((it) => it.textContent.trim() === arguments[1] && it.checkVisibility()); \
             if (found) found.dataset.test = 'pressed'; return Boolean(found)";
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.client.execute(script, vec![json!(css), json!(words)]).await;
            if found.expect("a script") == json!(true)
                && self.try_click("[data-test=pressed]").await.is_ok()
            {
                return;
            }
            assert!(Instant::now() < end, "no button {words:?} within {css}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Types into the field with this label.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        let script = "const label = [...document.querySelectorAll('label')].find((it) => it.textContent.trim() === arguments[0] && it.checkVisibility()); \
             const field = document.getElementById(label?.htmlFor); if (!field) return false; field.focus(); field.select?.(); return true";
        let found = self.client.execute(script, vec![json!(label)]).await.expect("a script");
        assert_eq!(found, json!(true), "no field is labelled {label:?}");
        self.keys(text).await;
    }

    /// Types at the focus, which may just be moving.
    pub(crate) async fn keys(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let focus = self.client.active_element().await.expect("a focus");
            match focus.send_keys(text).await {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < end, "{text:?}: {error}"),
            }
        }
    }

    /// A viewport of this size, as on a phone if it is narrow.
    pub(crate) async fn viewport(&self, width: u32, height: u32) {
        let parameters = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.client
            .issue_cmd(DevTools("Emulation.setDeviceMetricsOverride", parameters))
            .await
            .expect("a viewport");
    }

    /// Nothing went wrong in the page's scripts, and its policy of content was kept.
    pub(crate) async fn has_no_errors(&self) {
        let log = self.client.issue_cmd(Log).await.expect("a log");
        let is_ours = |entry: &&Value| {
            // Refusals of changes are shown to the operator; the browser notes them too.
            let text = entry["message"].as_str().unwrap_or_default();
            entry["level"] == "SEVERE" && !text.contains("Failed to load resource")
        };
        let errors: Vec<&Value> = log.as_array().into_iter().flatten().filter(is_ours).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }

    /// Ends the browser; without it a test that fails leaves that to the driver's end.
    pub(crate) async fn end(self) {
        self.has_no_errors().await;
        let _ = self.client.clone().close().await;
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({"cmd": self.0, "params": self.1}).to_string()))
    }
}

#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(json!({"type": "browser"}).to_string()))
    }
}
