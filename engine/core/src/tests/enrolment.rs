//! Requests: sent until answered, decided once, answered at their commit.

use super::*;
use crate::disarm::Outlook;
use crate::kit::{all_admitted, at, outbox, own_vm, sent, spec, stamp, who};
use crate::stage::Stage;
use crate::wishes::tests::good;
use std::boxed::Box;

const COMMITTED: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 4 };
const NEXT: Stamp = Stamp { ballot: crate::ids::Ballot { term: 1, node: 1 }, version: 5 };

fn enable(name: &str) -> Change {
    Change::EnableVm(Box::new(spec(name)))
}

/// n2 owns `db`, n3 owns `web`.
fn ledger() -> Ledger {
    let mut ledger = all_admitted();
    own_vm(&mut ledger, "db", 2, COMMITTED);
    own_vm(&mut ledger, "web", 3, COMMITTED);
    ledger
}

/// Number of a request, and what its reply says.
type Answered = (u64, Result<Stamp, String>);

/// Takes `requests` of n2 into the next ledger; returns whether it changed, and the replies.
fn take(
    enrolment: &mut Enrolment,
    next: &mut Ledger,
    requests: &[(u64, Change)],
) -> (bool, Vec<Answered>) {
    for (id, change) in requests {
        enrolment.on_request(who(2), Request { id: *id, change: change.clone() }, at(1_000));
    }
    let mut out = outbox(1, 1_000);
    let good = good(&[2, 3]);
    let (stage, outlook) = (Stage::new(), Outlook::default());
    let facts = &stage.facts();
    let desk = Desk { stamp: NEXT, good: &good, outlook: &outlook, facts };
    let changed = enrolment.apply(next, &desk, COMMITTED, &mut Vec::new(), &mut out);
    (changed, replies(&mut out))
}

fn replies(out: &mut Outbox) -> Vec<Answered> {
    let reply = |body| match body {
        Body::Reply(reply) if reply.to == who(2) => (reply.id, reply.result),
        other => panic!("expected a reply to n2, got {other:?}"),
    };
    sent(out).into_iter().map(reply).collect()
}

#[test]
fn a_change_is_answered_at_its_commit_and_not_before() {
    let (mut enrolment, mut out) = (Enrolment::default(), outbox(1, 1_000));
    let taken = take(&mut enrolment, &mut ledger(), &[(7, enable("new"))]);
    assert_eq!(taken, (true, [].into()));
    enrolment.on_committed(NEXT, &mut out);
    assert_eq!(replies(&mut out), [(7, Ok(NEXT))]);
    enrolment.on_committed(NEXT, &mut out);
    assert!(replies(&mut out).is_empty(), "once");
}

#[test]
fn what_is_so_already_is_answered_at_once_and_a_refusal_too() {
    let mut enrolment = Enrolment::default();
    let requests = [(1, enable("db")), (2, enable("web"))];
    let (changed, replies) = take(&mut enrolment, &mut ledger(), &requests);
    assert!(!changed);
    assert_eq!(replies[0], (1, Ok(COMMITTED)));
    assert!(replies[1].0 == 2 && replies[1].1.is_err());
}

#[test]
fn what_is_so_only_in_the_next_ledger_waits_for_its_commit() {
    let (mut enrolment, mut out) = (Enrolment::default(), outbox(1, 1_000));
    let requests = [(1, enable("new")), (2, enable("new"))];
    let taken = take(&mut enrolment, &mut ledger(), &requests);
    assert_eq!(taken, (true, [].into()));
    enrolment.on_committed(NEXT, &mut out);
    assert_eq!(replies(&mut out), [(1, Ok(NEXT)), (2, Ok(NEXT))]);
}

/// The next leader may adopt the dropped change: its outcome is unknown, so nobody says that it failed.
#[test]
fn a_deposed_leader_answers_nothing_that_it_had_under_way() {
    let (mut enrolment, mut out) = (Enrolment::default(), outbox(1, 1_000));
    take(&mut enrolment, &mut ledger(), &[(7, enable("new"))]);
    enrolment.on_deposed();
    enrolment.on_committed(NEXT, &mut out);
    assert!(out.actions.is_empty());
    assert!(!enrolment.has_work());
}

