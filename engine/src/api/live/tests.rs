use super::*;
use crate::driver::rig::{Rig, vm};
use axum::extract::{Query, State};
use std::time::Duration;
use steadfast_core::time::Millis;
use tokio_stream::Stream;

/// One who looks on: what it would show.
struct Client {
    body: std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, axum::Error>> + Send>>,
    unread: String,
    state: Value,
    number: u64,
}

async fn ask(rig: &Rig, once: u8) -> Response {
    let wanted = Query(Wanted { once });
    live(State(Arc::clone(&rig.agent)), wanted).await.expect("it is live")
}

impl Client {
    async fn new(rig: &Rig) -> Self {
        let body = Box::pin(ask(rig, 0).await.into_body().into_data_stream());
        let mut client = Self { body, unread: String::new(), state: Value::Null, number: 0 };
        assert_eq!(client.next().await.0, "state");
        client
    }

    /// The next event and its data, once it is taken into what is shown.
    async fn next(&mut self) -> (String, Value) {
        while !self.unread.contains("\n\n") {
            let more = tokio::time::timeout(Duration::from_secs(5), self.body.next());
            let more = more.await.expect("in time").expect("no end").expect("no error");
            self.unread.push_str(std::str::from_utf8(&more).expect("text"));
        }
        let (event, rest) = self.unread.split_once("\n\n").expect("a whole event");
        let field = |name: &str| {
            let found = event.lines().find_map(|line| line.strip_prefix(name));
            found.expect("each event has it").to_owned()
        };
        let (kind, number) = (field("event: "), field("id: ").parse().expect("a number"));
        let data: Value = serde_json::from_str(&field("data: ")).expect("JSON");
        self.unread = rest.to_owned();
        assert!(self.number == 0 || number == self.number + 1 || kind == "state", "no gap");
        self.number = number;
        match kind.as_str() {
            "state" => self.state = data.clone(),
            "patch" => merge(&mut self.state, &data),
            _ => {}
        }
        (kind, data)
    }

    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        while !wanted(&self.state) {
            self.next().await;
        }
    }
}

/// `null` and a missing key are the same.
fn without_nulls(value: Value) -> Value {
    let mut clean = json!({});
    merge(&mut clean, &value);
    clean
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_follows_the_patches_sees_what_one_sees_who_asks() {
    let rig = Rig::new("");
    let mut client = Client::new(&rig).await;
    rig.change(|state| {
        state.vms.push(vm("new"));
        state.vms.retain(|vm| vm.name != "db");
        state.vms[0].owner.name = "n3".into();
        state.lease.left = Some(Millis(4_000));
        state.leader = None;
    });
    client.until(|state| state["vms"].get("uuid-of-new").is_some()).await;
    // Ages come with the next tick.
    client.next().await;
    let whole = axum::body::to_bytes(ask(&rig, 1).await.into_body(), usize::MAX).await;
    let mut whole: Value = serde_json::from_slice(&whole.expect("a body")).expect("JSON");
    whole["wall_ms"] = client.state["wall_ms"].clone();
    // The plan comes when it is made.
    for state in [&mut whole, &mut client.state] {
        state.as_object_mut().expect("an object").remove("plan");
    }
    assert_eq!(without_nulls(client.state.clone()), without_nulls(whole.clone()));
    let parsed: LiveState = serde_json::from_value(whole).expect("what it writes can be read");
    let names: Vec<&str> = parsed.vms.values().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["new", "web"]);
}

/// Half of the times are shorter: other tests and builds run at the same time.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_within_50_ms_and_a_decision_too() {
    let rig = Rig::new("");
    let mut client = Client::new(&rig).await;
    let (mut changes, mut decisions) = (Vec::new(), Vec::new());
    for round in 0..20 {
        tokio::time::sleep(Duration::from_millis(37)).await;
        let begun = std::time::Instant::now();
        rig.change(|state| state.term = 100 + round);
        client.until(|state| state["term"] == json!(100 + round)).await;
        changes.push(begun.elapsed());
        let begun = std::time::Instant::now();
        rig.decide(round, "web goes to n2");
        while client.next().await.1["number"] != json!(round) {}
        decisions.push(begun.elapsed());
    }
    let (change, decision) = (median(changes), median(decisions));
    println!("a change is told after {change:?}, a decision after {decision:?} (medians)");
    assert!(change < Duration::from_millis(50), "{change:?}");
    assert!(decision < Duration::from_millis(50), "{decision:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_gets_the_whole_state_and_goes_on() {
    let rig = Rig::new("");
    let mut slow = Client::new(&rig).await;
    let mut quick = Client::new(&rig).await;
    for number in 1..=3 * BEHIND as u64 {
        rig.decide(number, "said");
        while quick.next().await.1["number"] != json!(number) {}
    }
    let mut states = 0;
    loop {
        let (kind, data) = slow.next().await;
        states += u32::from(kind == "state");
        if data["number"] == json!(3 * BEHIND) || kind == "state" && states > 0 {
            break;
        }
    }
    assert_eq!(states, 1);
    rig.change(|state| state.term = 77);
    slow.until(|state| state["term"] == json!(77)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_computed_once_nobody_looks_on() {
    let rig = Rig::new("");
    assert!(!rig.agent.news.is_watched());
    let client = Client::new(&rig).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(rig.agent.news.is_watched());
    drop(client);
    let end = Instant::now() + TICK * 3;
    while rig.agent.news.is_watched() {
        assert!(Instant::now() < end, "it still looks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Client::new(&rig).await;
}
