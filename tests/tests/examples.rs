//! The example policies as modules in the agent's own host: each is taken, decides its kind, and keeps the laws there too, with its
//! fuel and memory counted. The one in C among them.

use std::sync::Arc;
use std::time::Duration;
use steadfast_engine::policy::{Answer, DeciderKind, Kind, Limits, PolicyStore};
use steadfast_sdk::fixture::Fixture;
use steadfast_sdk::generate::Generate;
use steadfast_sdk::laws;
use steadfast_sdk::wire::{RiskQuestion, RiskVerdict, Score};
use steadfast_tests::modules;

/// Generated clusters that each example is tried with, besides the edges.
const CLUSTERS: usize = 150;

/// A host with one example in its folder, which goes with the test.
struct Host {
    store: Arc<PolicyStore>,
    folder: std::path::PathBuf,
}

impl Host {
    fn of(example: &str) -> Self {
        Self::on(modules::folder(&[example]))
    }

    fn on(folder: std::path::PathBuf) -> Self {
        let limits = Limits { wall_ms: 60_000, ..Limits::default() };
        let store = PolicyStore::start(folder.clone(), limits, |_| ()).expect("a sandbox");
        assert!(store.wait_for_scan(1, Duration::from_secs(60)));
        Self { store, folder }
    }

    /// The score that a node's risk has by the example.
    fn risk(&self, cluster: &Fixture) -> Score {
        decided(self.store.ask_risk(&cluster.risk("n1"))).expect("an answer").score
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Only what the module decided counts.
fn decided<V>(answer: Answer<V>) -> Result<V, String> {
    let Answer { verdict, decider } = answer;
    match decider.kind {
        DeciderKind::Active if decider.fuel > 0 => Ok(verdict),
        _ => Err(format!("{decider:?}")),
    }
}

fn keeps_the_laws<Q: Generate>(example: &str, ask: impl Fn(&Q) -> Answer<Q::Verdict>) {
    let huge = [laws::largest::<Q>(32, 500)];
    for question in laws::questions::<Q>(1, CLUSTERS).chain(huge) {
        if let Err(broken) = laws::check(&question, |question| decided(ask(question))) {
            panic!("{example}: {broken}");
        }
    }
}

#[test]
fn every_example_decides_its_kind_and_keeps_the_laws_in_the_sandbox() {
    for (example, kind) in [
        ("consolidate", Kind::Placement),
        ("licence-bound", Kind::Placement),
        ("rack-aware", Kind::Placement),
        ("disk-risk", Kind::Risk),
        ("thermal", Kind::Risk),
    ] {
        let host = Host::of(example);
        let status = host.store.status();
        let found = status.all().find(|it| it.kind == Some(kind) && it.name == example);
        assert!(found.is_some_and(|found| found.deciding), "{example}: {status:#?}");
        match kind {
            Kind::Placement => keeps_the_laws(example, |asked| host.store.ask_placement(asked)),
            Kind::Risk => keeps_the_laws(example, |asked| host.store.ask_risk(asked)),
            Kind::NodePriority => unreachable!("there is no such example"),
        }
    }
}

#[test]
fn the_policy_in_c_reads_what_it_is_asked_and_is_not_fooled_by_labels() {
    let host = Host::of("thermal");
    let hot =
        |below| Fixture::cluster(1).telemetry("n1", "temperature.cpu0.below_critical_c", below);
    assert_eq!(host.risk(&hot(5)).value, 350);
    assert_eq!(host.risk(&hot(-3)).value, 700);
    let calm = hot(40).telemetry("n1", "temperature.cpu0.c", -90);
    let odd = calm.label("n1", "telemetry", "[{\"name\":\"temperature.x.below_critical_c\"}]");
    assert_eq!(host.risk(&odd), Score::new());
    let two = hot(8).telemetry("n1", "temperature.disk.below_critical_c", 4);
    let score = host.risk(&two.label("n1", "a\\\"b", "c:{"));
    assert_eq!((score.value, score.terms[0].name.as_ref()), (420, "near critical"));
}

#[test]
fn a_module_of_an_earlier_release_still_answers_as_it_did() {
    let abi = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("abi/0.1.0");
    let read = |name: &str| std::fs::read(abi.join(name)).expect("a file of that release");
    let folder = modules::folder(&[]);
    std::fs::write(folder.join("thermal.wasm"), read("thermal.wasm")).expect("a temporary folder");
    let host = Host::on(folder);
    let asked: RiskQuestion =
        serde_json::from_slice(&read("thermal.question.json")).expect("a question of today");
    let then: RiskVerdict =
        serde_json::from_slice(&read("thermal.verdict.json")).expect("a verdict of today");
    assert_eq!(decided(host.store.ask_risk(&asked)), Ok(then));
}
