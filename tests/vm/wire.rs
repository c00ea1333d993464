//! QEMU's two sockets: the monitor (QMP: power, cables, events) and the agent in the machine (commands, also while the machine is cut off
//! from everything). Both speak JSON, a line at a time.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the monitor may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the agent in the machine may be silent: emulation on a busy host is slow.
const AGENT_PATIENCE: Duration = Duration::from_secs(20);

/// What the monitor told by itself.
#[derive(Debug, Clone)]
pub struct Told {
    pub at: Instant,
    pub event: String,
}

/// The monitor of one QEMU process.
#[derive(Debug)]
pub struct Monitor {
    socket: Mutex<UnixStream>,
    answers: Mutex<std::sync::mpsc::Receiver<Value>>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Monitor {
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = within(PATIENCE, || UnixStream::connect(path)).context("no monitor")?;
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let (send, answers) = std::sync::mpsc::channel();
        let (reader, heard) = (BufReader::new(socket.try_clone()?), Arc::clone(&told));
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                if let Some(event) = value["event"].as_str() {
                    let told = Told { at: Instant::now(), event: event.into() };
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(told);
                } else if value.get("QMP").is_none() && send.send(value).is_err() {
                    return;
                }
            }
        });
        let monitor = Self { socket: Mutex::new(socket), answers: Mutex::new(answers), told };
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    pub fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(socket, "{line}").context("the monitor is gone")?;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer =
            answers.recv_timeout(PATIENCE).with_context(|| format!("{command}: silence"))?;
        ensure!(answer.get("error").is_none(), "{command}: {answer}");
        Ok(answer["return"].clone())
    }

    /// When it told of this event, after `since`.
    pub fn told(&self, event: &str, since: Instant) -> Option<Instant> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().find(|told| told.event == event && told.at >= since).map(|told| told.at)
    }
}

/// What a command in a machine left.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i64,
    pub text: String,
}

/// The agent in one machine.
#[derive(Debug, Clone)]
pub struct GuestAgent(pub PathBuf);

impl GuestAgent {
    /// Runs a shell script as root, and waits for its end.
    pub fn run(&self, script: &str, patience: Duration) -> Result<Output> {
        let begin = Instant::now();
        let wanted = json!({
            "path": "/bin/sh", "arg": ["-c", format!("exec 2>&1\n{script}")], "capture-output": true,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root"],
        });
        let pid = self.ask("guest-exec", &wanted)?["pid"].clone();
        loop {
            let state = self.ask("guest-exec-status", &json!({ "pid": pid }))?;
            if state["exited"] == json!(true) {
                let code = state["exitcode"].as_i64().unwrap_or(-1);
                let text = decode(state["out-data"].as_str().unwrap_or_default());
                return Ok(Output { code, text });
            }
            ensure!(begin.elapsed() < patience, "still runs after {patience:?}: {script}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Answers.
    pub fn is_there(&self) -> bool {
        self.ask("guest-ping", &json!({})).is_ok()
    }

    /// Each question on a connection of its own, in step by a number: what an earlier one left unread, or a machine that was
    /// reset meanwhile, confuses nobody.
    fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut socket = UnixStream::connect(&self.0).context("no agent's socket")?;
        socket.set_read_timeout(Some(AGENT_PATIENCE))?;
        let mut reader = BufReader::new(socket.try_clone()?);
        let number = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.subsec_nanos());
        writeln!(socket, "{}", json!({ "execute": "guest-sync", "arguments": { "id": number } }))?;
        while answer(&mut reader)?["return"] != json!(number) {}
        writeln!(socket, "{}", json!({ "execute": command, "arguments": arguments }))?;
        let answer = answer(&mut reader)?;
        ensure!(answer.get("error").is_none(), "{command}: {answer}");
        Ok(answer["return"].clone())
    }
}

fn answer(reader: &mut impl BufRead) -> Result<Value> {
    let mut line = String::new();
    reader.read_line(&mut line).context("the agent in the machine is silent")?;
    ensure!(!line.is_empty(), "the agent in the machine is gone");
    Ok(serde_json::from_str(line.trim_matches(['\u{fffd}', '\u{ff}', '\n', '\r']))
        .unwrap_or_default())
}

/// `work`, again and again until it succeeds or the time is over.
pub fn within<T, E: std::error::Error + Send + Sync + 'static>(
    patience: Duration,
    mut work: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        match work() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => bail!(error),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Base64, as the agent packs what a command said.
fn decode(text: &str) -> String {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let sixes: Vec<u8> = text.bytes().filter_map(value).collect();
    let mut bytes = Vec::new();
    for four in sixes.chunks(4) {
        let word = four.iter().fold(0_u32, |word, six| word << 6 | u32::from(*six));
        let word = word << (6 * (4 - four.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..four.len()]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn what_a_command_said_is_unpacked() {
    assert_eq!(decode("aGVsbG8="), "hello");
    assert_eq!(decode("aGVsbG8h"), "hello!");
    assert_eq!(decode(""), "");
}
