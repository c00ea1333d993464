//! Decisions that a store took, recorded as the agent records them, asked again.

use super::*;
use crate::api::wire::DecisionReport;
use crate::policy::{Answer, Player, Recorded, Replayed, Workbench, read_recorded};
use steadfast_core::decision::{Asked, PolicyRecord};
use steadfast_core::ids::Digest;
use steadfast_sdk::wire::PlacementVerdict;

fn recorded(asked: PlacementQuestion, answer: Answer<PlacementVerdict>) -> PolicyRecord {
    let decider = steadfast_core::event::Decider {
        name: answer.decider.name,
        digest: Digest::try_from(answer.decider.digest).unwrap(),
        kind: "active".into(),
        fuel: answer.decider.fuel,
        ..Default::default()
    };
    let asked = Asked::Placement { question: asked, verdict: answer.verdict };
    PolicyRecord { decider, asked, corrections: Vec::new() }
}

/// Decisions of the shipped placement policy, through the very lines that an agent writes.
fn decisions(folder: &Folder) -> Vec<Recorded> {
    folder.drop_file("placement.wasm", &built("placement"));
    let store = folder.start();
    let state = folder.0.join("state");
    fs::create_dir_all(&state).unwrap();
    let line = |number: u32| {
        let asked = question(5, number);
        let answer = store.ask_placement(&asked);
        let policy = Some(Arc::new(recorded(asked, answer)));
        let id = format!("n1-5-{number}");
        serde_json::to_string(&DecisionReport { id, policy, ..DecisionReport::sample() }).unwrap()
    };
    let lines: Vec<String> = (1..=6).map(line).collect();
    fs::write(state.join("decisions.1.jsonl"), format!("{}\ntorn", lines[..3].join("\n"))).unwrap();
    fs::write(state.join("decisions.jsonl"), lines[3..].join("\n")).unwrap();
    read_recorded(&state).unwrap()
}

fn opened(folder: &Folder, name: &str) -> Workbench {
    folder.drop_file(&format!("{name}.wasm"), &built(name));
    Workbench::open(&folder.0.join(format!("{name}.wasm")), Limits::default()).unwrap()
}

#[test]
fn the_policy_that_decided_says_the_same_bytes_again_with_the_same_fuel() {
    let folder = Folder::new();
    let all = decisions(&folder);
    let ids: Vec<&str> = all.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["n1-5-1", "n1-5-2", "n1-5-3", "n1-5-4", "n1-5-5", "n1-5-6"]);
    let player = Player::new(vec![opened(&folder, "placement")]);
    for one in &all {
        assert_eq!(player.replay(one), Replayed::Same, "{}", one.id);
    }
    assert_eq!(Player::default().replay(&all[0]), Replayed::Unknown);
}

#[test]
fn a_verdict_that_was_changed_afterwards_is_found() {
    let folder = Folder::new();
    let mut one = decisions(&folder).remove(3);
    let mut record = PolicyRecord::clone(&one.record);
    let Asked::Placement { verdict, .. } = &mut record.asked else { panic!("no placement") };
    verdict.vms[0].nodes.reverse();
    one.record = Arc::new(record);
    let player = Player::new(vec![opened(&folder, "placement")]);
    assert!(matches!(player.replay(&one), Replayed::Other { .. }));
}

#[test]
fn a_candidate_tells_which_vms_it_would_have_placed_elsewhere() {
    let folder = Folder::new();
    let all = decisions(&folder);
    let same = opened(&folder, "placement").differs(&all[5]).unwrap().unwrap();
    assert_eq!((same.0, same.1.len()), (6, 0));
    // With its way turned round, the fullest node is the best.
    folder.drop_file("placement.json", br#"{"pack":true}"#);
    let (vms, changes) = opened(&folder, "placement").differs(&all[5]).unwrap().unwrap();
    assert_eq!(vms, 6);
    assert!(!changes.is_empty() && changes.iter().all(|it| it.recorded != it.candidate));
    assert!(opened(&folder, "risk").differs(&all[5]).is_none(), "it decides another kind");
}
