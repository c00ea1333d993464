//! Rolling upgrades: in some worlds every node begins with the older release, and has the newer one from its first start
//! after its own hour on. Nobody may be shut out of the ledger meanwhile.

use super::check::Violation;
use super::clock::{SECOND, Time};
use super::plan::{Class, Plan};
use super::rng::Rng;
use super::world::World;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ledger::Ledger;

impl Plan {
    /// By chance of its own, so that other seeds keep their stories.
    pub fn draw_upgrades(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x09_ade5);
        if self.class == Class::Swarm && self.plant.is_none() && rng.chance(120) {
            self.upgrades = (0..self.nodes).map(|_| rng.range(0, self.heal)).collect();
        }
    }

    /// What an agent speaks that is started now.
    pub fn speaks(&self, n: usize, now: Time) -> FeatureLevel {
        match self.upgrades.get(n) {
            Some(hour) if now < *hour => FeatureLevel::OLDEST,
            _ => FeatureLevel::NEWEST,
        }
    }

    /// What the first ledger of all is of.
    pub fn first_level(&self) -> FeatureLevel {
        if self.upgrades.is_empty() { FeatureLevel::NEWEST } else { FeatureLevel::OLDEST }
    }
}

impl World {
    /// What still runs the older release is restarted.
    pub fn finish_upgrade(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].speaks < FeatureLevel::NEWEST {
                self.crash(n, SECOND);
            }
        }
    }

    /// `oldest_decides`: a body uses more than a configured node speaks.
    pub fn unspoken(&self, ledger: &Ledger) -> Option<Violation> {
        let speaks = |n: usize| self.nodes[n].speaks;
        let deaf = ledger.nodes.keys().find(|node| speaks(node.0 as usize - 1) < ledger.level)?;
        let text = format!("feature level {} is in force, {deaf} speaks less", ledger.level);
        Some(Violation { rule: "oldest_decides", text })
    }
}
