//! The printed bounds hold: in many worlds with one fault each, the time from the fault to the start order stays below the
//! bound of its row (PROTOCOL sections 5 and 9).

use std::collections::BTreeMap;
use steadfast_core::bounds::{Assumed, Bound, Role, Row, bound};
use steadfast_core::config::{Limits, Timing};
use steadfast_core::time::Millis;
use steadfast_tests::sim::clock::{MS, SECOND, Time};
use steadfast_tests::sim::faults::{Fault, Kind};
use steadfast_tests::sim::plan::{Class, Plan, Wish};
use steadfast_tests::sim::policy::Mood;
use steadfast_tests::sim::trace::Trace;
use steadfast_tests::sim::world::World;

/// When the one fault begins, and how long it lasts.
const FAULT: Time = 45 * SECOND;
const LENGTH: Time = 75 * SECOND;
/// Worlds a story: half of them hit n1, which leads as a rule, half n3.
const SEEDS: u64 = 40;
/// Fewer measured starts than this prove nothing about a row and role.
const LEAST: usize = 10;
/// The world's array takes up to 60 ms, and now and then, for one operation, 400.
const CYCLE: Millis = Millis(200);
/// The world's nodes look at their verification IPs once a second.
const VERIFICATION: Millis = Millis(1_100);

/// One kind of fault, and the row that it belongs to.
#[derive(Debug, Clone, Copy)]
struct Story {
    row: Row,
    kind: Kind,
    fence_agents: bool,
    rule_4: bool,
}

#[test]
fn a_dead_node_with_a_fence_agent_is_replaced_within_its_bound() {
    tell(Story { row: Row::FullFailure, kind: Kind::PowerCut, fence_agents: true, rule_4: false });
}

#[test]
fn a_dead_node_without_a_fence_agent_is_replaced_within_its_bound() {
    tell(Story { row: Row::FullFailure, kind: Kind::PowerCut, fence_agents: false, rule_4: true });
}

#[test]
fn a_network_isolated_node_is_replaced_within_its_bound() {
    let (row, kind) = (Row::NetworkIsolation, Kind::Partition);
    tell(Story { row, kind, fence_agents: false, rule_4: true });
}

#[test]
fn a_storage_isolated_node_is_replaced_within_its_bound() {
    let (row, kind) = (Row::StorageIsolation, Kind::FailSome);
    tell(Story { row, kind, fence_agents: false, rule_4: true });
}

#[test]
fn a_storage_isolated_node_whose_guests_hang_is_replaced_within_its_bound() {
    let (row, kind) = (Row::StorageIsolationStuck, Kind::StallSome);
    tell(Story { row, kind, fence_agents: false, rule_4: true });
    tell(Story { row, kind, fence_agents: true, rule_4: false });
}

/// Runs a story's worlds; panics at the first start order that comes too late.
fn tell(story: Story) {
    let mut measured: BTreeMap<Role, Vec<u64>> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let victim = if seed.is_multiple_of(2) { 0 } else { 2 };
        let plan = plan(seed, victim, story);
        let timing = plan.timing.clone();
        let trace = Trace { on: true, verbose: false, lines: Vec::new() };
        let mut world = World::new(plan, trace);
        world.run();
        assert_eq!(world.violation, None, "seed {seed} of {story:?}");
        let lines: Vec<Line<'_>> = world.trace.lines.iter().filter_map(|l| parse(l)).collect();
        let Some(seen) = Seen::of(&lines, victim) else { continue };
        let bound = story.bound(&timing, &seen);
        let total = bound.total.expect("rows that move VMs are bounded").0;
        for (vm, after) in &seen.orders {
            let story_lines = world.trace.lines.join("\n");
            assert!(
                *after <= total,
                "{story_lines}\nseed {seed}, {story:?}, {:?}: the start of {vm} was ordered after {after} ms, \
                 the bound is {total} ms = {}",
                seen.role,
                bound.sum(),
            );
            measured.entry(seen.role).or_default().push(*after * 1_000 / total);
        }
    }
    for role in [Role::Member, Role::Leader] {
        let mut shares = measured.remove(&role).unwrap_or_default();
        shares.sort_unstable();
        assert!(shares.len() >= LEAST, "{story:?}, {role:?}: only {} starts", shares.len());
        let (median, most) = (shares[shares.len() / 2], shares[shares.len() - 1]);
        println!(
            "{:?}, fence agent {}, {role:?}: {} starts, median {median}, most {most} thousandths of the bound",
            story.row,
            story.fence_agents,
            shares.len(),
        );
        // A bound that nothing comes near would be no bound but a big number.
        assert!(most >= 300, "{story:?}, {role:?}: at most {most} thousandths of the bound");
    }
}

