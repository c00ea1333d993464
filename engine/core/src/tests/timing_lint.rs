use super::*;
use proptest::prelude::*;

fn presets(membership: u64) -> [Timing; 3] {
    let membership = Millis(membership);
    [Timing::fast(membership), Timing::standard(membership), Timing::calm(membership)]
}

/// Anything from nonsense to sense, near the boundaries as often as not.
fn any_timing() -> impl Strategy<Value = Timing> {
    let length = || prop_oneof![0_u64..10, 0_u64..3_000, 0_u64..20_000, Just(500), Just(5_000)];
    let some = (length(), length(), length(), length(), length(), length(), length(), length());
    (some, 0_usize..3).prop_map(|(some, preset)| {
        let (beat, lease, stop, watchdog, membership, failure, margin, deadline) = some;
        Timing {
            beat: Millis(beat),
            lease: Millis(lease),
            stop: Millis(stop),
            watchdog: Millis(watchdog),
            membership: Millis(membership),
            full_failure: Millis(failure),
            start_margin: Millis(margin),
            storage_deadline: Millis(deadline),
            ..presets(1_100)[preset].clone()
        }
    })
}

proptest! {
    #[test]
    fn presets_pass_with_every_corosync_that_is_quick_enough(membership in 0_u64..=3_000) {
        for timing in &presets(membership) {
            prop_assert_eq!(lint(timing), vec![]);
        }
    }

    #[test]
    fn the_nearest_safe_set_is_safe(timing in any_timing()) {
        prop_assert_eq!(lint(&nearest_safe(&timing)), vec![]);
    }

    #[test]
    fn a_safe_set_is_its_own_nearest_one(timing in any_timing()) {
        let safe = nearest_safe(&timing);
        prop_assert_eq!(nearest_safe(&safe), safe);
    }

    #[test]
    fn whoever_follows_every_refusal_has_a_safe_set(timing in any_timing()) {
        let mut followed = timing.clone();
        for refusal in lint(&timing) {
            prop_assert!(!refusal.changes.is_empty(), "{:?} has no remedy", refusal);
            prop_assert!(refusal.left > refusal.right);
            for change in refusal.changes {
                *change.key.place(&mut followed) = change.to;
            }
        }
        prop_assert_eq!(lint(&followed), vec![]);
    }

    #[test]
    fn no_value_of_the_nearest_safe_set_could_be_nearer(timing in any_timing()) {
        let safe = nearest_safe(&timing);
        for change in lint(&timing).into_iter().flat_map(|refusal| refusal.changes) {
            let nearer = if change.to > change.from { change.to.0 - 1 } else { change.to.0 + 1 };
            let mut tried = safe.clone();
            *change.key.place(&mut tried) = Millis(nearer);
            prop_assert!(!lint(&tried).is_empty(), "{:?} could be {}", change, nearer);
        }
    }

    #[test]
    fn a_device_is_refused_exactly_when_its_time_out_is_unsafe(
        timing in any_timing(), read_back in 2_u64..10_000,
    ) {
        let timing = nearest_safe(&timing);
        let real = Timing { watchdog: Millis(read_back), ..timing.clone() };
        let refused = check_read_back(&timing, Millis(read_back));
        let unsafe_set = !lint(&real).is_empty() || read_back > timing.watchdog.0;
        prop_assert_eq!(refused.is_err(), unsafe_set);
        let mut followed = real;
        for change in refused.err().into_iter().flat_map(|refusal| refusal.changes) {
            *change.key.place(&mut followed) = change.to;
        }
        prop_assert_eq!(lint(&followed), vec![]);
    }
}

#[test]
fn each_inequality_of_section_9_is_refused_one_above_its_bound() {
    let good = Timing::standard(Millis(1_100));
    let cases: [(&str, Key, u64); 9] = [
        ("3 beats <= L", Key::Lease, 1_499),
        ("2 beats <= W", Key::Watchdog, 999),
        ("2 W <= L + S - 2 beats", Key::Watchdog, 4_501),
        ("W + 1 s (a clean stop) <= S", Key::Stop, 4_999),
        ("token + consensus + 2 beats <= min(L, L + S - W)", Key::Lease, 2_099),
        ("2 x storage cycle deadline + 1 beat <= min(L, L + S - W)", Key::StorageDeadline, 2_251),
        ("max(3 beats, token + consensus) <= full failure", Key::FullFailure, 1_499),
        ("max(2 beats, W - S + 1 beat) <= start margin", Key::StartMargin, 999),
        ("1 ms <= fence time-out", Key::FenceTimeout, 0),
    ];
    for (name, key, value) in cases {
        let mut timing = good.clone();
        *key.place(&mut timing) = Millis(value);
        let found = lint(&timing);
        let refused = found.iter().any(|refusal| refusal.inequality == name);
        assert!(refused, "{name} is not refused at {} = {value}: {found:?}", key.name());
    }
}

#[test]
fn a_refusal_names_the_inequality_the_numbers_and_the_nearest_value() {
    let timing = Timing { watchdog: Millis(5_000), ..Timing::standard(Millis(1_100)) };
    let found = lint(&timing);
    let told: Vec<_> = found.iter().map(|r| (r.what(), r.remedy())).collect();
    assert_eq!(
        told,
        [
            (
                "unsafe timing: 2 W <= L + S - 2 beats does not hold: 10000 ms > 9000 ms".into(),
                "set watchdog_ms to at most 4000".into()
            ),
            (
                "unsafe timing: W + 1 s (a clean stop) <= S does not hold: 6000 ms > 5000 ms"
                    .into(),
                "set watchdog_ms to at most 4000".into()
            ),
        ]
    );
}

#[test]
fn a_slow_corosync_may_be_made_quicker_instead() {
    let found = lint(&Timing::standard(Millis(12_000)));
    let lease = found.first().expect("refused");
    assert_eq!(lease.membership, Some(Millis(4_000)));
    assert!(lease.remedy().contains("lease_ms to at least 13000"), "{}", lease.remedy());
    assert!(lint(&Timing::standard(Millis(4_000))).is_empty());
}

#[test]
fn a_device_that_can_only_do_a_minute_needs_a_longer_lease() {
    let timing = Timing::standard(Millis(1_100));
    let refusal = check_read_back(&timing, Millis(60_000)).expect_err("refused");
    assert_eq!(
        refusal.what(),
        "unsafe timing: W as the device says it <= W does not hold: 60000 ms > 4000 ms"
    );
    assert!(refusal.remedy().contains("watchdog_ms to at least 60000"), "{}", refusal.remedy());
    assert!(refusal.remedy().contains("stop_ms to at least 61000"), "{}", refusal.remedy());
}
