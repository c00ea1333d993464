//! Ballots -> winner -> claim (PROTOCOL section 6). The election window is 1 s, a beat 500 ms.

use super::*;
use crate::kit::{at, beat, id, outbox, sent, who};
use crate::stage::Stage;
use std::vec::Vec;
use steadfast_sdk::wire::Score;

/// Node `me` of `nodes`, with a majority in view since 0, and what it sends.
struct Elector {
    election: Election,
    stage: Stage,
    out: Outbox,
}

impl Elector {
    fn new(me: u32, nodes: u32) -> Self {
        let election = Election::new(who(me), at(0));
        Self { election, stage: Stage::of(nodes), out: outbox(me, 0) }
    }

    /// In round 1, begun at 1 000, own ballot sent.
    fn collecting(me: u32, nodes: u32) -> Self {
        let mut elector = Self::new(me, nodes);
        elector.tick(0);
        elector.election.on_ballot(id(1), &ballot(1, 0), at(1_000));
        elector.election.ballots.clear();
        elector.election.on_priority(ballot(1, 0), &mut elector.out);
        sent(&mut elector.out);
        elector
    }

    fn tick(&mut self, now: u64) -> Ask {
        self.tick_with(now, None)
    }

    fn tick_with(&mut self, now: u64, leader_trouble: Option<Trouble>) -> Ask {
        let facts = Facts { now: at(now), ..self.stage.facts() };
        self.election.on_time(&facts, leader_trouble, &mut self.out)
    }

    fn hear(&mut self, from: u32, ballot: &ElectionBallot) -> Ask {
        self.election.on_ballot(id(from), ballot, at(1_100))
    }

    fn close(&mut self, round: u64) -> Option<NodeId> {
        let facts = Facts { now: at(1_200), ..self.stage.facts() };
        self.election.on_close(round, &facts, &mut self.out);
        self.election.winner
    }

    fn confirm(&mut self, from: u32, round: u64, winner: u32) -> Ask {
        let facts = Facts { now: at(1_300), ..self.stage.facts() };
        self.election.on_confirm(id(from), round, id(winner), &facts)
    }

    fn closes_at(&mut self, now: u64) -> bool {
        self.tick(now);
        sent(&mut self.out).contains(&Body::Close { round: 1 })
    }
}

fn ballot(round: u64, priority: i64) -> ElectionBallot {
    ElectionBallot {
        round,
        priority: Score { value: priority, terms: Vec::new() },
        decider: "test".into(),
        policy: crate::ids::Digest::default(),
        builtin: 0,
        eligible: true,
        storage_ok: true,
        term: 0,
    }
}

/// The winner of round 1 among `ballots`, as node n1 computes it.
fn winner(ballots: &[(u32, ElectionBallot)]) -> Option<NodeId> {
    let mut elector = Elector::collecting(1, 3);
    ballots.iter().for_each(|(from, ballot)| {
        let _ = elector.hear(*from, ballot);
    });
    elector.close(1)
}

#[test]
fn everybody_computes_the_same_winner_from_the_same_ballots_in_whatever_order_they_are_kept() {
    for (a, b, c) in [(1, 2, 3), (3, 2, 1), (2, 2, 1), (5, 5, 5), (0, -1, 7)] {
        let ballots = [(1, ballot(1, a)), (2, ballot(1, b)), (3, ballot(1, c))];
        let mut winners = Vec::new();
        for me in 1..=3 {
            let mut elector = Elector::collecting(me, 3);
            let start = me as usize - 1;
            for (from, ballot) in ballots.iter().cycle().skip(start).take(3) {
                elector.hear(*from, ballot);
            }
            winners.push(elector.close(1));
        }
        assert!(winners[0].is_some() && winners.iter().all(|winner| *winner == winners[0]));
    }
}

#[test]
fn the_highest_priority_wins_and_ties_go_to_the_lowest_id() {
    assert_eq!(winner(&[(1, ballot(1, 4)), (2, ballot(1, 9)), (3, ballot(1, 5))]), Some(id(2)));
    assert_eq!(winner(&[(3, ballot(1, 9)), (2, ballot(1, 9)), (1, ballot(1, 5))]), Some(id(2)));
}

#[test]
fn who_may_not_lead_never_wins_and_working_storage_goes_before_priority() {
    let unfit = ElectionBallot { eligible: false, ..ballot(1, 100) };
    assert_eq!(winner(&[(1, unfit.clone()), (2, ballot(1, 1))]), Some(id(2)));
    assert_eq!(winner(&[(1, unfit.clone()), (2, unfit)]), None);
    let stuck = ElectionBallot { storage_ok: false, ..ballot(1, 100) };
    assert_eq!(winner(&[(1, stuck.clone()), (2, ballot(1, 1))]), Some(id(2)));
    assert_eq!(winner(&[(1, stuck.clone()), (2, stuck)]), Some(id(1)), "better than nobody");
}

