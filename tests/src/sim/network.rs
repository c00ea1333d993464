//! Corosync: rings with agreed order, views, and what happens when a ring breaks.
//!
//! A ring is a set of nodes that order messages together. When connectivity or a pause breaks it, each
//! side keeps what it has (a message may have reached one side only), and messages given to corosync
//! meanwhile wait for the next ring. After the detection time each side forms a new ring and its CPG
//! group sees a new view.
//!
//! A link that works one way only is down for kronosnet, whose pings need both; if others link the two nodes,
//! they cannot all be in one ring, and who is with whom changes now and then (`What::Reshuffle`).

use super::clock::{MS, SECOND, Time};
use super::faults::bits;
use super::node::id;
use super::queue::What;
use super::world::World;
use std::collections::VecDeque;
use std::rc::Rc;
use steadfast_core::event::Event;
use steadfast_core::message::Message;

/// Corosync on every node.
#[derive(Debug, Default)]
pub struct Network {
    rings: Vec<Ring>,
    /// Which side of the partition each node is on.
    pub side: Vec<u64>,
    /// Nodes that each node does not hear, as bits.
    pub deaf: Vec<u64>,
    /// Who finds whom first when not everybody hears everybody.
    order: Vec<usize>,
    /// Corosync is dead on these nodes.
    pub dead: u64,
    /// Corosync notices until then only late that an agent has died.
    pub late_leaves: Time,
    /// Verification IPs are unreachable for each node this many times over.
    pub unverified: Vec<u32>,
    /// What each node's deliveries take on top.
    pub lag: Vec<Time>,
    /// Messages of a departed agent's node: it stays in the view, silent.
    pub ghosts: u64,
    nodes: Vec<Station>,
}

#[derive(Debug, Default)]
struct Ring {
    members: u64,
    /// An agent joined, left or lost its corosync while it was broken: the group is told when it is whole again.
    owes_view: bool,
    broken: bool,
    last: Time,
}

#[derive(Debug, Default)]
struct Station {
    ring: usize,
    incoming: VecDeque<Incoming>,
    last: Time,
    /// Given to corosync while the ring was broken.
    waiting: VecDeque<Rc<Message>>,
}

#[derive(Debug, Clone)]
struct Incoming {
    sender: usize,
    item: Item,
}

#[derive(Debug, Clone)]
enum Item {
    Message(Rc<Message>),
    View(u64),
}

impl Network {
    /// A network of this many nodes, none of them up.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            rings: vec![Ring::default()],
            side: vec![0; nodes],
            deaf: vec![0; nodes],
            order: (0..nodes).collect(),
            unverified: vec![0; nodes],
            lag: vec![0; nodes],
            nodes: (0..nodes).map(|_| Station::default()).collect(),
            ..Self::default()
        }
    }

    /// Every fault ends. Corosync and topology are told afterwards.
    pub fn heal(&mut self) {
        self.side.fill(0);
        self.deaf.fill(0);
        self.lag.fill(0);
        self.unverified.fill(0);
        (self.dead, self.late_leaves) = (0, 0);
    }

    /// Are the node's verification IPs unreachable?
    #[must_use]
    pub fn unverified(&self, n: usize) -> bool {
        self.unverified[n] > 0
    }

    /// Members of the node's ring, as bits; only itself if that is broken.
    #[must_use]
    pub fn ring_of(&self, n: usize) -> u64 {
        let ring = &self.rings[self.nodes[n].ring];
        if ring.broken { 1 << n } else { ring.members }
    }

    /// Its ring is whole, and nothing is held back.
    #[must_use]
    pub fn is_well(&self, n: usize) -> bool {
        let in_ring = self.ring_of(n) >> n & 1 == 1 && self.dead >> n & 1 == 0;
        in_ring && self.lag[n] == 0 && !self.rings[self.nodes[n].ring].broken
    }

    /// Nodes with which this one can talk, both ways.
    fn linked(&self, n: usize) -> u64 {
        let hears = |k: &usize| self.side[*k] == self.side[n] && self.deaf[*k] >> n & 1 == 0;
        bits((0..self.nodes.len()).filter(hears)) & !self.deaf[n]
    }

    /// A kernel's death takes corosync with it.
    pub fn power_cut(&mut self, n: usize) {
        self.ghosts &= !(1 << n);
        self.nodes[n].incoming.clear();
        self.nodes[n].waiting.clear();
    }
}