impl Story {
    /// The bound as the world is: its ring takes up to a tenth longer, its fence agents took what they took.
    fn bound(self, timing: &Timing, seen: &Seen) -> Bound {
        let membership = Millis(timing.membership.0 * 11 / 10);
        let timing = Timing { membership, ..timing.clone() };
        let assumed = Assumed {
            cycle: CYCLE,
            fence_agent: seen.fence_agent,
            verification: VERIFICATION,
            rule_4: self.rule_4,
        };
        bound(&timing, &assumed, self.row, seen.role, self.fence_agents)
    }
}

fn plan(seed: u64, victim: usize, story: Story) -> Plan {
    let (nodes, class) = (Some(3), Some(Class::Swarm));
    let mut plan = Plan::new(seed, Wish { nodes, class, ..Wish::default() });
    let mask = 1 << victim;
    plan.vms = 6;
    plan.fence_agents = if story.fence_agents { 0b111 } else { 0 };
    plan.never_paused = story.rule_4;
    plan.verification = true;
    // Nothing else happens: no directed faults, no operators, no node that joins.
    plan.aims.clear();
    plan.wishes.clear();
    (plan.strangers, plan.limits) = (0, Limits::default());
    plan.mood = if seed.is_multiple_of(3) { Mood::Silent } else { Mood::Honest };
    let sides = match story.kind {
        Kind::Partition => (0..3).map(|n| u64::from(n == victim)).collect(),
        _ => vec![0; 3],
    };
    let unverified = if story.kind == Kind::Partition { mask } else { 0 };
    let fault = Fault {
        kind: story.kind,
        nodes: mask,
        length: LENGTH,
        lag: 0,
        cruel: false,
        sides,
        unverified,
    };
    // Not always at the same phase of the beats.
    plan.faults = vec![(FAULT + seed * 37 * MS, fault)];
    plan.kinds = vec![story.kind];
    plan.heal = FAULT + LENGTH + 10 * SECOND;
    plan
}

/// One line of a world's story.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    at: Time,
    node: &'a str,
    text: &'a str,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (time, rest) = line.trim_start().split_once("  ")?;
    let (seconds, micros) = time.split_once('.')?;
    let at = seconds.parse::<Time>().ok()? * SECOND + micros.parse::<Time>().ok()?;
    let (node, text) = rest.split_at_checked(4)?;
    Some(Line { at, node: node.trim(), text })
}

/// What a story tells.
#[derive(Debug)]
struct Seen {
    role: Role,
    /// VMs that were given a new place, and when their start was first ordered, in milliseconds after the fault.
    orders: BTreeMap<String, u64>,
    /// How long the fence agent took.
    fence_agent: Millis,
}

impl Seen {
    /// `None`: nothing had to be moved, or the fence agent failed at first.
    fn of(lines: &[Line<'_>], victim: usize) -> Option<Self> {
        let fault = lines.iter().find(|line| line.text.starts_with("FAULT"))?.at;
        let before = lines.iter().filter(|line| line.at < fault);
        let leader = before.rev().find(|line| line.text.starts_with("says: leading"))?.node;
        let role = if leader == format!("n{}", victim + 1) { Role::Leader } else { Role::Member };
        let after: Vec<_> =
            lines.iter().filter(|line| (fault..fault + LENGTH).contains(&line.at)).collect();
        let mut orders = BTreeMap::new();
        let mut moved = Vec::new();
        for line in &after {
            if let Some(decided) = line.text.strip_prefix("Decided: ") {
                moved.push(decided.split_once(" goes to ")?.0.to_string());
            }
            let Some(ordered) = line.text.strip_prefix("StartOrdered: ") else { continue };
            let vm = ordered.split_once(" is ordered to start ")?.1;
            if moved.iter().any(|known| known == vm) {
                orders.entry(vm.to_string()).or_insert((line.at - fault).div_ceil(MS));
            }
        }
        let time_of = |begin: &str| after.iter().find(|line| line.text.starts_with(begin));
        let fence_agent = match (time_of("fence n"), time_of("fence agent for ")) {
            (Some(ordered), Some(ended)) if ended.text.ends_with("Ok(())") => ended.at - ordered.at,
            (Some(_), _) => return None,
            _ => 0,
        };
        let fence_agent = Millis(fence_agent.div_ceil(MS));
        (!orders.is_empty()).then_some(Self { role, orders, fence_agent })
    }
}
