//! One failover, measured from the power cut to the guests' processes on other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::api::{Event, Events};
use crate::guests::RECOVERY_LIMIT;
use crate::lab::{Lab, Node};
use crate::sys;

/// Steps of a failover: the title for people, and the kinds of events that tell of it.
pub const MILESTONES: [(&str, &[&str]); 6] = [
    ("detected", &["suspected", "suspect"]),
    ("evicted", &["evicted"]),
    ("fenced", &["fenced"]),
    ("proved dead", &["proved"]),
    ("decided", &["decided"]),
    ("start ordered", &["start_ordered"]),
];
/// Not from an event: seen by the lab itself.
pub const RUNNING: &str = "guest running";
pub const TICKING: &str = "guest ticking";
const ELECTED: &str = "leader elected";
const STEP: Duration = Duration::from_millis(5);
/// After the guests run, for events that are still on their way.
const LAST_WORDS: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Member,
    Leader,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Leader => "leader",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Failover {
    pub victim: Node,
    /// Until the last of its guests had a process elsewhere.
    pub ms: u64,
    /// Where each guest went, and when.
    pub guests: BTreeMap<String, (Node, u64)>,
    /// First time of each step, in ms since the cut.
    pub milestones: BTreeMap<&'static str, u64>,
}

impl Lab {
    /// A node with this role that may be cut: the leader, or the member whose loss says most.
    pub fn victim(&self, role: Role, leader: Node) -> Node {
        if role == Role::Leader {
            return leader;
        }
        // Spare the guest without HA if there is another: it is the one that must be left alone.
        let spared = self.bystander().map(|guest| guest.node);
        let protected = self.ha_guests();
        let guests = self.guests();
        let count = |node: Node| {
            let here =
                |guest: &&crate::qemu::Guest| guest.node == node && protected.contains(&guest.name);
            guests.iter().filter(here).count()
        };
        let members = self.nodes().filter(|node| *node != leader);
        members.max_by_key(|node| (Some(*node) != spared, count(*node))).unwrap_or(leader)
    }

    /// A failover needs a guest: brings one if the node has none.
    pub fn ensure_guest_on(&self, node: Node) -> Result<()> {
        let protected = self.ha_guests();
        let mut guests = self.guests();
        guests.retain(|guest| protected.contains(&guest.name));
        if guests.iter().any(|guest| guest.node == node) {
            return Ok(());
        }
        let crowd = |on: Node| guests.iter().filter(|guest| guest.node == on).count();
        let Some(guest) = guests.iter().max_by_key(|guest| crowd(guest.node)) else {
            bail!("there is no HA guest: add one with `lab add-vm NAME NODE --ha`");
        };
        println!("  {node} has no HA guest: {} is moved there from {}", guest.name, guest.node);
        self.rehome(&guest.name, node)?;
        self.wait_until_good().map(drop)
    }

    /// Cuts the node's power and watches its guests come back elsewhere.
    pub fn failover(&self, victim: Node) -> Result<Failover> {
        let protected = self.ha_guests();
        let mine = |name: &String| protected.contains(name);
        let here = self.guests().into_iter().filter(|guest| guest.node == victim);
        let lost: BTreeSet<String> = here.map(|guest| guest.name).filter(mine).collect();
        if lost.is_empty() {
            bail!("{victim} has no HA guest to lose");
        }
        let events = Events::listen(self);
        // Streams must be open before there is something to hear.
        crate::wait::sleep(Duration::from_millis(300))?;
        println!("  {:>6} ms  power of {victim} is cut (it had {lost:?})", 0);
        let mut watch = Watch::new(self, victim, lost);
        self.kill(victim)?;
        watch.until_all_run(&events)?;
        watch.until_all_tick(&events)?;
        Ok(watch.result)
    }
}

struct Watch<'a> {
    lab: &'a Lab,
    lost: BTreeSet<String>,
    start: Instant,
    start_wall: u64,
    told: BTreeSet<(String, Option<String>)>,
    /// Lengths of the lost guests' serial logs: a log goes on where an earlier run there ended.
    heard_before: BTreeMap<(String, Node), usize>,
    result: Failover,
}

