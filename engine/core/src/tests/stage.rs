//! Node n1's view of three nodes, or more, over time: who beats, who writes pages, and what they say.

use crate::beats::Beats;
use crate::config::Config;
use crate::heartbeat::Heartbeat;
use crate::ids::{Identity, NodeId};
use crate::kit::{admitted, at, beat, config_of, id, page, show_as, slots, who};
use crate::ledger::Ledger;
use crate::liveness::{Facts, Liveness};
use crate::message::Beat;
use crate::page::{Page, Pages};
use crate::quorum::Witness;
use crate::time::Millis;
use crate::view::View;
use std::boxed::Box;
use std::collections::BTreeMap;

/// What one node does, twice a second.
pub(crate) struct Life {
    /// It multicasts beats that arrive.
    pub beats: bool,
    /// Its storage works.
    pub stores: bool,
    pub who: Identity,
    /// What its beats say; number and storage age are filled in.
    pub beat: Beat,
    /// What its pages say; the sequence is filled in.
    pub page: Page,
    stored: Option<u64>,
    sequence: u64,
}

pub(crate) struct Stage {
    pub config: Config,
    pub ledger: Ledger,
    pub view: View,
    pub beats: Beats,
    pub heartbeat: Heartbeat,
    pub liveness: Liveness,
    pub witness: Witness,
    pub leader: Option<NodeId>,
    pub ledger_leader: Option<NodeId>,
    pub lives: BTreeMap<u32, Life>,
    pub now: u64,
    disk: Pages,
}

impl Stage {
    /// All three admitted, n1 leads, everybody in order.
    pub fn new() -> Self {
        Self::of(3)
    }

    /// The same with so many nodes.
    pub fn of(nodes: u32) -> Self {
        let mut view = View::default();
        view.on_changed((1..=nodes).map(id).collect(), at(0));
        Self {
            config: config_of(1, nodes),
            ledger: admitted(nodes),
            view,
            beats: Beats::new(who(1), at(0)),
            heartbeat: Heartbeat::new(who(1), slots(nodes).into_keys().collect(), at(0)),
            liveness: Liveness::default(),
            witness: Witness::default(),
            leader: Some(id(1)),
            ledger_leader: Some(id(1)),
            lives: (1..=nodes).map(|node| (node, Life::new(node))).collect(),
            now: 0,
            disk: slots(nodes),
        }
    }

    /// In order for ten seconds.
    pub fn settled() -> Self {
        Self::settled_of(3)
    }

    /// So many nodes, in order for ten seconds.
    pub fn settled_of(nodes: u32) -> Self {
        let mut stage = Self::of(nodes);
        stage.run(10_000);
        stage
    }

    pub fn life(&mut self, node: u32) -> &mut Life {
        self.lives.get_mut(&node).unwrap()
    }

    /// Corosync's word, now.
    pub fn see(&mut self, members: &[u32]) {
        self.view.on_changed(members.iter().map(|node| id(*node)).collect(), at(self.now));
    }

    /// The node is gone on both channels, and from the view a second later.
    pub fn kill(&mut self, node: u32) {
        self.fall_silent(node);
        self.run(1_000);
        let members = self.view.members.iter().map(|member| member.0);
        let others: std::vec::Vec<u32> = members.filter(|other| *other != node).collect();
        self.see(&others);
    }

    pub fn fall_silent(&mut self, node: u32) {
        let life = self.life(node);
        (life.beats, life.stores) = (false, false);
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 500;
            let nodes: std::vec::Vec<u32> = self.lives.keys().copied().collect();
            nodes.into_iter().for_each(|node| self.act(node));
            let mine = &self.lives[&1];
            if mine.stores {
                let (own, disk) = (mine.page.clone(), &mut self.disk);
                show_as(&mut self.heartbeat, own, disk, self.now, self.now + 10);
            }
            let mut liveness = core::mem::take(&mut self.liveness);
            liveness.assess(&self.facts());
            self.liveness = liveness;
            self.witness = Witness::testifies(&self.facts(), &self.liveness);
        }
    }

    fn act(&mut self, node: u32) {
        let now = self.now;
        let life = self.lives.get_mut(&node).unwrap();
        if life.stores {
            life.sequence += 1;
            life.stored = Some(now);
            let page = Page { sequence: life.sequence, writer: life.who, ..life.page.clone() };
            // n1's page is written by its own cycle.
            if node != 1 {
                self.disk.insert(id(node), Some(page));
            }
        }
        if life.beats {
            let storage_age = life.stored.map(|stored| Millis(now - stored));
            let beat = Beat { number: now, storage_age, ..life.beat.clone() };
            self.beats.on_received(life.who, Box::new(beat), at(now));
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            config: &self.config,
            now: at(self.now + 20),
            ledger: &self.ledger,
            view: &self.view,
            beats: &self.beats,
            heartbeat: &self.heartbeat,
            leader: self.leader,
            storage_since: self.liveness.storage_since(),
            ledger_leader: self.ledger_leader,
            witness: &self.witness,
        }
    }
}

impl Life {
    fn new(node: u32) -> Self {
        let page = Page { verification: Some(true), armed: true, idle: true, ..page(node, 0) };
        let beat = Beat {
            verification: Some(true),
            armed: true,
            idle: true,
            lease_left: Some(Millis(4_000)),
            ..beat(0)
        };
        Self { beats: true, stores: true, who: who(node), beat, page, stored: None, sequence: 0 }
    }

    /// What it says of its verification IPs, on both channels.
    pub fn says(&mut self, verification: Option<bool>) {
        self.beat.verification = verification;
        self.page.verification = verification;
    }
}
