//! Tools of others, bounded in time and output: one that hangs is killed with its children, and said to have timed out.

use super::{Trouble, Trouble::Failed};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Output kept of each stream, in bytes; the rest is read and dropped.
const KEEP_OUTPUT: u64 = 1 << 20;
/// How often a running tool is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a killed tool may take to go, and its output to end.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);
/// Tools that hang in the kernel although they were killed; more are not begun.
const MOST_STUCK: usize = 8;

static STUCK: AtomicUsize = AtomicUsize::new(0);

/// What a tool said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub out: String,
    pub err: String,
    /// Its exit status; `None`: a signal.
    pub status: Option<i32>,
}

/// Runs `program`; `input` goes to its stdin.
pub(super) fn run(
    program: &str,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Said, Trouble> {
    if STUCK.load(Ordering::Relaxed) >= MOST_STUCK {
        return Err(Failed(format!("{MOST_STUCK} tools hang in the kernel: nothing is begun")));
    }
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env("LANG", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that its children are killed with it.
    let mut child = command.process_group(0).spawn().map_err(|error| not_begun(program, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Far smaller than a pipe, so that this does not block.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(child, program, limit)?;
    let text = |stream: mpsc::Receiver<String>| stream.recv_timeout(DEATH_PATIENCE);
    Ok(Said { out: text(out).unwrap_or_default(), err: text(err).unwrap_or_default(), status })
}

fn not_begun(program: &str, error: &std::io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::NotFound => Trouble::Missing(format!("{program} is not installed")),
        _ => Failed(format!("{program} cannot be run: {error}")),
    }
}

fn wait(mut child: Child, program: &str, limit: Duration) -> Result<Option<i32>, Trouble> {
    if let Some(status) = wait_for(&mut child, limit) {
        return Ok(status);
    }
    kill_group(&child);
    let killed = Trouble::TimedOut(format!("{program} was killed after {} s", limit.as_secs()));
    if wait_for(&mut child, DEATH_PATIENCE).is_some() {
        return Err(killed);
    }
    STUCK.fetch_add(1, Ordering::Relaxed);
    // It is waited for, however long that takes.
    let reaper = std::thread::Builder::new().name("telemetry-reap".into());
    let _ = reaper.spawn(move || {
        let _ = child.wait();
        STUCK.fetch_sub(1, Ordering::Relaxed);
    });
    Err(Trouble::TimedOut(format!("{program} was killed, and hangs in the kernel")))
}

/// Its status when it has ended within `limit`.
fn wait_for(child: &mut Child, limit: Duration) -> Option<Option<i32>> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.code()),
            Ok(None) => {}
            Err(_) => return Some(None),
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

#[allow(unsafe_code)]
fn kill_group(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // SAFETY: no memory is passed; the child is not reaped yet, so that the group is its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::Builder::new().name("telemetry-read".into());
    let _ = thread.spawn(move || {
        let Some(stream) = stream else { return };
        let mut kept = Vec::new();
        let mut limited = stream.take(KEEP_OUTPUT);
        let _ = limited.read_to_end(&mut kept);
        let _ = tell.send(String::from_utf8_lossy(&kept).into_owned());
        // A tool that is not read from would not end.
        let _ = std::io::copy(&mut limited.into_inner(), &mut std::io::sink());
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn what_it_says_is_kept_with_its_status() {
        let said = run("sh", &["-c", "cat; echo oops >&2; exit 3"], "hello", LONG);
        let expected = Said { out: "hello".into(), err: "oops\n".into(), status: Some(3) };
        assert_eq!(said, Ok(expected));
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let limit = Duration::from_millis(300);
        // The child holds the pipe: without its death the output would not end.
        let said = run("sh", &["-c", "sleep 60 & sleep 60"], "", limit);
        assert!(matches!(said, Err(Trouble::TimedOut(_))), "{said:?}");
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn one_that_is_not_there_is_missing() {
        let said = run("no-such-tool-of-ours", &[], "", LONG);
        assert_eq!(said, Err(Trouble::Missing("no-such-tool-of-ours is not installed".into())));
    }

    #[test]
    fn one_that_floods_is_read_to_its_end_and_mostly_dropped() {
        let said = run("sh", &["-c", "head -c 3000000 /dev/zero"], "", LONG).expect("ends");
        assert_eq!((said.out.len() as u64, said.status), (KEEP_OUTPUT, Some(0)));
    }
}