#[test]
fn a_request_that_is_sent_again_is_decided_once() {
    let (mut enrolment, mut out) = (Enrolment::default(), outbox(1, 1_000));
    let mut next = ledger();
    take(&mut enrolment, &mut next, &[(7, enable("new")), (7, enable("new"))]);
    take(&mut enrolment, &mut next, &[(7, enable("new"))]);
    enrolment.on_committed(NEXT, &mut out);
    assert_eq!(replies(&mut out), [(7, Ok(NEXT))]);
}

#[test]
fn a_request_is_repeated_until_answered_and_given_up_as_unknown() {
    let mut enrolment = Enrolment::default();
    let mut out = outbox(2, 0);
    enrolment.ask(3, enable("db"), at(0));
    let mut at_time = |enrolment: &mut Enrolment, now, has_leader| {
        out.now = at(now);
        enrolment.on_time(who(2), has_leader, &mut out);
        core::mem::take(&mut out.actions)
    };
    assert!(at_time(&mut enrolment, 0, false).is_empty(), "there is nobody to ask");
    assert_eq!(at_time(&mut enrolment, 100, true).len(), 1);
    assert!(at_time(&mut enrolment, 1_599, true).is_empty());
    assert_eq!(at_time(&mut enrolment, 1_600, true).len(), 1);
    let last = at_time(&mut enrolment, 12_000, false);
    let [Action::Answer(reply)] = &last[..] else { panic!("expected an answer, got {last:?}") };
    assert!(reply.result.as_ref().is_err_and(|why| why.contains("the outcome is unknown")));
    assert!(at_time(&mut enrolment, 13_000, true).is_empty());
}

fn as_of(stamp: Stamp, name: &str) -> Change {
    Change::AsOf { stamp, change: Box::new(enable(name)) }
}

/// Two agents, asked at the same moment by people who saw the same: one of them must look again.
#[test]
fn of_two_changes_that_were_decided_on_one_ledger_the_second_is_stale() {
    let (mut enrolment, mut out) = (Enrolment::default(), outbox(1, 1_000));
    let mut next = Stage::new().facts().ledger.clone();
    let requests = [(1, as_of(COMMITTED, "new")), (2, as_of(COMMITTED, "other"))];
    let (changed, refused) = take(&mut enrolment, &mut next, &requests);
    assert_eq!((changed, refused), (true, [(2, Err(STALE.into()))].into()));
    enrolment.on_committed(NEXT, &mut out);
    assert_eq!(replies(&mut out), [(1, Ok(NEXT))]);
    assert_eq!(next.vms.len(), Stage::new().facts().ledger.vms.len() + 1);
}

#[test]
fn a_change_that_was_decided_on_another_ledger_or_on_one_that_changes_now_is_stale() {
    let mut enrolment = Enrolment::default();
    let mut next = Stage::new().facts().ledger.clone();
    let (before, _) = (next.clone(), take(&mut enrolment, &mut next, &[(1, as_of(NEXT, "new"))]));
    assert_eq!(next, before, "it names another ledger");
    own_vm(&mut next, "db", 2, NEXT);
    let (changed, refused) = take(&mut enrolment, &mut next, &[(2, as_of(COMMITTED, "new"))]);
    assert_eq!((changed, refused), (false, [(2, Err(STALE.into()))].into()));
}

/// The first one may have been granted, and its answer lost: then the second is stale by what the first did.
#[test]
fn a_stale_answer_to_what_was_sent_twice_is_unknown() {
    for (until, words) in [(100, STALE), (1_700, UNKNOWN)] {
        let (mut enrolment, mut out) = (Enrolment::default(), outbox(2, 0));
        enrolment.ask(3, as_of(COMMITTED, "db"), at(0));
        for now in [0, until] {
            out.now = at(now);
            enrolment.on_time(who(2), true, &mut out);
        }
        let reply = Reply { to: who(2), id: 3, result: Err(STALE.into()) };
        out.actions.clear();
        enrolment.on_reply(&reply, &mut out);
        assert_eq!(out.actions, [Action::Answer(Reply { result: Err(words.into()), ..reply })]);
    }
}

#[test]
fn only_the_first_reply_to_an_own_request_is_an_answer() {
    let mut enrolment = Enrolment::default();
    let mut out = outbox(2, 0);
    enrolment.ask(3, enable("db"), at(0));
    let reply = Reply { to: who(2), id: 3, result: Ok(stamp(1, 1, 5)) };
    enrolment.on_reply(&reply, &mut out);
    enrolment.on_reply(&reply, &mut out);
    assert_eq!(out.actions, [Action::Answer(reply)]);
}