fn members(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |n| mask >> n & 1 == 1)
}

impl World {
    fn corosync_runs(&self, n: usize) -> bool {
        self.nodes[n].boot.is_some()
            && self.nodes[n].node_sleeps <= self.now
            && self.net.dead >> n & 1 == 0
    }

    /// Sets of nodes that can form a ring now: in each, everybody hears everybody.
    fn components(&self) -> Vec<u64> {
        let mut left = bits((0..self.nodes.len()).filter(|n| self.corosync_runs(*n)));
        let mut parts = Vec::new();
        for &n in &self.net.order {
            if left >> n & 1 == 0 {
                continue;
            }
            let (mut part, mut common) = (1 << n, self.net.linked(n));
            for &k in &self.net.order {
                if common & left & !part & 1 << k != 0 {
                    part |= 1 << k;
                    common &= self.net.linked(k) | 1 << k;
                }
            }
            left &= !part;
            parts.push(part);
        }
        parts
    }

    /// Who finds whom first is drawn anew.
    pub fn reshuffle(&mut self) {
        for k in (1..self.net.order.len()).rev() {
            let other = self.rng.index(k + 1);
            self.net.order.swap(k, other);
        }
        self.topology_changed();
    }

    /// Power, pauses or links changed: break rings that cannot go on, and let new ones be formed.
    pub fn topology_changed(&mut self) {
        let components = self.components();
        let mut rings: Vec<_> = self.net.nodes.iter().map(|station| station.ring).collect();
        rings.sort_unstable();
        rings.dedup();
        for ring in rings {
            self.judge_ring(ring, &components);
        }
        for component in components {
            self.maybe_reform(component);
        }
    }

    fn judge_ring(&mut self, ring: usize, components: &[u64]) {
        let mask = self.net.rings[ring].members;
        // A ring that some members have left for another never works again.
        let whole = components.iter().any(|component| mask & !component == 0)
            && members(mask).all(|n| self.net.nodes[n].ring == ring);
        let was_broken = std::mem::replace(&mut self.net.rings[ring].broken, !whole);
        if !whole && !was_broken {
            self.cut_in_flight(ring, components);
        }
        if whole && was_broken {
            if self.net.rings[ring].owes_view {
                self.post_view(ring);
            }
            self.flush_waiting(mask);
        }
        if whole == was_broken {
            members(mask).for_each(|n| self.note_network(n));
        }
    }

    /// Each side keeps its own messages, and of the others' those that reached it in time.
    fn cut_in_flight(&mut self, ring: usize, components: &[u64]) {
        for component in components {
            let keep = self.rng.pick(&[0, 500, 1_000]);
            let keep = self.script.keeps(*component).unwrap_or(keep);
            let mut kept = Vec::new();
            let mut lost_all = false;
            for n in members(component & self.net.rings[ring].members) {
                // All members of a side that stay together deliver the same: decide once a message.
                let mut queue = std::mem::take(&mut self.net.nodes[n].incoming);
                queue.retain(|incoming| {
                    let Item::Message(message) = &incoming.item else { return true };
                    if component >> incoming.sender & 1 == 1 {
                        return true;
                    }
                    let known =
                        kept.iter().find(|(m, _): &&(Rc<Message>, bool)| Rc::ptr_eq(m, message));
                    if let Some((_, keep)) = known {
                        return *keep;
                    }
                    lost_all |= !self.rng.chance(keep);
                    kept.push((message.clone(), !lost_all));
                    !lost_all
                });
                self.net.nodes[n].incoming = queue;
            }
        }
    }

    fn ring_fits(&self, component: u64) -> bool {
        let mut rings = members(component).map(|n| self.net.nodes[n].ring);
        let first = rings.next().unwrap_or(0);
        self.net.rings[first].members == component && rings.all(|ring| ring == first)
    }

