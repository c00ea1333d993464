use super::read::{Availability, EventsWanted};
use super::*;
use crate::watch::seen::VmSeen;
use crate::watch::tests::Folder;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn start(folder: &Folder, retention: Retention) -> (History, Arc<Mutex<Vec<Incident>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    let tell =
        move |_: &str, incident: &Incident| keep.lock().expect("lock").push(incident.clone());
    let path = folder.join("h.db");
    let history = History::start(&path, &["c".into()], retention, Box::new(tell));
    (history.expect("starts"), told)
}

fn report(number: u64, wall_ms: u64, text: &str) -> DecisionReport {
    let (id, text) = (format!("n1-5-{number}"), text.into());
    DecisionReport { id, number, wall_ms, text, ..DecisionReport::sample() }
}

/// Waits until everything put before is written.
fn settle(history: &History) {
    let (tell, told) = channel();
    history.write(move |_| tell.send(()).expect("waited for"));
    told.recv().expect("written");
    // It is committed with its batch.
    history.write(|_| ());
    std::thread::sleep(Duration::from_millis(50));
}

fn find(history: &History, wanted: &Value) -> Vec<String> {
    let wanted: EventsWanted = serde_json::from_value(wanted.clone()).expect("good");
    let found = history.read(|store| wanted.find(store, "c")).expect("read");
    found.iter().map(|report| report["text"].as_str().expect("text").to_string()).collect()
}

#[test]
fn a_restart_loses_nothing_and_what_is_told_again_is_kept_once() {
    let folder = Folder::new("restart");
    let (history, _) = start(&folder, Retention { age: Duration::MAX, ..Retention::default() });
    history.decided("c", &report(1, 1_000, "web goes to n2"));
    history.decided("c", &report(2, 2_000, "db-1 goes to n3"));
    settle(&history);
    drop(history);
    let (history, _) = start(&folder, Retention { age: Duration::MAX, ..Retention::default() });
    history.decided("c", &report(2, 2_000, "db-1 goes to n3"));
    history.decided("c", &report(3, 3_000, "web runs on n2"));
    settle(&history);
    let all = ["web runs on n2", "db-1 goes to n3", "web goes to n2"];
    assert_eq!(find(&history, &serde_json::json!({})), all);
    assert_eq!(find(&history, &serde_json::json!({"q": "run n2"})), ["web runs on n2"]);
    assert_eq!(find(&history, &serde_json::json!({"q": "db-1"})), ["db-1 goes to n3"]);
    assert_eq!(find(&history, &serde_json::json!({"q": "\" OR NEAR( *"})), Vec::<String>::new());
    let between = serde_json::json!({"since": 2_000, "before": 3_000});
    assert_eq!(find(&history, &between), ["db-1 goes to n3"]);
    assert_eq!(find(&history, &serde_json::json!({"vm": "u1", "limit": 1})), ["web runs on n2"]);
    assert_eq!(find(&history, &serde_json::json!({"node": "n9"})), Vec::<String>::new());
}

#[test]
fn what_is_too_old_goes() {
    let folder = Folder::new("age");
    let now = crate::clock::Clock.wall_ms();
    let (history, _) = start(&folder, Retention::default());
    history.decided("c", &report(1, 1_000, "long ago"));
    history.decided("c", &report(2, now, "just now"));
    settle(&history);
    drop(history);
    // It is swept at once at start.
    let (history, _) = start(&folder, Retention::default());
    settle(&history);
    assert_eq!(find(&history, &serde_json::json!({})), ["just now"]);
    assert_eq!(find(&history, &serde_json::json!({"q": "ago"})), Vec::<String>::new());
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let folder = Folder::new("size");
    let now = crate::clock::Clock.wall_ms();
    let (history, _) = start(&folder, Retention::default());
    let long = "x".repeat(2_000);
    for number in 0..1_000 {
        history.decided("c", &report(number, now + number, &format!("{number} {long}")));
    }
    settle(&history);
    drop(history);
    let bytes = 1 << 20;
    let (history, _) = start(&folder, Retention { bytes, ..Retention::default() });
    settle(&history);
    let wanted: EventsWanted =
        serde_json::from_value(serde_json::json!({"limit": 1_000})).expect("good");
    let left = history.read(|store| wanted.find(store, "c")).expect("read");
    assert!((100..600).contains(&left.len()), "{} are left", left.len());
    assert_eq!(left[0]["number"], 999, "the newest stay");
    let begun = Instant::now();
    assert_eq!(find(&history, &serde_json::json!({"q": "999"})).len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(500), "the search is quick");
}

fn seen(at: u64, status: &str, owner: &str, runs: bool) -> Seen {
    let web = VmSeen { name: "web".into(), owner: owner.into(), runs, down: !runs };
    Seen {
        wall_ms: at,
        whole: true,
        nodes: [("n2".to_string(), Some(status.to_string()))].into(),
        vms: [("u1".to_string(), Some(web))].into(),
    }
}

#[test]
fn availability_counts_from_the_first_sign_of_silence() {
    let folder = Folder::new("availability");
    let (history, told) = start(&folder, Retention::default());
    let now = crate::clock::Clock.wall_ms();
    history.seen("c", seen(now, "Member", "n2", true));
    let silent =
        Seen { vms: Default::default(), whole: false, ..seen(now + 1_000, "Suspect", "n2", true) };
    history.seen("c", silent);
    history.seen("c", seen(now + 4_000, "Evicted", "n2", false));
    history.seen("c", seen(now + 9_000, "Evicted", "n3", true));
    history.seen("c", seen(now + 61_000, "Member", "n3", true));
    // It was seen all the time.
    history.write(move |store| {
        let sight = "INSERT INTO sights (cluster, began, ended) VALUES ('c', ?1, ?2)";
        store.execute(sight, [keeper::signed(now), keeper::signed(now + 100_000)]).expect("kept");
    });
    settle(&history);
    let found =
        history.read(|store| Availability::of(store, "c", now, now + 100_000)).expect("read");
    let found = serde_json::to_value(found).expect("JSON");
    let node = serde_json::json!({"up_ppm": 400_000, "down_ms": 60_000, "flaps": 1});
    assert_eq!(found["nodes"]["n2"], node);
    let vm =
        serde_json::json!({"name": "web", "up_ppm": 920_000, "down_ms": 8_000, "failovers": 1});
    assert_eq!(found["vms"]["u1"], vm);
    let is_told = || told.lock().expect("lock").iter().any(|it| it.title == "n2 failed");
    let begun = Instant::now();
    while !is_told() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the incident is not told");
        std::thread::sleep(Duration::from_millis(20));
    }
}