#[test]
fn where_policies_differ_the_built_in_priority_counts_for_all() {
    let other = crate::ids::Digest::of(b"another policy");
    let by_policy = ElectionBallot { builtin: 1, ..ballot(1, 100) };
    let by_builtin = ElectionBallot { builtin: 9, ..ballot(1, 0) };
    let same = [(1, by_policy.clone()), (2, by_builtin.clone())];
    assert_eq!(winner(&same), Some(id(1)));
    let differ = [(1, by_policy), (2, ElectionBallot { policy: other, ..by_builtin })];
    assert_eq!(winner(&differ), Some(id(2)));
}

#[test]
fn a_ballot_after_the_close_does_not_count() {
    let mut elector = Elector::collecting(1, 3);
    elector.hear(1, &ballot(1, 1));
    elector.hear(2, &ballot(1, 2));
    assert_eq!(elector.close(1), Some(id(2)));
    elector.hear(3, &ballot(1, 100));
    assert_eq!(elector.close(1), Some(id(2)), "the first Close counts, a second changes nothing");
    assert!(!elector.election.ballots.contains_key(&id(3)));
}

#[test]
fn a_close_of_another_round_or_before_a_majority_of_ballots_closes_nothing() {
    let mut elector = Elector::collecting(1, 3);
    elector.hear(2, &ballot(1, 2));
    assert_eq!(elector.close(1), None);
    assert_eq!(elector.election.phase, Phase::Collecting);
    elector.hear(1, &ballot(1, 1));
    assert_eq!(elector.close(2), None);
    assert_eq!(elector.close(1), Some(id(2)));
}

#[test]
fn who_declined_is_left_out_of_the_next_round() {
    let mut elector = Elector::collecting(1, 3);
    elector.hear(1, &ballot(1, 1));
    elector.hear(2, &ballot(1, 2));
    elector.close(1);
    let ask = elector.election.on_decline(id(2), 1, "no storage", at(1_300));
    assert_eq!(ask, Ask::Priority, "the round restarts");
    let round = elector.election.round;
    assert_eq!(round, 2);
    elector.hear(1, &ballot(round, 1));
    elector.hear(2, &ballot(round, 2));
    assert_eq!(elector.close(round), Some(id(1)));
    assert_eq!(elector.election.on_decline(id(1), 1, "late", at(1_400)), Ask::Nothing);
}

#[test]
fn when_everybody_has_declined_all_count_again() {
    let mut elector = Elector::collecting(1, 3);
    for round in 1..=2 {
        elector.hear(1, &ballot(round, 1));
        elector.hear(2, &ballot(round, 2));
        let winner = elector.close(round).unwrap();
        elector.election.on_decline(winner, round, "no storage", at(1_300));
    }
    elector.hear(1, &ballot(3, 1));
    elector.hear(2, &ballot(3, 2));
    assert_eq!(elector.close(3), Some(id(2)), "what it declined for may be over");
}

/// Node n1 alone has heard that n2 declined: it confirms itself in the next round, the others n2.
fn of_another_mind() -> Elector {
    let mut elector = Elector::collecting(1, 3);
    elector.hear(1, &ballot(1, 1));
    elector.hear(2, &ballot(1, 2));
    elector.close(1);
    elector.election.on_decline(id(2), 1, "no storage", at(1_300));
    elector.hear(1, &ballot(2, 1));
    elector.hear(2, &ballot(2, 2));
    assert_eq!(elector.close(2), Some(id(1)));
    elector
}

#[test]
fn a_round_that_is_not_confirmed_in_time_forgets_who_declined() {
    let mut elector = of_another_mind();
    assert_eq!(elector.tick(4_200), Ask::Priority);
    elector.hear(1, &ballot(3, 1));
    elector.hear(2, &ballot(3, 2));
    assert_eq!(elector.close(3), Some(id(2)), "else nodes that remember differently never agree");
}

#[test]
fn who_hears_that_a_round_has_failed_forgets_who_declined() {
    let mut elector = of_another_mind();
    assert_eq!(elector.hear(2, &ballot(3, 2)), Ask::Priority, "n2 waited in vain");
    elector.hear(1, &ballot(3, 1));
    assert_eq!(elector.close(3), Some(id(2)));
}

