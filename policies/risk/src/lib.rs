//! The default risk policy: does a node's equipment announce a failure?
//!
//! A table of readings, each with the value from which it counts, the value at which it counts fully, and its
//! points. Of several readings under one rule (the disks of a node) the worst counts. Readings that are old
//! or that no rule names do not count.
use steadfast_sdk::math::ramp;
use steadfast_sdk::prelude::*;

parameters! {
    /// When readings count.
    pub struct RiskDefault {
        /// Older readings do not count, in milliseconds.
        stale_ms: u64 = 600_000,
        /// Points of all readings and flaps, in thousandths.
        weight_permille: i64 = 1000,
        /// Points of each flap (at most five count).
        flap: i64 = 40,
    }
}

/// One line of the table.
struct Rule {
    /// Name of the reading; a `*` stands for one word between dots.
    reading: &'static str,
    /// The reason, as people read it.
    reason: &'static str,
    /// Value from which it counts.
    from: i64,
    /// Value at which it counts fully. Lower than `from` where less is worse.
    to: i64,
    /// Points when it counts fully.
    points: i64,
}

const fn rule(
    reading: &'static str,
    reason: &'static str,
    from: i64,
    to: i64,
    points: i64,
) -> Rule {
    Rule { reading, reason, from, to, points }
}

const RULES: [Rule; 20] = [
    rule("smart.*.failing", "disk says that it fails", 0, 1, 900),
    rule("smart.*.reallocated", "reallocated sectors", 0, 100, 500),
    rule("smart.*.pending", "pending sectors", 0, 20, 500),
    rule("smart.*.uncorrectable", "uncorrectable sectors", 0, 10, 600),
    rule("smart.*.wear_percent", "disk worn out", 90, 100, 400),
    rule("smart.*.media_errors", "media errors", 0, 10, 500),
    rule("edac.*.uncorrectable", "uncorrectable memory errors", 0, 1, 1000),
    rule("edac.*.correctable_per_hour", "corrected memory errors", 10, 1000, 500),
    rule("temperature.*.below_critical_c", "temperature near critical", 10, 0, 700),
    rule("power_supply.*.failed", "power supply failed", 0, 1, 500),
    rule("fan.*.failed", "fan failed", 0, 1, 400),
    rule("md.*.missing", "degraded disk array", 0, 1, 300),
    rule("multipath.*.failed_paths", "storage paths failed", 0, 2, 400),
    rule("link.*.errors_per_minute", "link errors", 10, 1000, 300),
    rule("link.*.flaps_per_hour", "link flaps", 1, 10, 400),
    rule("psi.memory.full_avg60_permille", "memory pressure", 100, 500, 400),
    rule("psi.io.full_avg60_permille", "storage pressure", 300, 900, 300),
    rule("psi.cpu.some_avg60_permille", "CPU pressure", 700, 1000, 200),
    rule("kernel.hardware_errors", "hardware errors in the kernel's log", 0, 3, 600),
    rule("clock.unsynchronised", "clock not synchronised", 0, 1, 100),
];

impl Risk for RiskDefault {
    fn risk(&self, node: &NodeFacts, telemetry: &[Reading]) -> Score {
        let flaps = points(node.flaps.min(5).into(), self.flap);
        RULES.iter().fold(Score::new().term("flaps", self.weigh(flaps)), |score, rule| {
            let fresh = telemetry.iter().filter(|reading| reading.age_ms <= self.stale_ms);
            let worst = fresh.filter(|reading| rule.names(&reading.name)).map(|it| it.value);
            let worst = worst.map(|value| rule.points_of(value)).max().unwrap_or(0);
            score.term(rule.reason, self.weigh(worst))
        })
    }
}

impl RiskDefault {
    fn weigh(&self, score: i64) -> i64 {
        points(score, self.weight_permille) / 1000
    }
}

impl Rule {
    fn names(&self, reading: &str) -> bool {
        let (mut ours, mut theirs) = (self.reading.split('.'), reading.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(our), Some(their)) if our == "*" || our == their => {}
                _ => return false,
            }
        }
    }

    fn points_of(&self, value: i64) -> i64 {
        let part = if self.from <= self.to {
            ramp(value, self.from, self.to)
        } else {
            ramp(value.saturating_neg(), -self.from, -self.to)
        };
        points(part, self.points) / 1000
    }
}

/// The verdict of this policy with its default parameters: the engine's built-in twin.
#[must_use]
pub fn builtin(question: &RiskQuestion) -> RiskVerdict {
    RiskDefault::default().assess(question)
}

export_policy! {
    RiskDefault: Risk,
    name = "steadfast.default.risk",
    about = "Thresholds on disks, memory, heat, power, links, pressure and the kernel's log.",
    feature = "module",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(readings: &[(&str, i64, u64)]) -> Score {
        let reading = |&(name, value, age_ms): &(&str, i64, u64)| Reading {
            name: name.into(),
            value,
            age_ms,
        };
        let telemetry: Vec<Reading> = readings.iter().map(reading).collect();
        let score = builtin(&RiskQuestion { telemetry, ..Default::default() }).score;
        assert!(score.is_sound() && (0..=1000).contains(&score.value), "{score:?}");
        score
    }

    #[test]
    fn a_quiet_node_has_no_risk() {
        assert_eq!(score(&[("smart.sda.reallocated", 0, 0), ("what.is.this", 9, 0)]).value, 0);
    }

    #[test]
    fn of_many_disks_the_worst_counts_once() {
        let two = score(&[("smart.sda.reallocated", 50, 0), ("smart.sdb.reallocated", 20, 0)]);
        assert_eq!(two.value, 250);
    }

    #[test]
    fn heat_counts_the_nearer_it_comes_to_critical() {
        assert_eq!(score(&[("temperature.cpu0.below_critical_c", 30, 0)]).value, 0);
        assert_eq!(score(&[("temperature.cpu0.below_critical_c", 5, 0)]).value, 350);
        assert_eq!(score(&[("temperature.cpu0.below_critical_c", -3, 0)]).value, 700);
    }

    #[test]
    fn old_readings_do_not_count() {
        assert_eq!(score(&[("smart.sda.failing", 1, 600_001)]).value, 0);
    }

    #[test]
    fn many_reasons_are_cut_to_the_range_and_still_sum() {
        let all = [("smart.a.failing", 1, 0), ("edac.mc0.uncorrectable", i64::MAX, 0)];
        assert_eq!(score(&all).value, 1000);
    }
}
