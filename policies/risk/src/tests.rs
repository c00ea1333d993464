use super::*;
use steadfast_sdk::fixture::Fixture;
use steadfast_sdk::run::run_with;

fn score(readings: &[(&str, i64)]) -> Score {
    let cluster = readings
        .iter()
        .fold(Fixture::cluster(1), |cluster, (name, value)| cluster.telemetry("n1", name, *value));
    cluster.risk_of::<RiskDefault>("n1")
}

fn value(name: &str, value: i64) -> i64 {
    score(&[(name, value)]).value
}

#[test]
fn a_quiet_node_has_no_risk() {
    assert_eq!(score(&[("smart.sda.reallocated", 0), ("what.is.this", 9)]).value, 0);
}

#[test]
fn every_rule_counts_fully_at_its_worst_and_not_at_all_at_its_best() {
    for rule in RULES {
        let reading = rule.reading.replace('*', "x-1");
        assert_eq!(value(&reading, rule.to), rule.points, "{reading}");
        assert_eq!(value(&reading, rule.from), 0, "{reading}");
        let worse = if rule.from < rule.to { i64::MAX } else { i64::MIN };
        let better = if rule.from < rule.to { i64::MIN } else { i64::MAX };
        assert_eq!((value(&reading, worse), value(&reading, better)), (rule.points, 0));
    }
}

#[test]
fn no_reading_stands_under_two_rules() {
    for (at, rule) in RULES.iter().enumerate() {
        let others = RULES.iter().enumerate().filter(|(other, _)| *other != at);
        let reading = rule.reading.replace('*', "x");
        for (_, other) in others {
            assert!(!names(other.reading, &reading), "{reading} is {other:?} too");
            assert_ne!(other.reason, rule.reason);
        }
    }
}

#[test]
fn of_many_disks_the_worst_counts_once() {
    let two = score(&[("smart.sda.reallocated", 50), ("smart.sdb.reallocated", 20)]);
    assert_eq!(two.value, 250);
    assert_eq!(two.terms.len(), 1);
}

#[test]
fn heat_counts_the_nearer_it_comes_to_critical() {
    assert_eq!(value("temperature.cpu0.below_critical_c", 30), 0);
    assert_eq!(value("temperature.cpu0.below_critical_c", 5), 350);
    assert_eq!(value("temperature.cpu0.below_critical_c", -3), 700);
}

#[test]
fn the_last_storage_path_is_worse_than_one_lost_of_many() {
    let of_many = score(&[("multipath.a.failed_paths", 1), ("multipath.a.paths_left", 3)]);
    let last = score(&[("multipath.a.failed_paths", 1), ("multipath.a.paths_left", 1)]);
    assert_eq!((of_many.value, last.value), (200, 600));
}

#[test]
fn the_verdict_of_an_external_system_counts_as_it_is_and_the_worst_of_several() {
    assert_eq!(value("external.dcim.risk", 640), 640);
    assert_eq!(score(&[("external.a.risk", 300), ("external.b.risk", 500)]).value, 500);
    assert_eq!(value("external.dcim.risk", 9_000), 1000);
    assert_eq!(value("external.dcim.risk", -5), 0);
}

#[test]
fn old_readings_do_not_count() {
    let risk = |age_ms| {
        Fixture::cluster(1).aged("n1", "smart.sda.failing", 1, age_ms).risk_of::<RiskDefault>("n1")
    };
    assert_eq!((risk(600_000).value, risk(600_001).value), (900, 0));
}

#[test]
fn many_reasons_are_cut_to_the_range_and_still_sum() {
    let all = score(&[("smart.a.failing", 1), ("edac.mc0.uncorrectable", i64::MAX)]);
    assert_eq!(all.value, 1000);
}

#[test]
fn what_the_operator_ignores_does_not_count() {
    let cluster = Fixture::cluster(1)
        .telemetry("n1", "fan.fan2.failed", 1)
        .telemetry("n1", "smart.sdb.reallocated", 100)
        .telemetry("n1", "smart.sda.reallocated", 10);
    let risk = |json| run_with::<RiskDefault, _>(json, &cluster.risk("n1")).score.value;
    assert_eq!(risk("{}"), 900);
    assert_eq!(risk(r#"{"ignore": ["fan.*.failed", "smart.sdb.*"]}"#), 50);
}

#[test]
fn the_weight_scales_every_reason() {
    let asked = Fixture::cluster(1).telemetry("n1", "smart.sda.failing", 1).risk("n1");
    let risk = |json| run_with::<RiskDefault, _>(json, &asked).score.value;
    assert_eq!((risk(r#"{"weight_permille": 500}"#), risk(r#"{"weight_permille": 0}"#)), (450, 0));
}