#[test]
fn ballots_and_confirms_of_nodes_that_are_not_configured_make_no_majority() {
    let mut elector = Elector::collecting(1, 3);
    elector.hear(1, &ballot(1, 5));
    elector.hear(9, &ballot(1, 1));
    assert_eq!(elector.close(1), None);
    elector.hear(2, &ballot(1, 1));
    assert_eq!(elector.close(1), Some(id(1)));
    let mut confirm = |from| elector.confirm(from, 1, 1);
    assert_eq!((confirm(1), confirm(9), confirm(2)), (Ask::Nothing, Ask::Nothing, Ask::Claim));
}

#[test]
fn a_round_is_void_when_one_of_its_voters_leaves_and_not_by_a_joiner() {
    let mut elector = Elector::collecting(1, 4);
    elector.hear(1, &ballot(1, 1));
    elector.hear(2, &ballot(1, 2));
    let joined = elector.stage.view.on_changed([1, 2, 3, 4, 9].map(id).into(), at(1_150));
    assert_eq!(elector.election.on_view(&joined, at(1_150)), Ask::Nothing);
    assert_eq!(
        elector.election.on_view(&[id(3)].into(), at(1_160)),
        Ask::Nothing,
        "it had no vote"
    );
    assert_eq!((elector.election.round, elector.election.ballots.len()), (1, 2));
    assert_eq!(elector.election.on_view(&[id(2)].into(), at(1_170)), Ask::Priority);
    assert_eq!((elector.election.round, elector.election.ballots.len()), (2, 0));
}

#[test]
fn the_lowest_closes_at_once_when_all_ballots_are_in() {
    let mut lowest = Elector::collecting(1, 3);
    lowest.hear(1, &ballot(1, 0));
    lowest.hear(2, &ballot(1, 0));
    assert!(!lowest.closes_at(1_100), "one is missing");
    lowest.hear(3, &ballot(1, 0));
    assert!(lowest.closes_at(1_101));
    assert!(!lowest.closes_at(1_150), "once");
}

#[test]
fn the_lowest_closes_with_a_majority_when_the_window_is_over() {
    let mut lowest = Elector::collecting(1, 3);
    lowest.hear(1, &ballot(1, 0));
    assert!(!lowest.closes_at(2_500), "no majority of ballots");
    lowest.hear(2, &ballot(1, 0));
    assert!(lowest.closes_at(2_500));
    let mut early = Elector::collecting(1, 3);
    early.hear(1, &ballot(1, 0));
    early.hear(2, &ballot(1, 0));
    assert!(!early.closes_at(1_999));
}

#[test]
fn the_next_lowest_closes_two_windows_after_the_lowest_should_have() {
    for (me, full, partial) in [(2, 3_000, 4_000), (3, 5_000, 6_000)] {
        let mut next = Elector::collecting(me, 3);
        (1..=3).for_each(|from| {
            let _ = next.hear(from, &ballot(1, 0));
        });
        assert!(!next.closes_at(full - 1) && next.closes_at(full), "n{me}, all ballots");
        let mut next = Elector::collecting(me, 3);
        (2..=3).for_each(|from| {
            let _ = next.hear(from, &ballot(1, 0));
        });
        assert!(!next.closes_at(partial - 1) && next.closes_at(partial), "n{me}, a ghost");
    }
}

#[test]
fn the_winner_claims_only_on_confirms_of_a_majority_that_name_it() {
    let mut winner = Elector::collecting(2, 3);
    winner.hear(1, &ballot(1, 1));
    winner.hear(2, &ballot(1, 2));
    winner.close(1);
    assert_eq!(sent(&mut winner.out), [Body::Confirm { round: 1, winner: id(2) }]);
    let mut confirm = |from, round, named| winner.confirm(from, round, named);
    assert_eq!(confirm(2, 1, 2), Ask::Nothing);
    assert_eq!(confirm(2, 1, 2), Ask::Nothing, "twice from one node is one");
    assert_eq!(confirm(1, 0, 2), Ask::Nothing, "another round");
    assert_eq!(confirm(1, 1, 1), Ask::Nothing, "another winner");
    assert_eq!(confirm(3, 1, 2), Ask::Claim);
}

#[test]
fn a_confirm_of_another_node_makes_nobody_else_claim() {
    let mut loser = Elector::collecting(1, 3);
    loser.hear(1, &ballot(1, 1));
    loser.hear(2, &ballot(1, 2));
    loser.close(1);
    for from in 1..=3 {
        assert_eq!(loser.confirm(from, 1, 2), Ask::Nothing);
    }
}

#[test]
fn without_a_majority_in_view_there_is_no_election_and_a_claim_is_abandoned() {
    let mut elector = Elector::collecting(1, 3);
    elector.election.phase = Phase::Claiming;
    elector.stage.view.on_changed([id(1)].into(), at(1_500));
    assert_eq!(elector.tick(1_500), Ask::Abandon);
    assert_eq!(elector.election.phase, Phase::Waiting);
    assert_eq!(elector.tick(60_000), Ask::Nothing);
    assert_eq!(elector.hear(2, &ballot(8, 0)), Ask::Nothing, "it takes no part");
}

