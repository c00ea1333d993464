//! Corosync: rings with agreed order, views, and what happens when a ring breaks.
//!
//! A ring is a set of nodes that order messages together. When connectivity or a pause breaks it, each
//! side keeps what it has (a message may have reached one side only), and messages given to corosync
//! meanwhile wait for the next ring. After the detection time each side forms a new ring and its CPG
//! group sees a new view.

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
    /// Corosync is dead on these nodes.
    pub dead: u64,
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
            unverified: vec![0; nodes],
            lag: vec![0; nodes],
            nodes: (0..nodes).map(|_| Station::default()).collect(),
            ..Self::default()
        }
    }

    /// Are the node's verification IPs unreachable?
    #[must_use]
    pub fn unverified(&self, n: usize) -> bool {
        self.unverified[n] > 0
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

    /// Nodes that can talk to each other now.
    fn components(&self) -> Vec<u64> {
        let mut sides: Vec<(u64, u64)> = Vec::new();
        for n in (0..self.nodes.len()).filter(|n| self.corosync_runs(*n)) {
            let side = self.net.side[n];
            match sides.iter_mut().find(|(s, _)| *s == side) {
                Some((_, mask)) => *mask |= 1 << n,
                None => sides.push((side, 1 << n)),
            }
        }
        sides.into_iter().map(|(_, mask)| mask).collect()
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
            self.flush_waiting(mask);
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
        self.net.rings.push(Ring { members: component, broken: false, last: self.now });
        let ring = self.net.rings.len() - 1;
        let old = members(component).map(|n| self.net.nodes[n].ring).collect::<Vec<_>>();
        for n in members(component) {
            self.net.nodes[n].ring = ring;
        }
        for ring in old {
            self.net.rings[ring].broken = true;
        }
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
        let ring = self.net.nodes[n].ring;
        if !self.net.rings[ring].broken {
            self.post_view(ring);
        }
    }

    /// Corosync dies on a node, or comes back.
    pub fn corosync(&mut self, n: usize, dies: bool) {
        if dies {
            self.net.dead |= 1 << n;
            self.net.nodes[n].incoming.clear();
            self.net.nodes[n].waiting.clear();
            if let Some(epoch) = self.epoch(n) {
                let reason = "CS_ERR_LIBRARY".to_string();
                self.answer(n, epoch, 9 * MS, Event::CorosyncLost { reason });
            }
        } else {
            self.net.dead &= !(1 << n);
        }
        self.topology_changed();
        // Back before the others noticed: the agent joins its group again, and is told who is in it.
        let ring = self.net.nodes[n].ring;
        let whole = !self.net.rings[ring].broken && self.net.rings[ring].members >> n & 1 == 1;
        if !dies && whole {
            self.post_view(ring);
        }
    }

    /// The agent multicasts.
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
        let what = What::Deliver { node: n, epoch, event: Box::new(event) };
        if let Some(what) = self.park(what) {
            self.queue.push(self.now, what);
        }
    }
}

/// "n1 n3", for people.
#[must_use]
pub fn mask_words(mask: u64) -> String {
    members(mask).map(|n| format!("n{}", n + 1)).collect::<Vec<_>>().join(" ")
}
