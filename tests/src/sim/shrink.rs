//! A smaller world with the same broken promise: fewer faults, nodes and VMs, shorter, plainer.
//!
//! Whatever is taken away changes what chance does afterwards, so each smaller plan is tried with several worlds
//! (`Plan::seed`) before it is given up.

use super::clock::{MS, SECOND};
use super::faults::Fault;
use super::plan::Plan;
use super::policy::Mood;
use super::report::run_plan;
use steadfast_core::config::Limits;

/// Worlds in which each smaller plan is tried, two at a time.
const WORLDS: u64 = 8;

/// Shrinks a plan.
#[derive(Debug)]
pub struct Shrinker {
    /// The smallest plan so far.
    pub plan: Plan,
    rule: &'static str,
    /// Runs so far.
    pub runs: u64,
    limit: u64,
}

impl Shrinker {
    /// Begins with a plan that breaks `rule`. Ends after about `limit` runs.
    #[must_use]
    pub fn new(plan: Plan, rule: &'static str, limit: u64) -> Self {
        Self { plan, rule, runs: 0, limit }
    }

    /// Shrinks until nothing helps any more. Tells about each round.
    pub fn run(&mut self, mut tell: impl FnMut(&Plan, u64)) {
        loop {
            let before = size(&self.plan);
            self.drop_faults();
            self.drop_aims();
            self.drop_nodes();
            self.drop_vms();
            self.simplify();
            self.shorten();
            tell(&self.plan, self.runs);
            if size(&self.plan) >= before || self.runs >= self.limit {
                return;
            }
        }
    }

    /// Takes a smaller plan if it breaks the same promise in some world.
    fn take(&mut self, smaller: &Plan) -> bool {
        if self.runs >= self.limit {
            return false;
        }
        for pair in 0..WORLDS / 2 {
            let worlds = [smaller.seed + pair * 2, smaller.seed + pair * 2 + 1];
            let [first, second] = worlds.map(|seed| Plan { seed, ..smaller.clone() });
            self.runs += 2;
            let (left, right) = std::thread::scope(|scope| {
                let other = scope.spawn(|| self.breaks(&second));
                (self.breaks(&first), other.join().unwrap_or(false))
            });
            if left || right {
                self.plan = if left { first } else { second };
                return true;
            }
        }
        false
    }

    fn breaks(&self, plan: &Plan) -> bool {
        let violation = run_plan(plan.clone(), false, false).violation;
        violation.is_some_and(|violation| violation.rule == self.rule)
    }

    /// First halves, then quarters, at last single ones.
    fn drop_faults(&mut self) {
        let mut length = self.plan.faults.len().div_ceil(2);
        while length > 0 {
            let mut from = 0;
            while from < self.plan.faults.len() {
                let mut smaller = self.plan.clone();
                let end = (from + length).min(smaller.faults.len());
                smaller.faults.drain(from..end);
                if !self.take(&smaller) {
                    from += length;
                }
            }
            length /= 2;
        }
    }

    fn drop_aims(&mut self) {
        for k in (0..self.plan.aims.len()).rev() {
            let mut smaller = self.plan.clone();
            smaller.aims.remove(k);
            self.take(&smaller);
        }
    }

    fn drop_nodes(&mut self) {
        let mut n = self.plan.nodes;
        while n > 0 && self.plan.nodes > 2 {
            n -= 1;
            let smaller = without_node(&self.plan, n);
            self.take(&smaller);
            n = n.min(self.plan.nodes);
        }
    }

    fn drop_vms(&mut self) {
        for vms in 1..self.plan.vms {
            if self.take(&Plan { vms, ..self.plan.clone() }) {
                return;
            }
        }
    }