    fn maybe_reform(&mut self, component: u64) {
        if self.ring_fits(component) {
            return;
        }
        let loss = members(component).any(|n| self.net.rings[self.net.nodes[n].ring].broken);
        let membership = self.plan.timing.membership.0 * MS;
        let delay = if loss {
            self.rng.range(membership * 8 / 10, membership * 11 / 10)
        } else {
            self.rng.range(20 * MS, 600 * MS)
        };
        self.queue.push(self.now + delay, What::Reform { members: component });
    }

    /// Forms the ring of a component, if it is one still.
    pub fn reform(&mut self, component: u64) {
        if !self.components().contains(&component) || self.ring_fits(component) {
            return;
        }
        for n in members(component) {
            self.flush_incoming(n);
        }
        self.net.rings.push(Ring {
            members: component,
            owes_view: false,
            broken: false,
            last: self.now,
        });
        let ring = self.net.rings.len() - 1;
        let old = members(component).map(|n| self.net.nodes[n].ring).collect::<Vec<_>>();
        for n in members(component) {
            self.net.nodes[n].ring = ring;
        }
        for ring in old {
            self.net.rings[ring].broken = true;
        }
        members(component).for_each(|n| self.note_network(n));
        self.post_view(ring);
        self.flush_waiting(component);
    }

    /// Old messages come before the new view.
    fn flush_incoming(&mut self, n: usize) {
        for incoming in std::mem::take(&mut self.net.nodes[n].incoming) {
            self.hand_up(n, incoming);
        }
    }

    fn flush_waiting(&mut self, mask: u64) {
        for n in members(mask) {
            for message in std::mem::take(&mut self.net.nodes[n].waiting) {
                self.multicast(n, message);
            }
        }
    }

    fn group(&self, ring: usize) -> u64 {
        let joined = |n: &usize| {
            let boot = self.nodes[*n].boot.as_ref();
            let joined = boot.and_then(|b| b.agent.as_ref()).is_some_and(|agent| agent.joined);
            joined || self.net.ghosts >> n & 1 == 1
        };
        bits(members(self.net.rings[ring].members).filter(joined))
    }

    fn post_view(&mut self, ring: usize) {
        let view = self.group(ring);
        self.net.rings[ring].owes_view = false;
        self.note_world(|| format!("ring {ring}: group view {}", mask_words(view)));
        let sender = members(view).next().unwrap_or(0);
        self.post(ring, Incoming { sender, item: Item::View(view) });
    }

    /// The agent joins the group.
    pub fn join(&mut self, n: usize, epoch: u64) {
        if self.net.dead >> n & 1 == 1 {
            let at = self.now + SECOND;
            return self.queue.push(at, What::Join { node: n, epoch });
        }
        let Some(agent) = self.agent(n, epoch) else { return };
        agent.joined = true;
        self.net.ghosts &= !(1 << n);
        // What corosync had for the agent before is not for this one.
        self.net.nodes[n].incoming.clear();
        let ring = self.net.nodes[n].ring;
        self.net.rings[ring].owes_view = true;
        if !self.net.rings[ring].broken && self.net.rings[ring].members >> n & 1 == 1 {
            self.post_view(ring);
        }
    }

    /// The agent's process is gone: corosync notices by its socket, or, as a ghost, never.
    pub fn leave(&mut self, n: usize) {
        self.net.nodes[n].waiting.clear();
        self.net.nodes[n].incoming.clear();
        if self.ghost_next {
            self.ghost_next = false;
            self.net.ghosts |= 1 << n;
            return;
        }
        if self.net.late_leaves > self.now {
            let (at, epoch) = (self.now + self.rng.skewed(0, 4_000) * MS, self.epochs);
            return self.queue.push(at, What::Leave { node: n, epoch });
        }
        self.left(n);
    }

    /// Corosync noticed late that an agent has died. If the next one has joined meanwhile, nobody ever hears of it: it
    /// is in the group as if it had never left.
    pub fn leave_late(&mut self, n: usize, epoch: u64) {
        if self.epoch(n).is_none_or(|present| present <= epoch) {
            self.left(n);
        }
    }

    fn left(&mut self, n: usize) {
        let ring = self.net.nodes[n].ring;
        self.net.rings[ring].owes_view = true;
        if !self.net.rings[ring].broken {
            self.post_view(ring);
        }
    }

