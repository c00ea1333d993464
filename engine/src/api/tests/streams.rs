//! Many who look on, and what Prometheus reads.

use super::*;
use axum::http::Method as M;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const CLIENTS: usize = 200;

/// Opens a stream, reads it to `end`, and tells how many bytes came.
async fn look_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    end: Instant,
) -> usize {
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::builder().uri("/v1/live").header("host", "localhost");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut bytes = 0;
    while let Ok(Some(Ok(frame))) =
        tokio::time::timeout(end.saturating_duration_since(Instant::now()), body.frame()).await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes
}

/// The lease path is asked for its state as often as news come, not as often as there are clients; 64 nodes would change often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_look_on_share_what_is_computed() {
    let rig = Rig::new("");
    let at = serve(&rig).await;
    let (begun, end) = (Instant::now(), Instant::now() + Duration::from_secs(3));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let stream = TcpStream::connect(at).await.expect("it listens");
        clients.push(tokio::spawn(look_on(stream, end)));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = rig.shown();
    let mut term = 100;
    while Instant::now() < end {
        term += 1;
        rig.change(|state| state.term = term);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = rig.shown() - asked;
    for client in clients {
        let bytes = client.await.expect("it ends well");
        assert!(bytes > 1_000, "{bytes} bytes came");
    }
    println!("{CLIENTS} clients, {:?}: the lease path was asked {asked} times", begun.elapsed());
    assert!(asked < 150, "50 changes and 3 ticks ask the lease path {asked} times");
}

/// A real agent of the demonstration, with real beats: those who look on cost it none. Measured before and with them, because other
/// tests and builds run at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_look_on_make_no_beat_late() {
    let start = || {
        let options = crate::demo::Options { vms: 20, ..crate::demo::Options::default() };
        let demo = crate::demo::Demo::start(&options).expect("it starts");
        assert!(demo.wait_until_ready(Duration::from_secs(60)));
        demo
    };
    let demo = tokio::task::spawn_blocking(start).await.expect("it starts");
    let live = demo.agent("n1").and_then(|agent| agent.live().ok()).expect("n1 lives");
    let told = || (live.gaps.beats(), live.gaps.late());
    let span = Duration::from_secs(6);
    let begun = told();
    tokio::time::sleep(span).await;
    let (alone, end) = (told(), Instant::now() + span);
    let (socket, mut clients) = (demo.socket("n1"), Vec::new());
    for _ in 0..CLIENTS {
        let stream = tokio::net::UnixStream::connect(&socket).await.expect("it listens");
        clients.push(tokio::spawn(look_on(stream, end)));
    }
    let mut bytes = 0;
    for client in clients {
        bytes += client.await.expect("it ends well");
    }
    let watched = told();
    let (beats, late) = (watched.0 - alone.0, watched.1 - alone.1);
    let before = (alone.0 - begun.0, alone.1 - begun.1);
    println!(
        "without clients {} beats, {} late; with {CLIENTS} clients {beats} beats, {late} late, {bytes} bytes",
        before.0, before.1
    );
    assert!(beats >= 8 && bytes > 200_000, "{beats} beats, {bytes} bytes");
    assert!(late <= before.1 + 1, "{late} of {beats} beats were late, {before:?} before");
    tokio::task::spawn_blocking(move || drop(demo)).await.expect("it ends");
}

/// The next event of this kind that `wanted` wants, and when it came.
async fn until(
    body: &mut hyper::body::Incoming,
    parser: &mut crate::sse::Parser,
    (kind, wanted): (&str, impl Fn(&Value) -> bool),
) -> Instant {
    loop {
        let frame = body.frame().await.expect("no end").expect("bytes");
        let bytes = frame.data_ref().expect("data");
        let frames = parser.feed(bytes).expect("small");
        let data = |frame: &crate::sse::Frame| serde_json::from_str(&frame.data).expect("JSON");
        if frames.iter().any(|frame| frame.event == kind && wanted(&data(frame))) {
            return Instant::now();
        }
    }
}

/// `cargo test --release -p steadfast-engine --lib api::tests::streams -- --ignored --nocapture --test-threads 1`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only measures"]
async fn how_long_news_of_a_large_cluster_take_to_its_stream() {
    const VMS: usize = 10_000;
    const ROUNDS: u64 = 40;
    let rig = Rig::new("");
    rig.change(|state| {
        state.vms = (0..VMS).map(|n| crate::driver::rig::vm(&format!("vm{n}"))).collect();
    });
    let stream = TcpStream::connect(serve(&rig).await).await.expect("it listens");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::builder().uri("/v1/live").header("host", "localhost");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut parser = crate::sse::Parser::default();
    let all = |state: &Value| state["vms"].as_object().is_some_and(|vms| vms.len() == VMS);
    until(&mut body, &mut parser, ("state", all)).await;
    let (mut told, mut shown) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let (text, begun) = (format!("decision {round}"), Instant::now());
        rig.decide(round, &text);
        let is_it = |report: &Value| report["text"] == text.as_str();
        told.push(until(&mut body, &mut parser, ("decision", is_it)).await - begun);
        let begun = Instant::now();
        let state = format!("round {round}");
        rig.change(|snapshot| snapshot.vms[VMS / 2].state.clone_from(&state));
        let path = format!("/vms/uuid-of-vm{}/state", VMS / 2);
        let has_it = |patch: &Value| patch.pointer(&path).is_some_and(|it| *it == state.as_str());
        shown.push(until(&mut body, &mut parser, ("patch", has_it)).await - begun);
    }
    for (what, mut times) in [("decision", told), ("patch", shown)] {
        times.sort();
        let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{VMS} VMs, {what}: median {half:?}, longest {most:?}");
    }
}

/// What a scraper makes of the page: names with their kind, and samples.
fn parse(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_known =
                kinds.contains_key(name) || base.is_some_and(|it| kinds.contains_key(it));
            assert!(is_known, "{name} has no TYPE before it");
            let value: f64 = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    (kinds, samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_parsed_and_their_names_end_in_units() {
    let rig = Rig::new("");
    rig.change(|state| state.lease.left = Some(steadfast_core::time::Millis(4_250)));
    let at = serve(&rig).await;
    rig.decide(1, "web goes to n2");
    get(at, "/v1/vms/nobody").await;
    let answer = get(at, "/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let (kinds, samples) = parse(std::str::from_utf8(&answer.body).expect("text"));
    let units = [
        "_seconds", "_bytes", "_total", "_ratio", "_nodes", "_vms", "_info", "_flaps", "_points",
        "_fuel",
    ];
    for (name, kind) in &kinds {
        assert!(units.iter().any(|unit| name.ends_with(unit)), "{name} has no unit");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    assert_eq!(samples["steadfast_lease_left_seconds"], 4.25);
    assert_eq!(samples["steadfast_vms{state=\"running\"}"], 2.0);
    assert_eq!(samples["steadfast_api_requests_total{status=\"404\"}"], 1.0);
    assert_eq!(samples["steadfast_failover_seconds_count"], 0.0);
    for wanted in [
        "steadfast_beats_late_total",
        "steadfast_elections_total",
        "steadfast_lease_evidence_age_seconds",
        "steadfast_node_recent_flaps",
        "steadfast_policy_calls_total",
        "steadfast_policy_last_fuel",
    ] {
        assert!(kinds.contains_key(wanted), "{wanted} is missing");
    }
    assert_eq!(ask(at, (M::POST, "/metrics"), &[], "").await.status, 405);
}
