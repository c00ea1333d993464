use super::*;
use crate::api::wire::{BeatReport, Beside, LiveState, NodePlan};
use crate::driver::rig::{snapshot, vm};
use crate::policy::PoliciesStatus;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use std::collections::BTreeMap;
use steadfast_core::time::Millis;

fn state() -> LiveState {
    let mut seen = snapshot();
    let waiting = "n2 is evicted, its power is not proved off yet";
    let mut db = vm("db");
    (db.state, db.reason) = ("orphan".into(), waiting.into());
    seen.vms = vec![vm("web"), db];
    let (n1, n2) = (seen.nodes[0].name.clone(), seen.nodes[1].name.clone());
    let plan = |vms, fits| NodePlan { vms, fits, lacks: vms - fits, ..NodePlan::default() };
    let beside = Beside {
        wall_ms: 0,
        bounds: Vec::new(),
        warnings: vec!["the clock is off".into()],
        beats: BeatReport::default(),
        plan: Some(BTreeMap::from([(n1, plan(0, 0)), (n2, plan(2, 1))])),
        policies: PoliciesStatus { kinds: Vec::new(), failed: Vec::new() },
        timing: BTreeMap::from([("lease_ms".into(), 5_000)]),
    };
    seen.nodes[1].lease_left = Some(Millis(2_400));
    LiveState::new(&seen, beside)
}

fn scene() -> Scene {
    let mut scene = Scene::default();
    scene.set(state());
    scene
}

fn drawn(scene: &mut Scene) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(160, 30)).expect("a terminal");
    terminal.draw(|frame| draw::draw(frame, scene)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..160).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..30).map(line).collect()
}

fn has(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

fn press(scene: &mut Scene, code: KeyCode) -> Wish {
    scene.press(KeyEvent::from(code))
}

#[test]
fn one_screen_tells_who_leads_what_runs_and_what_a_death_would_cost() {
    let lines = drawn(&mut scene());
    for words in [
        &["leader n2", "quorum"][..],
        &["WARNING: the clock is off"],
        &["If n2 died, 1 of its 2 VMs would have no place"],
        &["n2", "2.4 s", "1 NO PLACE"],
        &["n1", "nothing to move"],
        &["db", "n2", "orphan", "not proved off yet"],
        &["web", "n2", "running"],
    ] {
        assert!(has(&lines, words), "{words:?} in\n{}", lines.join("\n"));
    }
}

#[test]
fn an_agent_that_is_gone_makes_everything_old() {
    let mut scene = scene();
    scene.lose("steadfastd does not answer".into());
    assert!(has(&drawn(&mut scene), &["THIS IS OLD: steadfastd does not answer"]));
    scene.set(state());
    assert!(!has(&drawn(&mut scene), &["THIS IS OLD"]));
}

#[test]
fn keys_select_filter_and_explain() {
    let mut scene = scene();
    press(&mut scene, KeyCode::Down);
    press(&mut scene, KeyCode::Down);
    assert_eq!(press(&mut scene, KeyCode::Enter), Wish::Explain("n2".into()));
    press(&mut scene, KeyCode::Char('/'));
    "orph".chars().for_each(|letter| drop(press(&mut scene, KeyCode::Char(letter))));
    press(&mut scene, KeyCode::Enter);
    let lines = drawn(&mut scene);
    assert!(has(&lines, &["VMs with \"orph\" (1 of 2"]) && !has(&lines, &["web", "running"]));
    press(&mut scene, KeyCode::Down);
    assert_eq!(press(&mut scene, KeyCode::Enter), Wish::Explain("uuid-of-db".into()));
    scene.show("db", "the whole story".into());
    assert!(has(&drawn(&mut scene), &["the whole story"]));
    assert_eq!(press(&mut scene, KeyCode::Char('q')), Wish::Nothing, "closes the story");
    assert_eq!(press(&mut scene, KeyCode::Char('q')), Wish::Quit);
}
