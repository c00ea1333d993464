//! Whole demonstrations, with the shortest time-outs, in real time. Judged by the witness, not by what agents say.

use super::*;
use std::time::Instant;

/// Other tests and builds run at the same time.
const PATIENCE: Duration = Duration::from_secs(60);
const VMS: u32 = 6;

fn ready() -> Demo {
    let options = Options { vms: VMS, preset: Preset::Fast, ..Options::default() };
    let demo = Demo::start(&options).expect("it starts");
    assert!(demo.wait_until_ready(PATIENCE), "{:#?}", demo.lines_after(0));
    demo
}

fn act(demo: &Demo, deed: &str) {
    demo.act(&deed.parse().expect("a deed")).expect("done");
}

fn wait_for(demo: &Demo, what: &str, holds: impl Fn(&Truth) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds(&demo.truth()) {
        assert!(Instant::now() < end, "{what}: {:#?}", demo.lines_after(0));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// VMs under HA, and where each of them ran first.
fn homes(truth: &Truth) -> BTreeMap<String, String> {
    let mut homes = BTreeMap::new();
    for run in truth.runs().filter(|run| run.vm != "scratch") {
        homes.entry(run.vm.clone()).or_insert_with(|| run.node.clone());
    }
    homes
}

fn runs_of<'a>(truth: &'a Truth, vm: &str) -> Vec<&'a Run> {
    truth.runs().filter(|run| run.vm == vm).collect()
}

/// Every VM runs in one place, which is not `node`.
fn all_run_off(truth: &Truth, node: &str) -> bool {
    homes(truth).keys().all(|vm| {
        let places = truth.places(vm);
        places.len() == 1 && places[0] != node
    })
}

/// Those of `node` went elsewhere once, after they had ended there; all others were left alone.
fn check_moves(demo: &Demo, node: &str) {
    let truth = demo.truth();
    assert_eq!(truth.twice(), [""; 0]);
    for (vm, home) in homes(&truth) {
        let runs = runs_of(&truth, &vm);
        if home != node {
            assert_eq!(runs.len(), 1, "{vm} was on another node: {runs:?}");
            continue;
        }
        let [first, second] = runs[..] else { panic!("{vm} moves once: {runs:?}") };
        let ended = first.ended_ms.expect("it ended there");
        assert!(ended <= second.began_ms, "{vm} ends before it begins: {runs:?}");
    }
}

#[test]
fn vms_of_a_killed_node_run_elsewhere_once_and_come_to_no_harm_when_it_boots() {
    let demo = ready();
    act(&demo, "kill n2");
    wait_for(&demo, "all run off n2", |truth| all_run_off(truth, "n2"));
    check_moves(&demo, "n2");
    act(&demo, "boot n2");
    wait_for(&demo, "n2 is a member again", |_| {
        let agent = demo.agent("n2").and_then(|agent| agent.live().ok());
        let snapshot = agent.and_then(|live| live.inbox.snapshot(Duration::from_secs(1)));
        snapshot.is_some_and(|snapshot| snapshot.lease.left.is_some())
    });
    check_moves(&demo, "n2");
}

#[test]
fn a_node_cut_off_the_network_stops_its_vms_before_others_start_them() {
    let demo = ready();
    act(&demo, "cut n3");
    wait_for(&demo, "all run off n3", |truth| all_run_off(truth, "n3"));
    check_moves(&demo, "n3");
    assert!(demo.report().nodes["n3"].up, "nothing was fenced, and no watchdog fired");
}

#[test]
fn a_storage_that_answers_nobody_stops_nothing() {
    let demo = ready();
    act(&demo, "stall");
    // Longer than a lease and the time to stop, 3.5 s and 3 s.
    std::thread::sleep(Duration::from_secs(9));
    act(&demo, "heal");
    std::thread::sleep(Duration::from_secs(2));
    let truth = demo.truth();
    assert!(truth.runs().all(|run| run.ended_ms.is_none()), "{:#?}", demo.lines_after(0));
    assert_eq!(homes(&truth).len(), VMS as usize);
}

#[test]
fn a_demonstration_leaves_no_files() {
    let demo = ready();
    let folder = demo.folder().to_owned();
    assert!(folder.exists());
    // Another one that begins finds that it lives.
    Place::tidy();
    assert!(folder.join("shared/cluster.json").exists());
    drop(demo);
    assert!(!folder.exists(), "{}", folder.display());
}

#[test]
fn what_a_killed_demonstration_left_is_removed_by_the_next() {
    let place = Place::new(None).expect("a folder");
    let folder = place.folder().to_owned();
    drop(place);
    assert!(folder.exists(), "as after a kill");
    Place::tidy();
    assert!(!folder.exists(), "{}", folder.display());
}
