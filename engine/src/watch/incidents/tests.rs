use super::*;
use steadfast_core::ids::VmId;

fn node(kind: Kind, at: u64, text: &str) -> DecisionReport {
    let (id, node) = (format!("n1-5-{at}"), Some("n2".to_string()));
    let (vm, vm_id) = (None, None);
    let text = text.into();
    DecisionReport { id, kind, wall_ms: at, node, vm, vm_id, text, ..DecisionReport::sample() }
}

fn vm(kind: Kind, at: u64, text: &str) -> DecisionReport {
    let (vm, vm_id) = (Some("web".to_string()), Some(VmId("u1".into())));
    DecisionReport { vm, vm_id, node: Some("n3".into()), ..node(kind, at, text) }
}

fn seen(at: u64, status: &str, owner: &str, runs: bool) -> Seen {
    let web = VmSeen { name: "web".into(), owner: owner.into(), runs, down: !runs };
    Seen {
        wall_ms: at,
        whole: false,
        nodes: [("n2".to_string(), Some(status.to_string()))].into(),
        vms: [("u1".to_string(), Some(web))].into(),
    }
}

fn failover() -> Vec<DecisionReport> {
    vec![
        node(Kind::Suspected, 1_000, "n2 is Suspect: no beat"),
        node(Kind::Suspected, 3_000, "n2 is Full failure: no page"),
        node(Kind::Evicted, 4_000, "n2 is evicted"),
        vm(Kind::Decided, 8_000, "web goes to n3"),
        vm(Kind::StartOrdered, 8_010, "n3 starts web"),
        vm(Kind::VmRunning, 9_000, "web runs on n3"),
        node(Kind::Admitted, 60_000, "n2 is admitted"),
    ]
}

fn last(changes: Vec<Incident>) -> Incident {
    changes.into_iter().next_back().expect("a change")
}

#[test]
fn a_failover_is_one_incident_from_the_first_sign_to_the_end() {
    let mut tracker = Tracker::new(Vec::new(), 7);
    tracker.seen(&seen(500, "Member", "n2", true));
    let mut all = failover();
    let admitted = all.pop().expect("last");
    let first = last(tracker.decided(&all[0]));
    assert_eq!((first.id, first.title.as_str()), (7, "n2 is not well"));
    tracker.seen(&seen(3_990, "Evicted", "n2", false));
    let told = last(all[1..].iter().flat_map(|report| tracker.decided(report)).collect());
    assert_eq!((told.title.as_str(), told.severity), ("n2 failed", Severity::Critical));
    assert_eq!(told.summary, "1 VM ran again within 8.0 s");
    tracker.seen(&seen(9_020, "Evicted", "n3", true));
    assert_eq!(tracker.tick(20_000), Vec::new(), "n2 is not back");
    tracker.decided(&admitted);
    tracker.seen(&seen(60_100, "Member", "n3", true));
    assert_eq!(tracker.tick(61_000), Vec::new(), "not steady yet");
    let over = last(tracker.tick(62_500));
    assert_eq!(over.closed_wall_ms, Some(60_000));
    assert_eq!(over.summary, "1 VM ran again within 8.0 s; n2 was well again after 59 s");
    let names: Vec<&str> = over.milestones.iter().map(|it| it.name.as_str()).collect();
    let expected = ["suspected", "suspected", "suspected", "evicted", "decided", "start_ordered"];
    assert_eq!(names[..6], expected);
    assert_eq!(names[6..], ["vm_running", "admitted"]);
}

#[test]
fn after_a_restart_the_story_is_the_same() {
    let mut before = Tracker::new(Vec::new(), 1);
    let all = failover();
    let open = last(all[..3].iter().flat_map(|report| before.decided(report)).collect());
    let mut after = Tracker::new(vec![open], 2);
    let told = last(all[3..].iter().flat_map(|report| after.decided(report)).collect());
    assert_eq!((told.id, told.milestones.len(), told.vms.len()), (1, 7, 1));
    after.seen(&seen(100_000, "Member", "n3", true));
    let over = last(after.tick(103_000));
    assert_eq!(over.closed_wall_ms, Some(60_000), "its end is when it ended, not when we looked");
}

