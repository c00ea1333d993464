//! The simulator in CI: fixed seeds, a few hundred more, and the checker itself checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use steadfast_tests::sim::plan::{Class, Plan, Plant, Wish};
use steadfast_tests::sim::report::{Outcome, catch_panics, command, run, run_plan};
use steadfast_tests::sim::shrink::Shrinker;
use steadfast_tests::sim::trace::Trace;
use steadfast_tests::sim::world::World;

/// How many seeds beside those of `seeds.txt` every run tries.
const SEEDS: u64 = 300;

#[test]
fn every_seed_that_ever_failed_stays_clean() {
    let mut known = std::collections::BTreeMap::<_, Vec<u64>>::new();
    for line in include_str!("../seeds.txt").lines() {
        let mut words = line.split_whitespace();
        let Some(Ok(seed)) = words.next().map(str::parse) else { continue };
        let nodes = words.next().and_then(|word| word.strip_prefix("nodes="));
        known.entry(nodes.map(|nodes| nodes.parse().unwrap())).or_default().push(seed);
    }
    for (nodes, seeds) in known {
        // As `sim --seed` draws it, and as the first ones were found, when every world was a mixed one.
        for class in [None, Some(Class::Swarm)] {
            judge(seeds.iter().copied(), Wish { class, nodes, ..Wish::default() });
        }
    }
}

#[test]
fn random_faults_break_no_promise() {
    judge(1..=SEEDS, Wish { class: Some(Class::Swarm), ..Wish::default() });
}

#[test]
fn nothing_stops_when_nothing_fails() {
    judge(1..=20, Wish { class: Some(Class::Quiet), ..Wish::default() });
}

#[test]
fn nothing_stops_when_storage_fails_for_everybody() {
    judge(1..=40, Wish { class: Some(Class::StorageForAll), ..Wish::default() });
}

#[test]
fn nothing_stops_when_the_network_fails_for_everybody() {
    judge(1..=40, Wish { class: Some(Class::NetworkForAll), ..Wish::default() });
}

#[test]
fn the_same_seed_is_the_same_world() {
    catch_panics();
    let wish = Wish::default();
    for seed in 1..=10 {
        assert_eq!(run(seed, wish, true, true).lines, run(seed, wish, true, true).lines);
    }
}

#[test]
fn an_operator_may_change_his_mind_about_a_node_of_sixty_four() {
    let plan = Plan::new(1, Wish { nodes: Some(64), ..Wish::default() });
    let mut world = World::new(plan, Trace::default());
    let before = world.members.unwanted;
    world.reconfigure(1 << 63);
    assert_eq!(world.members.unwanted, before ^ 1 << 63);
}

#[test]
fn a_fence_agent_that_lies_is_found_out() {
    assert_found_out(Plant::LyingFence);
}

#[test]
fn a_clock_that_runs_far_too_slowly_is_found_out() {
    assert_found_out(Plant::SlowClock);
}

#[test]
fn a_watchdog_that_does_nothing_is_found_out() {
    assert_found_out(Plant::DeadWatchdog);
}

/// What a lie breaks before two nodes run the same VM.
const EARLIER: &[&str] = &["no_start_without_proof", "proofs_are_true", "starts_where_it_belongs"];

/// With this lie in a world, some seed must show a proof that is none; and some seed, if that is overlooked, two homes of
/// one VM.
fn assert_found_out(plant: Plant) {
    for (rule, overlook) in [("no_start_without_proof", &[][..]), ("one_home", EARLIER)] {
        let (plant, class) = (Some(plant), Some(Class::Swarm));
        let wish = Wish { plant, class, overlook, ..Wish::default() };
        assert!(somebody_breaks(rule, wish), "{plant:?} broke {rule} for no seed");
    }
}

#[test]
fn a_failure_shrinks_to_a_small_plan_that_fails_alike_when_it_is_read_back() {
    catch_panics();
    let (plant, class) = (Some(Plant::DeadWatchdog), Some(Class::Swarm));
    let wish = Wish { plant, class, nodes: Some(3), ..Wish::default() };
    let breaks = |plan: &Plan| run_plan(plan.clone(), false, false).violation;
    let failing = |seed| {
        let plan = Plan::new(seed, wish);
        breaks(&plan).map(|violation| (plan, violation.rule))
    };
    let (plan, rule) = (1..1_000).find_map(failing).expect("a seed that fails");
    let mut shrinker = Shrinker::new(plan.clone(), rule, 200);
    shrinker.run(|_, _| {});
    let small = Plan::from_text(&shrinker.plan.to_text()).expect("a plan");
    assert_eq!(breaks(&small).map(|violation| violation.rule), Some(rule));
    assert!(small.faults.len() + small.aims.len() <= 2, "{} faults", small.faults.len());
    assert!(small.nodes <= plan.nodes && small.vms == 1, "{} VMs", small.vms);
}

fn somebody_breaks(rule: &str, wish: Wish) -> bool {
    catch_panics();
    let next = AtomicU64::new(1);
    let found = AtomicBool::new(false);
    let work = || {
        while !found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > 1_000 {
                return;
            }
            let violation = run(seed, wish, false, false).violation;
            if violation.is_some_and(|violation| violation.rule == rule) {
                found.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    found.into_inner()
}

/// Runs these seeds on every core and shows the story of the first failure.
fn judge(seeds: impl Iterator<Item = u64>, wish: Wish) {
    catch_panics();
    let seeds: Vec<u64> = seeds.collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads).max(1);
    let mut failed: Vec<Outcome> = std::thread::scope(|scope| {
        let work = |part: &[u64]| {
            let outcomes = part.iter().map(|seed| run(*seed, wish, false, false));
            outcomes.filter(|outcome| outcome.violation.is_some()).collect::<Vec<_>>()
        };
        let workers: Vec<_> =
            seeds.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    failed.sort_by_key(|outcome| outcome.seed);
    if let Some(first) = failed.first() {
        let story = run(first.seed, wish, true, false);
        let list: Vec<_> = failed.iter().map(|outcome| outcome.seed).collect();
        panic!(
            "{}\n{:?}\nfailed seeds: {list:?}\nrepeat: {}",
            story.lines.join("\n"),
            first.violation,
            command(first.seed, wish),
        );
    }
}