#[test]
fn a_majority_without_a_leader_listens_for_three_beats_before_it_elects() {
    let mut elector = Elector::new(1, 3);
    elector.tick(0);
    assert_eq!(elector.tick(1_499), Ask::Nothing);
    assert_eq!(elector.tick(1_500), Ask::Priority);
    assert_eq!(elector.election.phase, Phase::Collecting);
}

#[test]
fn a_leader_that_is_heard_ends_the_round_and_one_that_does_not_work_begins_the_next() {
    let mut elector = Elector::collecting(1, 3);
    let leading = Beat { leading: true, term: 4, ..beat(1) };
    elector.election.on_beat(who(3), &leading, at(1_100));
    assert_eq!(elector.election.leader, Some(Leader { who: who(3), term: 4 }));
    assert_eq!(elector.tick(9_000), Ask::Nothing);
    assert_eq!(elector.hear(2, &ballot(7, 0)), Ask::Nothing, "who knows a leader takes no part");
    assert_eq!(elector.tick_with(9_100, Some(Trouble::Absent("it is silent"))), Ask::Priority);
    assert_eq!(elector.election.leader, None);
}

#[test]
fn a_leader_that_beats_and_cannot_work_does_not_end_the_election_that_replaces_it() {
    let leading = Beat { leading: true, term: 4, ..beat(1) };
    let doubting = |trouble| {
        let mut elector = Elector::collecting(1, 3);
        elector.election.on_beat(who(3), &leading, at(1_100));
        elector.tick_with(9_100, Some(trouble));
        elector
    };
    let mut stuck = doubting(Trouble::Stuck("its page is silent"));
    stuck.election.on_beat(who(3), &leading, at(9_200));
    assert_eq!((stuck.election.phase, stuck.election.leader), (Phase::Collecting, None));
    stuck.election.on_leading(who(2), 5, at(9_300));
    assert_eq!(stuck.election.leader.map(|leader| leader.term), Some(5));

    let mut stuck = doubting(Trouble::Stuck("its page is silent"));
    stuck.election.on_beat(who(3), &leading, at(13_200));
    assert_eq!(stuck.election.phase, Phase::Following, "nobody else doubts it, so it goes on");

    let mut absent = doubting(Trouble::Absent("it is silent"));
    absent.election.on_beat(who(3), &leading, at(9_200));
    assert_eq!(absent.election.phase, Phase::Following);
}

#[test]
fn a_leader_of_an_older_term_is_not_followed() {
    let mut elector = Elector::new(1, 3);
    elector.election.on_leading(who(3), 4, at(100));
    elector.election.on_leading(who(2), 3, at(200));
    assert_eq!(elector.election.leader.map(|leader| leader.who), Some(who(3)));
    elector.election.on_beat(who(2), &Beat { term: 6, ..beat(1) }, at(300));
    elector.election.leader = None;
    elector.election.on_leading(who(3), 4, at(400));
    assert_eq!(elector.election.leader, None, "term 6 was heard of");
}

#[test]
fn the_loss_of_the_leader_begins_a_round_at_once() {
    let mut elector = Elector::new(1, 3);
    elector.election.on_leading(who(3), 4, at(100));
    assert_eq!(elector.election.on_view(&[id(2)].into(), at(200)), Ask::Nothing);
    assert_eq!(elector.election.on_view(&[id(3)].into(), at(300)), Ask::Priority);
}

#[test]
fn a_silent_member_never_blocks_a_round_for_ever() {
    let mut unclosed = Elector::collecting(3, 3);
    assert_eq!(unclosed.tick(8_999), Ask::Nothing);
    assert_eq!(unclosed.tick(9_000), Ask::Priority, "nobody closed it");
    let mut unconfirmed = Elector::collecting(1, 3);
    unconfirmed.hear(1, &ballot(1, 1));
    unconfirmed.hear(2, &ballot(1, 2));
    unconfirmed.close(1);
    assert_eq!(unconfirmed.tick(4_199), Ask::Nothing);
    assert_eq!(unconfirmed.tick(4_200), Ask::Priority, "the winner said nothing");
    let mut stuck = Elector::collecting(1, 3);
    stuck.election.enter(Phase::Claiming, at(2_000));
    assert_eq!(stuck.tick(5_999), Ask::Nothing);
    assert_eq!(stuck.tick(6_000), Ask::Abandon, "the ledger did not answer");
    assert!(matches!(&sent(&mut stuck.out)[..], [Body::Decline { round: 1, .. }]));
}
