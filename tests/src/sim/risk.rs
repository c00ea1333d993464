//! Equipment that announces failures, and risk policies that say so, or lie. What proactive HA does about it is advice followed
//! with care: the judge holds every commit against the budget.

use super::check::Violation;
use super::clock::{MS, SECOND, Time};
use super::plan::{Class, Plan};
use super::rng::Rng;
use super::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use steadfast_core::event::{Decider, Event};
use steadfast_core::ledger::Ledger;
use steadfast_core::proactive::{Assessed, Level, Mode, most_drained, most_held};
use steadfast_core::time::Millis;
use steadfast_sdk::wire::{Score, Term};

/// A risk policy is asked this often.
const PACE: Time = 5 * SECOND;

/// How risk policies speak of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Candour {
    /// As it is.
    #[default]
    Honest,
    /// As it is, more or less.
    Noisy,
    /// As it is and the contrary, in turn.
    Flickering,
    /// As bad as can be, of everybody.
    Lying,
    /// Anything, beyond every range too.
    Wild,
    /// Not at all.
    Silent,
}

impl Candour {
    const ALL: [Self; 6] =
        [Self::Honest, Self::Noisy, Self::Flickering, Self::Lying, Self::Wild, Self::Silent];
}

/// The equipment of all nodes.
#[derive(Debug, Default)]
pub struct Equipment {
    /// Somebody asks risk policies.
    pub watched: bool,
    /// How near each node is to its end, 0 to 1000.
    pub scores: BTreeMap<usize, u16>,
    /// Nodes of which policies do not speak like of the others.
    pub candour: BTreeMap<usize, Candour>,
    said: BTreeMap<usize, (Time, bool)>,
}

impl Plan {
    /// Equipment that fails, by chance of its own, so that known seeds keep their stories.
    pub fn draw_omens(&mut self) {
        let rng = &mut Rng::new(self.seed ^ 0x0dd5_0e75);
        if self.class != Class::Swarm || self.plant.is_some() || rng.chance(750) {
            return;
        }
        let settings = &mut self.limits.proactive;
        settings.mode =
            rng.pick(&[Mode::Drain, Mode::Drain, Mode::Drain, Mode::Shadow, Mode::Warn]);
        settings.readings = u32::try_from(rng.below(3)).unwrap_or(0) + 1;
        settings.well_after = Millis(rng.pick(&[1_000, 10_000, 30_000]));
        settings.stale = Millis(20_000);
        settings.important = rng.pick(&[0, 0, 600]);
        settings.max_drained = rng.pick(&[None, None, Some(2)]);
        self.candour = rng.pick(&Candour::ALL);
        let mut at = 10 * SECOND;
        while at < self.heal {
            let score = rng.pick(&[0, 0, 350, 550, 900]);
            self.omens.push((at, rng.index(self.nodes), score));
            at += rng.range(MS, 30 * SECOND);
        }
    }
}

impl World {
    /// Risk policies are asked, where it is time.
    pub fn ask_about_risk(&mut self) {
        let now = self.now;
        let due = self.plan.omens.iter().take_while(|(at, ..)| *at <= now);
        self.equipment.scores.extend(due.map(|(_, node, score)| (*node, *score)));
        if !self.equipment.watched && self.plan.omens.is_empty() {
            return;
        }
        for n in 0..self.nodes.len() {
            let (last, even) = self.equipment.said.get(&n).copied().unwrap_or_default();
            let Some(epoch) = self.epoch(n).filter(|_| now >= last + PACE) else { continue };
            self.equipment.said.insert(n, (now, !even));
            if let Some(score) = self.risk_said(n, even) {
                self.answer(n, epoch, MS, assessed(score));
            }
        }
    }

    fn risk_said(&mut self, n: usize, even: bool) -> Option<i64> {
        let truth = i64::from(self.equipment.scores.get(&n).copied().unwrap_or(0));
        let candour = self.equipment.candour.get(&n).copied().unwrap_or(self.plan.candour);
        Some(match candour {
            Candour::Honest => truth,
            Candour::Noisy => truth + i64::try_from(self.rng.below(201)).unwrap_or(0) - 100,
            Candour::Flickering if even => 1_000 - truth,
            Candour::Flickering => truth,
            Candour::Lying => 1_000,
            Candour::Wild => self.rng.pick(&[i64::MIN, -1, 0, 500, 1_000, i64::MAX]),
            Candour::Silent => return None,
        })
    }

    /// `policy_is_advice`: whatever risk policies say, no commit drains or holds more nodes than it may.
    pub fn overdrawn(&self, before: &Ledger, after: &Ledger) -> Option<Violation> {
        let count =
            |ledger: &Ledger, level| ledger.holds().filter(|(_, hold)| hold.level >= level).count();
        let settings = &self.plan.limits.proactive;
        // A commit may hold a node and remove another: what it held was right for the nodes before.
        let nodes = after.nodes.len().max(before.nodes.len());
        let drained = settings.max_drained.unwrap_or(nodes).min(most_drained(nodes));
        let acts = usize::from(settings.mode == Mode::Drain);
        let limits = [(Level::Drain, drained), (Level::Avoid, most_held(nodes))];
        let (level, most) = limits.into_iter().find(|(level, most)| {
            let now = count(after, *level);
            now > count(before, *level) && now > most * acts
        })?;
        let text = format!("{level:?}: {} of {nodes} nodes, at most {most}", count(after, level));
        Some(Violation { rule: "policy_is_advice", text })
    }
}

fn assessed(score: i64) -> Event {
    let term = Term { name: "failing disk".into(), value: score };
    let score = Score { value: score, terms: vec![term] };
    let decider = Decider { name: "world".into(), ..Decider::default() };
    Event::RiskAssessed(Box::new(Assessed { score, decider }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Wish;
    use crate::sim::trace::Trace;
    use steadfast_core::ids::{NodeId, Stamp};
    use steadfast_core::ledger::Hold;

    fn held(ledger: &Ledger, nodes: std::ops::RangeInclusive<u32>, level: Level) -> Ledger {
        let mut ledger = ledger.clone();
        for node in nodes {
            let (since, reason) = (Stamp::default(), String::new());
            let hold = Hold { since, level, score: 900, reason };
            ledger.nodes.entry(NodeId(node)).and_modify(|entry| entry.hold = Some(hold));
        }
        ledger
    }

    #[test]
    fn a_commit_that_drains_or_holds_too_many_is_found() {
        let mut plan = Plan::new(1, Wish { nodes: Some(8), ..Wish::default() });
        (plan.limits.proactive.mode, plan.strangers) = (Mode::Drain, 0);
        let mut world = World::bare(plan, Trace::default());
        let none = world.genesis.clone();
        let drained = |nodes| held(&none, nodes, Level::Drain);
        assert_eq!(world.overdrawn(&none, &drained(1..=2)), None);
        assert!(world.overdrawn(&none, &drained(1..=3)).is_some());
        assert_eq!(world.overdrawn(&drained(1..=3), &drained(1..=3)), None, "it was so before");
        assert!(world.overdrawn(&none, &held(&none, 1..=5, Level::Avoid)).is_some());
        world.plan.limits.proactive.mode = Mode::Shadow;
        assert!(world.overdrawn(&none, &drained(1..=1)).is_some(), "shadows move nothing");
    }
}
