//! What nodes say of each other and of themselves, held against what they were told: echoes, leases, promises. PROTOCOL sections 4
//! and 5 forbid some words long before anybody comes to harm by them.

use super::check::Violation;
use super::node::{id, index};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use steadfast_core::event::Event;
use steadfast_core::ids::{NodeId, Stamp};
use steadfast_core::ledger::{Ledger, Proof, Standing};
use steadfast_core::message::{Beat, Body, Message};

/// What one incarnation of an agent was told.
#[derive(Debug, Default)]
pub struct Told {
    /// One full read of the pages and of the newest body.
    pub everything: bool,
    /// The newest body that it said it had read.
    known: Stamp,
    /// Newest eviction that a leader has told it of, by node.
    evicted: BTreeMap<NodeId, Stamp>,
}

impl Told {
    /// An event reaches the machine.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::MessageReceived { message, .. } => self.hear_message(message),
            Event::BodyRead { result: Ok(_), .. } => self.everything = true,
            Event::PagesRead { result: Ok(pages), .. } => {
                let mut pages = pages.values().flatten();
                self.everything |= pages.all(|page| page.accepted == Stamp::default());
            }
            _ => {}
        }
    }

    fn hear_message(&mut self, message: &Message) {
        let Body::Committed(committed) = &message.body else { return };
        for (node, eviction) in &committed.evicted {
            let known = self.evicted.entry(*node).or_default();
            *known = eviction.max(known).to_owned();
        }
    }
}

/// Who has promised never to echo the admission that an eviction ended, as bits.
pub type Promises = BTreeMap<(NodeId, Stamp), u64>;

impl World {
    /// A beat is sent.
    pub fn check_beat(&mut self, n: usize, beat: &Beat) {
        self.check_echoes(n, beat);
        self.check_lease_told(n, beat);
        self.check_known(n, beat.known);
        for bound in &beat.bounds {
            *self.check.promises.entry((bound.victim, bound.eviction)).or_default() |= 1 << n;
        }
    }

    /// `echo_rule`: nothing is echoed before one full read, nobody whom the newest body read does not admit, and nobody whose
    /// eviction was read or heard, rumours included, until a later commit admits it.
    fn check_echoes(&mut self, n: usize, beat: &Beat) {
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        if beat.echoes.is_empty() {
            return;
        }
        if !agent.told.everything {
            return self.fail("echo_rule", format!("n{} echoes before its first read", n + 1));
        }
        let admitted = |node| self.check.chain.last_admission(node);
        let known = agent.machine.ledger();
        let forbidden = |node: NodeId| {
            let gone = |since: &Stamp| admitted(node).is_none_or(|again| again <= *since);
            let read = known.eviction(node).map(|eviction| eviction.since);
            let heard = agent.told.evicted.get(&node).copied().filter(gone);
            Some((node, read.or(heard)?))
        };
        let unread = known.nodes.values().all(|entry| entry.standing == Standing::New);
        let stranger =
            beat.echoes.iter().find(|echo| !unread && known.admission(echo.node).is_none());
        if let Some(echo) = stranger {
            let text =
                format!("n{} echoes {}, whom its newest body does not admit", n + 1, echo.node);
            return self.fail("echo_rule", text);
        }
        let wrong = beat.echoes.iter().find_map(|echo| forbidden(echo.node));
        if let Some((node, eviction)) = wrong {
            let text = format!("n{} echoes {node}, and knows of its eviction {eviction}", n + 1);
            self.fail("echo_rule", text);
        }
    }

    fn check_known(&mut self, n: usize, known: Stamp) {
        let agent = self.nodes[n].boot.as_mut().and_then(|boot| boot.agent.as_mut());
        let before = agent.map(|agent| std::mem::replace(&mut agent.told.known, known));
        if before.is_some_and(|before| before != known) {
            self.check_read(n, known);
        }
    }

    /// `lease_rule`: nobody calls himself leased before a commit has admitted this boot.
    fn check_lease_told(&mut self, n: usize, beat: &Beat) {
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        let known = self.check.chain.was_admitted(id(n), agent.me.boot);
        if beat.lease_left.is_some() && !known {
            let text = format!("n{} has a lease, and no commit has ever admitted this boot", n + 1);
            self.fail("lease_rule", text);
        }
    }

    /// `no_start_without_proof`: time proves nothing before half of the nodes have promised, for this very eviction, and before
    /// the victim's own last moment.
    pub fn too_early(&self, by: usize, before: &Ledger, after: &Ledger) -> Option<Violation> {
        after.evictions().find_map(|(victim, eviction)| {
            let news = before.eviction(victim).is_none_or(|known| known.proof.is_none());
            if eviction.proof != Some(Proof::TimeExpired) || !news {
                return None;
            }
            let told = self.check.promises.get(&(victim, eviction.since)).copied();
            let promised = (told.unwrap_or_default() | 1 << by) & !(1 << index(victim));
            let few = |set: &BTreeSet<NodeId>| {
                let promised = set.iter().filter(|node| promised >> index(**node) & 1 == 1);
                promised.count() < set.len().div_ceil(2)
            };
            let now = before.nodes.keys().copied().collect();
            let sets = before.changing.iter().map(|changing| &changing.before);
            let why = match sets.chain([&now]).any(few) {
                true => format!("{:b} alone have promised", promised),
                false => self.time_left(index(victim), eviction.boot)?,
            };
            let text = format!("time proves n{} dead, and {why}", index(victim) + 1);
            Some(Violation { rule: "no_start_without_proof", text })
        })
    }

    /// Why the node, if it is up under this boot, may run HA VMs still.
    fn time_left(&self, n: usize, of: steadfast_core::ids::BootId) -> Option<String> {
        if !self.runs_boot(n, of) || self.check.chain.was_disarmed() {
            return None;
        }
        let boot = self.nodes[n].boot.as_ref()?;
        let agent = boot.agent.as_ref().and_then(|agent| agent.machine.basis());
        let basis = agent.max(boot.fed.and_then(|fed| fed.basis))?;
        let (own, end) = (boot.clock.own(self.now), basis + self.plan.timing.span());
        (own < end).then(|| format!("it is {own:?} there, its last moment {end:?}"))
    }
}