#[test]
fn the_state_after_a_failover_does_not_hide_whose_vms_the_decisions_before_it_were_about() {
    let all = failover();
    let mut before = Tracker::new(Vec::new(), 1);
    let open = last(before.decided(&all[0]));
    let mut after = Tracker::new(vec![open], 2);
    after.seen(&seen(20_000, "Evicted", "n3", true));
    let told = last(all[1..6].iter().flat_map(|report| after.decided(report)).collect());
    assert_eq!(told.summary, "1 VM ran again within 8.0 s");
    let names: Vec<&str> = told.milestones.iter().map(|it| it.name.as_str()).collect();
    assert!(names.ends_with(&["decided", "start_ordered", "vm_running", "suspected"]), "{names:?}");
}

#[test]
fn decisions_of_several_nodes_make_the_same_incident_in_any_order() {
    let all = failover();
    let mut tracker = Tracker::new(Vec::new(), 1);
    // The node that starts the VM is heard before the leader.
    assert_eq!(tracker.decided(&all[5]), []);
    let told = last(all[..5].iter().flat_map(|report| tracker.decided(report)).collect());
    assert_eq!(told.summary, "1 VM ran again within 8.0 s");
    let names: Vec<&str> = told.milestones.iter().map(|it| it.name.as_str()).collect();
    let steps = ["suspected", "suspected", "evicted", "decided", "start_ordered", "vm_running"];
    assert_eq!(names, steps);
}

#[test]
fn what_happens_to_a_vm_of_another_node_meanwhile_is_another_story() {
    let mut tracker = Tracker::new(Vec::new(), 1);
    tracker.seen(&seen(500, "Member", "n3", true));
    let all = failover();
    all[..3].iter().for_each(|report| drop(tracker.decided(report)));
    assert_eq!(tracker.decided(&all[5]), [], "web was on n3 all the time");
}

#[test]
fn what_several_nodes_say_is_told_once_and_late_words_find_their_place() {
    let mut tracker = Tracker::new(Vec::new(), 1);
    tracker.decided(&node(Kind::Suspected, 1_000, "n2 is Suspect: no beat for 1 s"));
    tracker.decided(&node(Kind::Evicted, 4_000, "n2 is evicted"));
    assert_eq!(
        tracker.decided(&node(Kind::Suspected, 1_200, "n2 is Suspect: no beat for 2 s")),
        []
    );
    let told = last(tracker.decided(&node(Kind::LastWords, 2_000, "the lease is over")));
    let times: Vec<u64> = told.milestones.iter().map(|it| it.at_wall_ms).collect();
    assert_eq!(times, [1_000, 2_000, 4_000]);
}

#[test]
fn a_short_silence_is_told_and_nothing_stood_still() {
    let mut tracker = Tracker::new(Vec::new(), 1);
    tracker.seen(&seen(1_000, "Suspect", "n2", true));
    tracker.seen(&seen(1_800, "Member", "n2", true));
    let over = last(tracker.tick(4_000));
    assert_eq!(
        (over.title.as_str(), over.severity),
        ("n2 was silent for a while", Severity::Warning)
    );
    assert_eq!(over.summary, "n2 was well again after 0.8 s");
}

#[test]
fn maintenance_is_no_incident_and_nothing_ends_unseen() {
    let mut tracker = Tracker::new(Vec::new(), 1);
    assert_eq!(tracker.decided(&node(Kind::Suspected, 1, "n2 is Maintenance: update")), []);
    assert_eq!(tracker.seen(&seen(1, "Maintenance", "n2", true)), []);
    tracker.seen(&seen(1_000, "Suspect", "n2", true));
    tracker.go_blind();
    assert_eq!(tracker.tick(900_000), []);
}

#[test]
fn a_vm_that_stays_down_is_an_incident_until_it_runs() {
    let mut tracker = Tracker::new(Vec::new(), 1);
    tracker.seen(&seen(1_000, "Member", "n2", true));
    tracker.seen(&seen(2_000, "Member", "n2", false));
    assert_eq!(tracker.tick(3_000), []);
    let open = last(tracker.tick(7_500));
    assert_eq!((open.title.as_str(), open.opened_wall_ms), ("web is down", 2_000));
    tracker.seen(&seen(12_000, "Member", "n2", true));
    let over = last(tracker.tick(12_500));
    assert_eq!(over.closed_wall_ms, Some(12_000));
    assert_eq!(over.summary, "1 VM ran again within 10 s");
}