impl<'a> Watch<'a> {
    fn new(lab: &'a Lab, victim: Node, lost: BTreeSet<String>) -> Self {
        let result =
            Failover { victim, ms: 0, guests: BTreeMap::new(), milestones: BTreeMap::new() };
        let mut heard_before = BTreeMap::new();
        for name in &lost {
            for node in lab.nodes() {
                heard_before.insert((name.clone(), node), lab.console(name, node).len());
            }
        }
        // Last: the power is cut now.
        let (start, start_wall) = (Instant::now(), sys::wall_ms());
        Watch { lab, lost, start, start_wall, told: BTreeSet::new(), heard_before, result }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn until_all_run(&mut self, events: &Events) -> Result<()> {
        while self.result.guests.len() < self.lost.len() {
            self.check_time(RECOVERY_LIMIT)?;
            for guest in self.lab.guests() {
                if self.lost.contains(&guest.name) && guest.node != self.result.victim {
                    self.on_process(&guest.name, guest.node);
                }
            }
            self.hear(events);
        }
        self.result.ms = self.result.guests.values().map(|(_, ms)| *ms).max().unwrap_or(0);
        Ok(())
    }

    /// A process alone proves little: the guest must work.
    fn until_all_tick(&mut self, events: &Events) -> Result<()> {
        let limit = self.start.elapsed() + LAST_WORDS;
        let homes = self.result.guests.clone();
        let mut silent: Vec<(String, Node)> =
            homes.into_iter().map(|(name, (node, _))| (name, node)).collect();
        while !silent.is_empty() {
            self.check_time(limit)?;
            silent.retain(|home| {
                let console = self.lab.console(&home.0, home.1);
                let before = self.heard_before.get(home).copied().unwrap_or(0);
                !console.get(before..).unwrap_or_default().contains('.')
            });
            self.hear(events);
        }
        let ms = self.elapsed();
        self.result.milestones.insert(TICKING, ms);
        println!("  {ms:>6} ms  {TICKING}: all of them write to their disks");
        Ok(())
    }

    fn check_time(&self, limit: Duration) -> Result<()> {
        if sys::interrupted() {
            bail!("interrupted");
        }
        if self.start.elapsed() > limit {
            let missing: Vec<_> =
                self.lost.iter().filter(|name| !self.result.guests.contains_key(*name)).collect();
            bail!(
                "after {} s, {missing:?} of {} do not run elsewhere, or do not work",
                limit.as_secs(),
                self.result.victim
            );
        }
        Ok(())
    }

    fn on_process(&mut self, name: &str, node: Node) {
        if self.result.guests.contains_key(name) {
            return;
        }
        let ms = self.elapsed();
        self.result.guests.insert(name.to_owned(), (node, ms));
        self.result.milestones.insert(RUNNING, ms);
        println!("  {ms:>6} ms  {RUNNING}: {name} has a QEMU process on {node}");
    }

    fn hear(&mut self, events: &Events) {
        if let Some(heard) = events.next(STEP) {
            self.on_event(heard.from, heard.event);
        }
    }

    /// The first node that tells of a step is believed; the others say the same a little later.
    fn on_event(&mut self, from: Node, event: Event) {
        let Some(ms) = event.wall_ms.checked_sub(self.start_wall) else { return };
        let victim = self.result.victim.to_string();
        let about_us = match (&event.vm, &event.node) {
            (Some(vm), _) => self.lost.contains(vm),
            (None, Some(node)) => *node == victim || event.kind == "elected",
            (None, None) => event.kind == "elected",
        };
        let known = MILESTONES.iter().find(|(_, kinds)| kinds.contains(&event.kind.as_str()));
        let title = match known {
            Some((title, _)) => *title,
            None if event.kind == "elected" => ELECTED,
            None => return,
        };
        if !about_us || from == self.result.victim {
            return;
        }
        // The table has the last guest's time, as the measured end is the last guest's.
        if event.vm.is_some() || !self.result.milestones.contains_key(title) {
            self.result.milestones.insert(title, ms);
        }
        if self.told.insert((event.kind, event.vm)) {
            println!("  {ms:>6} ms  {title}: {} ({from})", event.text);
        }
    }
}