    /// Corosync dies on a node, or comes back.
    pub fn corosync(&mut self, n: usize, dies: bool) {
        if dies {
            self.net.dead |= 1 << n;
            // Back before the others noticed: the agent joins its group again, and is told who is in it.
            let ring = self.net.nodes[n].ring;
            self.net.rings[ring].owes_view = true;
            self.net.nodes[n].incoming.clear();
            self.net.nodes[n].waiting.clear();
            if let Some(epoch) = self.epoch(n) {
                // At once: an agent hears that its connection is gone before it has another.
                let reason = "CS_ERR_LIBRARY".to_string();
                self.answer(n, epoch, 0, Event::CorosyncLost { reason });
            }
        } else {
            self.net.dead &= !(1 << n);
        }
        self.topology_changed();
    }

    /// The agent multicasts: mostly at once; now and then what it says waits a little in its process, in order.
    pub fn say(&mut self, n: usize, epoch: u64, message: Box<Message>) {
        let waits = self.script.on || self.rng.chance(30);
        let Some(agent) = self.agent(n, epoch) else { return };
        if agent.outbox.is_empty() && !waits {
            return self.send(n, epoch, message);
        }
        agent.outbox.push_back(message);
        if agent.outbox.len() == 1 {
            let most = if self.script.on { 200 } else { 20_000 };
            let at = self.now + self.rng.skewed(20, most);
            self.queue.push(at, What::Flush { node: n, epoch });
        }
    }

    /// What waited is sent.
    pub fn flush(&mut self, n: usize, epoch: u64) {
        let Some(agent) = self.agent(n, epoch) else { return };
        for message in std::mem::take(&mut agent.outbox) {
            self.send(n, epoch, message);
        }
    }

    /// The agent hands a message to corosync.
    pub fn send(&mut self, n: usize, epoch: u64, message: Box<Message>) {
        let lost = (self.net.dead | self.script.mute) >> n & 1 == 1;
        if !lost && self.agent(n, epoch).is_some_and(|agent| agent.joined) {
            self.multicast(n, Rc::from(message));
        }
    }

    fn multicast(&mut self, n: usize, message: Rc<Message>) {
        let ring = self.net.nodes[n].ring;
        if self.net.rings[ring].broken || self.net.rings[ring].members >> n & 1 == 0 {
            self.net.nodes[n].waiting.push_back(message);
            return;
        }
        self.post(ring, Incoming { sender: n, item: Item::Message(message) });
    }

    /// Gives an item its place in the ring's order, and sends it to every member.
    fn post(&mut self, ring: usize, incoming: Incoming) {
        let latency = self.rng.skewed(150, 1_500);
        let order = (self.now + latency).max(self.net.rings[ring].last + 1);
        self.net.rings[ring].last = order;
        for n in members(self.net.rings[ring].members) {
            let delay = self.rng.range(20, 300) + self.net.lag[n];
            let station = &mut self.net.nodes[n];
            station.last = (order + delay).max(station.last + 1);
            station.incoming.push_back(incoming.clone());
            self.queue.push(station.last, What::Arrive { node: n, ring });
        }
    }

    /// The next item of a node's queue is due, if its ring is still the same.
    pub fn arrive(&mut self, n: usize, ring: usize) {
        if self.net.nodes[n].ring == ring
            && let Some(incoming) = self.net.nodes[n].incoming.pop_front()
        {
            self.hand_up(n, incoming);
        }
    }

    fn hand_up(&mut self, n: usize, incoming: Incoming) {
        let Some(agent) = self.nodes[n].boot.as_ref().and_then(|boot| boot.agent.as_ref()) else {
            return;
        };
        let epoch = agent.epoch;
        if !agent.joined {
            return;
        }
        let event = match incoming.item {
            Item::Message(message) => {
                let message = Box::new(Message::clone(&message));
                Event::MessageReceived { sender: id(incoming.sender), message }
            }
            Item::View(mask) => Event::ViewChanged { members: members(mask).map(id).collect() },
        };
        self.deliver(n, epoch, event);
    }
}

/// "n1 n3", for people.
#[must_use]
pub fn mask_words(mask: u64) -> String {
    members(mask).map(|n| format!("n{}", n + 1)).collect::<Vec<_>>().join(" ")
}
