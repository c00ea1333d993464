use super::*;
use crate::timing_lint::nearest_safe;
use proptest::prelude::*;

/// Token + consensus of the lab's corosync.
const LAB: Millis = Millis(1_100);

/// The lab's fence agents answer at once.
fn lab(row: Row, role: Role, fence_agent: bool) -> Bound {
    let assumed = Assumed { fence_agent: Millis(50), ..Assumed::working(true) };
    bound(&Timing::standard(LAB), &assumed, row, role, fence_agent)
}

#[test]
fn bounds_lie_above_what_the_lab_measured_and_not_absurdly_so() {
    // Medians of the lab with token 500, from the cut to the start order, in milliseconds.
    for (role, fence_agent, measured) in [
        (Role::Member, true, 1_650),
        (Role::Leader, true, 1_380),
        (Role::Member, false, 10_840),
        (Role::Leader, false, 10_840),
    ] {
        let total = lab(Row::FullFailure, role, fence_agent).total.expect("bounded").0;
        assert!(total > measured, "{role:?}: {total} is below the measured {measured}");
        assert!(total < measured * 7 / 2, "{role:?}: {total} is no bound for {measured}");
    }
}

#[test]
fn a_sum_is_spelled_out() {
    let bound = lab(Row::FullFailure, Role::Member, false);
    assert_eq!(
        bound.sum(),
        "1100 ms last sign: max(token + consensus, 1 beat + 1 cycle) + 10350 ms rule 4: (L + S) * 1.01 + 250 ms + \
         500 ms looked at by the next beat + 200 ms the proof's commit: 2 cycles + 250 ms placement policy's \
         deadline + 200 ms placement's commit: 2 cycles + 126 ms clocks within 1 %"
    );
    assert_eq!(bound.total, Some(Millis(12_726)));
}

#[test]
fn every_row_is_there_with_and_without_a_fence_agent_for_member_and_leader() {
    let all = bounds(&Timing::standard(LAB), &Assumed::working(true));
    assert_eq!(all.len(), Row::ALL.len() * 2 * 2);
    let unmoved: Vec<_> = all.iter().filter(|bound| bound.total.is_none()).collect();
    assert!(unmoved.iter().all(|bound| bound.note == "nothing is moved, its VMs run on"));
    assert_eq!(unmoved.len(), 2 * 2 * 2, "only Excluded and Network unstable move nothing");
}

#[test]
fn without_rule_4_and_a_fence_agent_only_a_nodes_own_word_is_bounded() {
    let assumed = Assumed::working(false);
    let of = |row| bound(&Timing::standard(LAB), &assumed, row, Role::Member, false);
    for row in [Row::FullFailure, Row::NetworkIsolationStuck, Row::StorageIsolationStuck] {
        assert_eq!(of(row).total, None, "{row:?}");
        assert!(of(row).note.contains("own word"), "{row:?}: {}", of(row).note);
    }
    for row in [Row::NetworkIsolation, Row::StorageIsolation] {
        assert!(of(row).total.is_some(), "{row:?}");
    }
}

#[test]
fn a_fence_agent_that_may_hang_costs_no_more_than_time_does() {
    let timing = Timing::standard(LAB);
    let slowest = Assumed { fence_agent: timing.fence_timeout, ..Assumed::working(true) };
    let of = |agent| bound(&timing, &slowest, Row::FullFailure, Role::Member, agent).total;
    assert_eq!(of(true), of(false));
}

fn any_case() -> impl Strategy<Value = (Timing, Assumed)> {
    let timing = (50_u64..2_000, 500_u64..20_000, 500_u64..20_000, 100_u64..10_000, 0_u64..5_000);
    let assumed = (1_u64..5_000, 1_u64..60_000, 0_u64..10_000, any::<bool>());
    (timing, assumed).prop_map(|((beat, lease, stop, watchdog, membership), assumed)| {
        let timing = nearest_safe(&Timing {
            beat: Millis(beat),
            lease: Millis(lease),
            stop: Millis(stop),
            watchdog: Millis(watchdog),
            ..Timing::standard(Millis(membership))
        });
        let (cycle, fence_agent, verification, rule_4) = assumed;
        let (cycle, fence_agent) = (Millis(cycle), Millis(fence_agent));
        (timing, Assumed { cycle, fence_agent, verification: Millis(verification), rule_4 })
    })
}

proptest! {
    #[test]
    fn a_bound_is_the_sum_of_its_terms((timing, assumed) in any_case()) {
        for bound in bounds(&timing, &assumed) {
            prop_assert_eq!(bound.total.unwrap_or_default(), total(&bound.terms));
            prop_assert_eq!(bound.total.is_none(), !bound.note.is_empty());
        }
    }

    #[test]
    fn no_assumption_that_gets_worse_makes_a_bound_better((timing, assumed) in any_case()) {
        let worse = Assumed {
            cycle: assumed.cycle + Millis(300),
            fence_agent: assumed.fence_agent + Millis(5_000),
            verification: assumed.verification + Millis(1_000),
            ..assumed
        };
        for (before, after) in bounds(&timing, &assumed).iter().zip(bounds(&timing, &worse)) {
            prop_assert!(before.total <= after.total, "{:?} > {:?}", before, after);
        }
    }

    #[test]
    fn a_leaders_loss_costs_no_less_and_a_fence_agent_no_more((timing, assumed) in any_case()) {
        for row in Row::ALL {
            let of = |role, agent| bound(&timing, &assumed, row, role, agent).total;
            prop_assert!(of(Role::Member, true) <= of(Role::Leader, true));
            prop_assert!(of(Role::Member, false) <= of(Role::Leader, false));
            let (with, without) = (of(Role::Member, true), of(Role::Member, false));
            prop_assert!(without.is_none() || with <= without);
        }
    }

    #[test]
    fn full_failure_by_time_is_never_told_before_rule_4_allows((timing, assumed) in any_case()) {
        let assumed = Assumed { rule_4: true, ..assumed };
        let bound = bound(&timing, &assumed, Row::FullFailure, Role::Member, false);
        prop_assert!(bound.total.unwrap_or_default() > surely_dead(timing.span()));
    }
}
