//! The rules of an emulated hardware watchdog; `power` gives it a socket and a clock.
//!
//! Lines from the client: `timeout MS` sets the time-out, arms, and is answered with the value in
//! force; `ping` feeds; `V` and then a close disarms. A close without `V` leaves it counting, and
//! a new connection feeds the same watchdog, as with `nowayout`.

use std::time::{Duration, Instant};

use crate::sys::Process;

/// What a client that only feeds gets.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Watchdog {
    timeout: Duration,
    /// The deadline, and the boot of the node that it is about: a reset disarms.
    armed: Option<(Instant, Process)>,
}

/// One client; it may disarm only if its last word was `V`.
#[derive(Debug, Default)]
pub struct Connection {
    may_disarm: bool,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { timeout: DEFAULT_TIMEOUT, armed: None }
    }
}

impl Watchdog {
    /// Takes a line from the node's current boot and gives the answer, if there is one.
    pub fn on_line(
        &mut self,
        client: &mut Connection,
        line: &str,
        node: Process,
        now: Instant,
    ) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        client.may_disarm = words == ["V"];
        match words.as_slice() {
            ["V"] => None,
            ["ping"] => {
                self.armed = Some((now + self.timeout, node));
                None
            }
            ["timeout", ms] => match ms.parse() {
                Ok(ms) if ms > 0 => {
                    self.timeout = Duration::from_millis(ms);
                    self.armed = Some((now + self.timeout, node));
                    Some(format!("timeout {ms}"))
                }
                _ => Some(format!("error: timeout {ms:?} is not a number of milliseconds")),
            },
            _ => Some(format!("error: unknown request {line:?}: use timeout MS, ping or V")),
        }
    }

    pub fn on_close(&mut self, client: &Connection) {
        if client.may_disarm {
            self.armed = None;
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.armed.map(|(deadline, _)| deadline)
    }

    /// The boot whose power must be cut now. Asking disarms.
    pub fn expire(&mut self, now: Instant) -> Option<Process> {
        let (_, node) = self.armed.filter(|(deadline, _)| *deadline <= now)?;
        *self = Watchdog::default();
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Process = Process { pid: 1, started: 1 };

    fn fed() -> (Watchdog, Connection, Instant) {
        let (mut watchdog, mut client, now) =
            (Watchdog::default(), Connection::default(), Instant::now());
        let reply = watchdog.on_line(&mut client, "timeout 5000", BOOT, now);
        assert_eq!(reply.as_deref(), Some("timeout 5000"));
        (watchdog, client, now)
    }

    #[test]
    fn setting_the_time_out_arms() {
        let (mut watchdog, _, now) = fed();
        assert_eq!(watchdog.expire(now + Duration::from_millis(4999)), None);
        assert_eq!(watchdog.expire(now + Duration::from_millis(5000)), Some(BOOT));
        assert_eq!(watchdog.expire(now + Duration::from_secs(9)), None, "it bites once");
    }

    #[test]
    fn feeding_moves_the_deadline() {
        let (mut watchdog, mut client, now) = fed();
        let later = now + Duration::from_secs(4);
        assert_eq!(watchdog.on_line(&mut client, "ping", BOOT, later), None);
        assert_eq!(watchdog.deadline(), Some(later + Duration::from_secs(5)));
    }

    #[test]
    fn only_the_magic_close_disarms() {
        let (mut watchdog, mut client, now) = fed();
        watchdog.on_close(&client);
        assert!(watchdog.deadline().is_some());
        watchdog.on_line(&mut client, "V", BOOT, now);
        watchdog.on_line(&mut client, "ping", BOOT, now);
        watchdog.on_close(&client);
        assert!(watchdog.deadline().is_some(), "a feed after V takes it back");
        watchdog.on_line(&mut client, "V", BOOT, now);
        watchdog.on_close(&client);
        assert!(watchdog.deadline().is_none());
    }

    #[test]
    fn nonsense_is_answered_and_feeds_nothing() {
        let (mut watchdog, mut client, now) = fed();
        let deadline = watchdog.deadline();
        for line in ["feed", "timeout", "timeout x", "timeout 0"] {
            let later = now + Duration::from_secs(1);
            let reply = watchdog.on_line(&mut client, line, BOOT, later);
            assert!(reply.is_some_and(|reply| reply.starts_with("error")), "{line}");
        }
        assert_eq!(watchdog.deadline(), deadline);
    }
}
