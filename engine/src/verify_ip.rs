//! Verification IPs: is the VM network alive although the control network is not? Asked by ICMP echo.

use crate::Sink;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steadfast_core::event::Event;

const ROUND: Duration = Duration::from_secs(1);
/// Answers of a round are waited for this long.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// An address counts as reachable while it answered one of this many rounds: one lost packet is no news.
const MEMORY: u64 = 3;
/// The state is told on every change, and each so many rounds.
const TELL_EVERY: u64 = 5;
const ICMP_FILTER: libc::c_int = 1;
const ICMPV6_FILTER: libc::c_int = 1;
const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Asks `addresses` each second from now on -> `VerificationChecked`: first after the first round, then on
/// every change and each 5 s. `quorum`: how many must answer; a majority of them if not given.
///
/// # Errors
/// No address is given, the quorum cannot be met, no ICMP socket can be made, or no thread.
pub fn start(
    addresses: Vec<IpAddr>,
    quorum: Option<usize>,
    events: Sink,
    verifier: Arc<Verifier>,
) -> Result<()> {
    let count = addresses.len();
    ensure!(count > 0, "verification needs at least one address");
    let quorum = quorum.unwrap_or(count / 2 + 1);
    ensure!(
        (1..=count).contains(&quorum),
        "a quorum of {quorum} of {count} verification IPs is impossible: choose 1 to {count}"
    );
    let mut checker = Checker::new(addresses, quorum)?;
    let thread = std::thread::Builder::new().name("verify-ip".into());
    verifier.running.store(true, Ordering::Relaxed);
    thread
        .spawn(move || checker.run(&events, &verifier))
        .context("cannot start the verification thread")?;
    Ok(())
}

/// The way to the addresses that are asked.
#[derive(Debug, Default)]
pub struct Verifier {
    running: AtomicBool,
    /// What is to be asked from the next round on.
    next: Mutex<Option<(Vec<IpAddr>, usize)>>,
}

impl Verifier {
    /// Asks others from the next round on. False: nobody is asked, because none were configured when the agent started.
    pub fn ask_others(&self, addresses: Vec<IpAddr>, quorum: usize) -> bool {
        let running = self.running.load(Ordering::Relaxed) && !addresses.is_empty();
        if running {
            *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((addresses, quorum));
        }
        running
    }

    fn take(&self) -> Option<(Vec<IpAddr>, usize)> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Checker {
    quorum: usize,
    round: u64,
    /// The last round each address answered.
    answered: BTreeMap<IpAddr, u64>,
    echoers: Vec<Echoer>,
}

impl Checker {
    fn new(addresses: Vec<IpAddr>, quorum: usize) -> Result<Self> {
        let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
        let families = [(false, v4), (true, v6)];
        let used = families.into_iter().filter(|(_, addresses)| !addresses.is_empty());
        let echoers = used.map(|(v6, addresses)| Echoer::new(v6, addresses));
        Ok(Self {
            quorum,
            round: 0,
            answered: BTreeMap::new(),
            echoers: echoers.collect::<Result<_>>()?,
        })
    }

    fn run(&mut self, events: &Sink, verifier: &Verifier) {
        let mut told = None;
        loop {
            let begun = Instant::now();
            if let Some((addresses, quorum)) = verifier.take() {
                self.change(addresses, quorum);
            }
            self.ask();
            let reachable = self.reachable();
            if told != Some(reachable) || self.round.is_multiple_of(TELL_EVERY) {
                told = Some(reachable);
                events(Event::VerificationChecked { reachable });
            }
            std::thread::sleep(ROUND.saturating_sub(begun.elapsed()));
        }
    }

    /// Those that stay keep their answers.
    fn change(&mut self, addresses: Vec<IpAddr>, quorum: usize) {
        match Self::new(addresses.clone(), quorum) {
            Ok(mut new) => {
                self.answered.retain(|address, _| addresses.contains(address));
                new.answered = std::mem::take(&mut self.answered);
                new.round = self.round;
                *self = new;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the old verification IPs are asked");
            }
        }
    }

    fn ask(&mut self) {
        self.round += 1;
        let deadline = Instant::now() + ANSWER_WITHIN;
        for echoer in &self.echoers {
            echoer.send(self.round);
        }
        for echoer in &self.echoers {
            echoer.receive(self.round, deadline, &mut self.answered);
        }
    }

    fn reachable(&self) -> bool {
        let fresh = self.answered.values().filter(|round| **round + MEMORY > self.round);
        fresh.count() >= self.quorum
    }
}

/// The addresses of one family and their socket.
struct Echoer {
    v6: bool,
    addresses: Vec<IpAddr>,
    socket: UdpSocket,
    /// A raw socket sees every process's answers, and for IPv4 the IP header.
    raw: bool,
    identifier: u16,
}

impl Echoer {
    fn new(v6: bool, addresses: Vec<IpAddr>) -> Result<Self> {
        let (socket, raw) = match icmp_socket(v6, libc::SOCK_DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (raw_socket(v6)?, true),
        };
        // Any number will do that other processes of this node do not use at the same time.
        let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
        Ok(Self { v6, addresses, socket, raw, identifier })
    }