    fn simplify(&mut self) {
        let plain: [fn(&mut Plan); 6] = [
            |plan| plan.mood = Mood::Honest,
            |plan| plan.verification = false,
            |plan| plan.fd_store = true,
            |plan| plan.rates.fill(1_000_000),
            |plan| plan.limits = Limits::default(),
            |plan| plan.shipped = false,
        ];
        for change in plain {
            let mut smaller = self.plan.clone();
            change(&mut smaller);
            if smaller.to_text() != self.plan.to_text() {
                self.take(&smaller);
            }
        }
    }

    /// Everything happens sooner after the beginning.
    fn hasten(&mut self) {
        let quiet = 15 * SECOND;
        let at = self.plan.faults.iter().map(|(at, _)| *at);
        let first = at.chain(self.plan.aims.iter().map(|aim| aim.from)).min();
        let Some(early) = first.and_then(|first| first.checked_sub(quiet)) else { return };
        let mut smaller = self.plan.clone();
        smaller.faults.iter_mut().for_each(|(at, _)| *at -= early);
        smaller.aims.iter_mut().for_each(|aim| aim.from -= early);
        smaller.heal -= early;
        if early > 0 {
            self.take(&smaller);
        }
    }

    fn shorten(&mut self) {
        self.hasten();
        let last = self.plan.faults.iter().map(|(at, fault)| at + fault.length).max();
        let heal = last.unwrap_or(30 * SECOND) + SECOND;
        if heal < self.plan.heal {
            self.take(&Plan { heal, ..self.plan.clone() });
        }
        for k in 0..self.plan.faults.len() {
            let calmer: [fn(&mut Fault); 4] = [
                |fault| fault.length = fault.length / 2 / MS * MS,
                |fault| fault.lag = 0,
                |fault| fault.unverified = 0,
                |fault| fault.cruel = false,
            ];
            for change in calmer {
                let mut smaller = self.plan.clone();
                change(&mut smaller.faults[k].1);
                if smaller.faults[k] != self.plan.faults[k] {
                    self.take(&smaller);
                }
            }
        }
    }
}

/// What shrinking is to make smaller, the most important first.
fn size(plan: &Plan) -> (usize, usize, usize, u64) {
    let lengths = plan.faults.iter().map(|(_, fault)| fault.length + fault.lag).sum::<u64>();
    (plan.faults.len() + plan.aims.len(), plan.nodes, plan.vms, plan.heal + lengths)
}

/// The same plan for the others.
fn without_node(plan: &Plan, n: usize) -> Plan {
    let squeeze = |mask: u64| (mask & ((1 << n) - 1)) | (mask >> 1 & !((1 << n) - 1));
    let fix = |fault: &mut Fault| {
        fault.nodes = squeeze(fault.nodes);
        fault.unverified = squeeze(fault.unverified);
        fault.sides.remove(n);
        if fault.kind == super::faults::Kind::OneWay {
            fault.sides.iter_mut().for_each(|deaf| *deaf = squeeze(*deaf));
        }
    };
    let mut smaller = plan.clone();
    smaller.nodes -= 1;
    smaller.rates.remove(n);
    if !smaller.upgrades.is_empty() {
        smaller.upgrades.remove(n);
    }
    smaller.fence_agents = squeeze(plan.fence_agents);
    smaller.faults.iter_mut().for_each(|(_, fault)| fix(fault));
    smaller.faults.retain(|(_, fault)| fault.nodes != 0);
    smaller.aims.iter_mut().for_each(|aim| fix(&mut aim.fault));
    smaller
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{Class, Wish};

    #[test]
    fn a_plan_without_a_node_is_the_same_plan_for_the_others() {
        let wish = Wish { nodes: Some(5), class: Some(Class::Swarm), ..Wish::default() };
        let mut plan = Plan::new(7, wish);
        plan.fence_agents = 0b1_0110;
        let smaller = without_node(&plan, 1);
        assert_eq!((smaller.nodes, smaller.fence_agents), (4, 0b1010));
        assert!(smaller.faults.iter().all(|(_, fault)| fault.sides.len() == 4));
        assert!(Plan::from_text(&smaller.to_text()).is_ok());
    }
}
