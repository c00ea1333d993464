//! Tells one receiver: by webhook, program or e-mail.

use super::Alarm;
use crate::clock::Clock;
use crate::watch::config::{MailSettings, Receiver, Secret, Settings, Way};
use anyhow::{Context, Result, anyhow, bail};
use hmac::{Hmac, Mac};
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor};
use serde::Serialize;
use sha2::Sha256;
use std::fmt::Write;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A webhook or mail server that takes longer is asked again later.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a program says on stderr is told as far as this.
const SAID: usize = 300;

/// What a receiver gets: alarms of one cluster that came together.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    /// What happened.
    pub(super) kind: What,
    pub(super) cluster: String,
    pub(super) sent_wall_ms: u64,
    /// All of it in a line.
    pub(super) text: String,
    pub(super) alarms: Vec<Alarm>,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Raised,
    Resolved,
    /// Raised before, and nobody took care.
    Reminder,
    Test,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Resolved => "resolved",
            Self::Reminder => "reminder",
            Self::Test => "test",
        }
    }
}

impl Message {
    pub(super) fn new(kind: What, cluster: &str, alarms: Vec<Alarm>) -> Self {
        let first = alarms.first().map_or("this is a test", |alarm| alarm.text.as_str());
        let more = match alarms.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let begin = match kind {
            What::Raised | What::Test => "",
            What::Resolved => "over: ",
            What::Reminder => "still: ",
        };
        let text = format!("{cluster}: {begin}{first}{more}");
        let sent_wall_ms = Clock.wall_ms();
        Self { kind, cluster: cluster.into(), sent_wall_ms, text, alarms }
    }

    /// For people.
    fn letter(&self) -> String {
        let mut letter = format!("{}\n\n", self.text);
        for alarm in &self.alarms {
            let raised = crate::clock::utc(alarm.raised_wall_ms);
            let _ = writeln!(letter, "- {} ({}, since {raised} UTC)", alarm.text, alarm.severity);
        }
        letter
    }
}

/// Tells it once.
///
/// # Errors
/// It was not taken; it may be told again later.
pub(super) async fn send(receiver: &Receiver, message: &Message) -> Result<()> {
    let sent = async {
        match &receiver.way {
            Way::Webhook { url, secret } => webhook(url, secret.as_ref(), message).await,
            Way::Exec { command, timeout } => exec(command, *timeout, message).await,
            Way::Mail(settings) => mail(settings, message).await,
        }
    };
    let patience = match &receiver.way {
        Way::Exec { timeout, .. } => *timeout + PATIENCE,
        _ => PATIENCE,
    };
    tokio::time::timeout(patience, sent)
        .await
        .map_err(|_| anyhow!("no answer within {} s", patience.as_secs()))?
}

/// Tells every receiver, or the one of this name, that this is a test: what came of it, by receiver.
pub(in crate::watch) async fn test(
    settings: &Settings,
    only: Option<&str>,
) -> Vec<(String, Result<()>)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = settings.clusters.first().map_or("none", |cluster| cluster.id.as_str());
    let message = Message::new(What::Test, cluster, Vec::new());
    let mut outcomes = Vec::new();
    for receiver in &settings.receivers {
        if only.is_none_or(|name| name == receiver.name) {
            outcomes.push((receiver.name.clone(), send(receiver, &message).await));
        }
    }
    outcomes
}

async fn webhook(url: &str, secret: Option<&Secret>, message: &Message) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let mut request = client.post(url).header("content-type", "application/json");
    if let Some(secret) = secret {
        request = request.header("x-steadfast-signature", signature(secret, &body));
    }
    // The address may hold a secret: it is in no error.
    let answer = request.body(body).send().await.map_err(reqwest::Error::without_url);
    let status = answer.context("the webhook does not answer")?.status();
    if !status.is_success() {
        bail!("the webhook answers {status}");
    }
    Ok(())
}

/// HMAC of the body, so that the receiver knows who sent it.
fn signature(secret: &Secret, body: &[u8]) -> String {
    let mut text = "sha256=".to_string();
    // A key of any length will do.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()) {
        mac.update(body);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// A program, which gets the message as JSON on stdin and the main things in its environment.
async fn exec(command: &[String], timeout: Duration, message: &Message) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("STEADFAST_KIND", message.kind.word())
        .env("STEADFAST_CLUSTER", &message.cluster)
        .env("STEADFAST_TEXT", &message.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it may still do its work.
        let _ = stdin.write_all(&serde_json::to_vec(message)?).await;
    }
    let ended = tokio::time::timeout(timeout, child.wait_with_output()).await;
    let ended =
        ended.map_err(|_| anyhow!("{program} was killed after {} ms", timeout.as_millis()))??;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said: String = said.trim().chars().take(SAID).collect();
        bail!("{program} ended with {}: {said}", ended.status);
    }
    Ok(())
}

async fn mail(settings: &MailSettings, message: &Message) -> Result<()> {
    let mailbox = |text: &String| text.parse::<Mailbox>().with_context(|| text.clone());
    let mut mail = Mail::builder().from(mailbox(&settings.from)?);
    for recipient in &settings.to {
        mail = mail.to(mailbox(recipient)?);
    }
    let word = match message.kind {
        What::Raised => "alarm",
        other => other.word(),
    };
    let subject = format!("[{word}] {}", message.text.replace(['\r', '\n'], " "));
    let mail = mail.subject(subject).body(message.letter())?;
    transport(settings)?.send(mail).await.map_err(|error| anyhow!("the mail server: {error}"))?;
    Ok(())
}

fn transport(settings: &MailSettings) -> Result<AsyncSmtpTransport<Tokio1Executor>> {
    let host = settings.server.split_once("://").map_or("", |(_, rest)| rest);
    let is_local = host.starts_with("127.") || host.starts_with("localhost");
    // A password travels encrypted or not at all.
    let strict = settings.login.is_some() && !is_local && !settings.server.contains('?');
    let url = match settings.server.starts_with("smtp://") && strict {
        true => format!("{}?tls=required", settings.server),
        false => settings.server.clone(),
    };
    let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&url)
        .map_err(|error| anyhow!("{}: {error}", settings.server))?;
    let builder = match &settings.login {
        Some((user, password)) => {
            builder.credentials(Credentials::new(user.clone(), password.0.clone()))
        }
        None => builder,
    };
    Ok(builder.timeout(Some(PATIENCE)).build())
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