    /// An address that cannot be sent to has not answered; that is all there is to say.
    fn send(&self, round: u64) {
        let packet = echo_request(self.v6, self.identifier, sequence(round));
        for address in &self.addresses {
            let _ = self.socket.send_to(&packet, SocketAddr::new(*address, 0));
        }
    }

    /// Notes answers until all have come or the deadline has passed; what has come already is always read.
    fn receive(&self, round: u64, deadline: Instant, answered: &mut BTreeMap<IpAddr, u64>) {
        let missing = |answered: &BTreeMap<IpAddr, u64>| {
            self.addresses.iter().any(|address| answered.get(address) != Some(&round))
        };
        while missing(answered) {
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = left.max(Duration::from_millis(1));
            if self.socket.set_read_timeout(Some(patience)).is_err() {
                return;
            }
            let mut packet = [0; 256];
            match self.socket.recv_from(&mut packet) {
                Ok((size, from)) if self.is_answer(&packet[..size], sequence(round)) => {
                    if self.addresses.contains(&from.ip()) {
                        answered.insert(from.ip(), round);
                    }
                }
                Ok(_) if !left.is_zero() => {}
                // An error may be news of an unreachable address; the others may still answer.
                Err(error) if !left.is_zero() && !is_timeout(&error) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }

    fn is_answer(&self, packet: &[u8], sequence: u16) -> bool {
        let header = if self.raw && !self.v6 { ip_header_size(packet) } else { 0 };
        let kind = if self.v6 { ECHO_REPLY_V6 } else { ECHO_REPLY_V4 };
        let Some(echo) = packet.get(header..header + 8) else { return false };
        // A ping socket has an identifier of its own and gets only its own answers.
        let ours = !self.raw || echo[4..6] == self.identifier.to_be_bytes();
        echo[0] == kind && ours && echo[6..8] == sequence.to_be_bytes()
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn sequence(round: u64) -> u16 {
    u16::try_from(round & 0xffff).unwrap_or(0)
}

fn ip_header_size(packet: &[u8]) -> usize {
    packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4)
}

fn echo_request(v6: bool, identifier: u16, sequence: u16) -> [u8; 8] {
    let mut packet = [if v6 { ECHO_V6 } else { ECHO_V4 }, 0, 0, 0, 0, 0, 0, 0];
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    if !v6 {
        // The kernel does it for IPv6, where the addresses count, too.
        let checksum = internet_checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn raw_socket(v6: bool) -> Result<UdpSocket> {
    let socket = icmp_socket(v6, libc::SOCK_RAW).context(
        "cannot make an ICMP socket for verification IPs: run as root or with CAP_NET_RAW",
    )?;
    // Without a filter every ICMP packet of this node would wake us; with a failed one they only do that.
    let _ = only_replies(&socket, v6);
    Ok(socket)
}

/// A `UdpSocket` in name only: what std does with one is what any datagram socket can do.
#[allow(unsafe_code)]
fn icmp_socket(v6: bool, kind: libc::c_int) -> std::io::Result<UdpSocket> {
    let (family, protocol) = if v6 {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6)
    } else {
        (libc::AF_INET, libc::IPPROTO_ICMP)
    };
    // SAFETY: no memory is passed.
    let number = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if number < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us.
    Ok(UdpSocket::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Blocks every ICMP type but echo replies: a set bit blocks.
#[allow(unsafe_code)]
fn only_replies(socket: &UdpSocket, v6: bool) -> std::io::Result<()> {
    let mut filter = [u32::MAX; 8];
    let reply = if v6 { ECHO_REPLY_V6 } else { ECHO_REPLY_V4 };
    filter[usize::from(reply) / 32] &= !(1 << (reply % 32));
    let (level, name, words) =
        if v6 { (libc::IPPROTO_ICMPV6, ICMPV6_FILTER, 8) } else { (libc::SOL_RAW, ICMP_FILTER, 1) };
    let size = libc::socklen_t::try_from(words * size_of::<u32>()).unwrap_or(0);
    // SAFETY: `filter` is at least `size` bytes long and lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, filter.as_ptr().cast(), size) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(internet_checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0x220d);
    }

    #[test]
    fn one_lost_round_is_no_news_and_three_are() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let answered = BTreeMap::from([(address, 5)]);
        let mut checker = Checker { quorum: 1, round: 5, answered, echoers: Vec::new() };
        for (round, reachable) in [(5, true), (6, true), (7, true), (8, false)] {
            checker.round = round;
            assert_eq!(checker.reachable(), reachable, "round {round}");
        }
    }

    #[test]
    fn loopback_answers_where_icmp_is_permitted() {
        let (sender, received) = mpsc::channel();
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        let addresses = vec![IpAddr::from([127, 0, 0, 1])];
        if start(addresses, None, sink, Arc::default()).is_ok() {
            let event = received.recv_timeout(Duration::from_secs(3));
            assert_eq!(event, Ok(Event::VerificationChecked { reachable: true }));
        }
    }

    #[test]
    fn impossible_quorums_are_refused() {
        let sink: Sink = Arc::new(drop);
        assert!(start(vec![], None, Arc::clone(&sink), Arc::default()).is_err());
        assert!(start(vec![IpAddr::from([127, 0, 0, 1])], Some(2), sink, Arc::default()).is_err());
    }
}
