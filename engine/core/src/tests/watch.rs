use super::*;
use crate::event::Event;
use crate::guest::GuestReport;
use crate::ids::Digest;
use crate::kit::{at, beat, config, id, own_vm, stamp, vm, who};
use crate::message::{Beat, MESSAGE_FORMAT, Message};
use std::boxed::Box;
use std::string::ToString;
use std::vec;

/// n1, with n2 and n3 in its view, and what it has recorded as alarms.
struct Listener {
    machine: Machine,
    now: u64,
    alarms: Vec<String>,
}

impl Listener {
    fn new() -> Self {
        let mut config = config(1);
        own_vm(&mut config.genesis, "web", 2, Stamp::default());
        let (machine, _) = Machine::new(config, at(1_000));
        let mut listener = Self { machine, now: 1_000, alarms: Vec::new() };
        listener.tell(Event::ViewChanged { members: [id(1), id(2), id(3)].into() });
        listener
    }

    fn tell(&mut self, event: Event) {
        let step = self.machine.step(event, at(self.now));
        for action in step.actions {
            if let Action::Record(decision) = action
                && decision.rule == "PROTOCOL 8"
            {
                assert_eq!(decision.kind, Kind::Alarm);
                self.alarms.push(decision.text.clone());
            }
        }
    }

    /// `node`'s next beat, half a second later.
    fn hear(&mut self, node: u32, beat: Beat) {
        let message =
            Message { format: MESSAGE_FORMAT, from: who(node), body: Body::Beat(Box::new(beat)) };
        self.tell(Event::MessageReceived { sender: id(node), message: Box::new(message) });
    }

    fn pass(&mut self) {
        self.now += 500;
        self.tell(Event::Woke);
    }
}

fn running(number: u64) -> Beat {
    let guests = vec![GuestReport { vm: vm("web"), state: GuestState::Running }];
    Beat { guests, ..beat(number) }
}

#[test]
fn two_nodes_that_go_on_saying_that_they_run_a_vm_are_an_alarm_once() {
    let mut listener = Listener::new();
    for number in 1..=8 {
        listener.hear(2, running(number));
        listener.hear(3, running(number));
        listener.pass();
        assert!(number > 2 || listener.alarms.is_empty(), "told at once: {:?}", listener.alarms);
    }
    let [alarm] = &listener.alarms[..] else { panic!("{:?}", listener.alarms) };
    assert!(alarm.starts_with("one_home is broken: ") && alarm.contains("#2"), "{alarm}");
}

#[test]
fn a_vm_that_moves_from_one_node_to_another_is_no_alarm() {
    let mut listener = Listener::new();
    for number in 1..=3 {
        listener.hear(2, running(number));
        listener.hear(3, beat(number));
        listener.pass();
    }
    // A last word of the old home arrives after the first one of the new home.
    listener.hear(3, running(4));
    listener.hear(2, running(4));
    listener.pass();
    for number in 5..=9 {
        listener.hear(2, beat(number));
        listener.hear(3, running(number));
        listener.pass();
    }
    assert_eq!(listener.alarms, Vec::<String>::new());
}

#[test]
fn two_leaders_of_one_term_are_an_alarm_and_two_terms_are_none() {
    let mut listener = Listener::new();
    let leading = |number, term| Beat { leading: true, term, ..beat(number) };
    listener.hear(2, leading(1, 5));
    listener.pass();
    listener.hear(3, leading(1, 6));
    listener.pass();
    assert_eq!(listener.alarms, Vec::<String>::new());
    listener.hear(3, leading(2, 5));
    listener.pass();
    assert!(listener.alarms[0].starts_with("one_leader_per_term is broken: "));
}

#[test]
fn what_a_step_does_against_the_rules_is_an_alarm() {
    let mut listener = Listener::new();
    let machine = &mut listener.machine;
    let (other, xml, not_after) = (vm("other"), Digest::default(), at(0));
    machine.out.push(Action::StartVm { vm: other, xml, not_after });
    machine.out.push(Action::FeedWatchdog { basis: None, last: None, not_after });
    machine.out.push(Action::Fence { victim: id(3), eviction: stamp(1, 1, 1) });
    machine.out.push(Action::ResetNode { reason: "none".to_string() });
    machine.watch_itself();
    let told = |action: &Action| match action {
        Action::Record(decision) => decision.text.split(' ').next().map(ToString::to_string),
        _ => None,
    };
    let names: Vec<String> = machine.out.actions.iter().filter_map(told).collect();
    let expected = ["no_start_without_proof", "hands_off", "feed_rule", "explained", "explained"];
    assert_eq!(names, expected);
}

#[test]
fn a_reset_of_a_node_with_evidence_is_an_alarm() {
    let mut listener = Listener::new();
    let machine = &mut listener.machine;
    machine.lease.on_admitted(stamp(1, 1, 1), Some(at(900)));
    machine.out.push(Action::ResetNode { reason: "none".to_string() });
    let note = Note::new(Kind::Reset, "PROTOCOL 4", String::new());
    machine.out.record(note.node(id(1)));
    machine.watch_itself();
    let Some(Action::Record(last)) = machine.out.actions.last() else { panic!("no record") };
    assert!(last.text.starts_with("calm is broken: "), "{}", last.text);
}
