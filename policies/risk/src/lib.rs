//! The default risk policy: does a node's equipment announce a failure?
//!
//! A table of readings ([`RULES`]), each with the value from which it counts, the value at which it counts fully, and its points.
//! Of several readings under one rule (the disks of a node) the worst counts, once. Points of different reasons add up, to 1000 at
//! most. Readings that are old, that no rule names, or that the parameter `ignore` names, do not count.
//!
//! As a rule of thumb 700 and more is "it fails soon", 400 is "look at it soon", 200 and less is "good to know".
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
        /// Readings that do not count, by name; a `*` stands for one word between dots: `["fan.*.failed"]`.
        ignore: Vec<String> = Vec::new(),
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Name of the reading; a `*` stands for one word between dots.
    pub reading: &'static str,
    /// The reason, as people read it.
    pub reason: &'static str,
    /// Value from which it counts.
    pub from: i64,
    /// Value at which it counts fully. Lower than `from` where less is worse.
    pub to: i64,
    /// Points when it counts fully.
    pub points: i64,
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

/// What counts. The names are those that the agent's telemetry and external systems use.
pub const RULES: [Rule; 31] = [
    // Disks, by smartctl: ATA attributes and the NVMe health log.
    rule("smart.*.failing", "disk says that it fails", 0, 1, 900),
    rule("smart.*.reallocated", "reallocated sectors", 0, 100, 500),
    rule("smart.*.pending", "pending sectors", 0, 20, 500),
    rule("smart.*.uncorrectable", "uncorrectable sectors", 0, 10, 600),
    rule("smart.*.wear_percent", "disk worn out", 90, 100, 400),
    rule("smart.*.spare_percent", "disk out of spare blocks", 20, 5, 500),
    rule("smart.*.media_errors", "media errors", 0, 10, 500),
    rule("smart.*.cable_errors_per_hour", "errors on a disk's cable", 0, 100, 200),
    // Memory.
    rule("edac.*.uncorrectable", "uncorrectable memory errors", 0, 1, 1000),
    rule("edac.*.correctable_per_hour", "corrected memory errors", 10, 1000, 500),
    // Heat, power, and whatever else a management controller watches.
    rule("temperature.*.below_critical_c", "temperature near critical", 10, 0, 700),
    rule("temperature.*.throttled_per_hour", "slowed down by heat", 0, 60, 300),
    rule("power_supply.*.failed", "power supply failed", 0, 1, 500),
    rule("power_supply.*.no_input", "power supply without input", 0, 1, 400),
    rule("fan.*.failed", "fan failed", 0, 1, 400),
    rule("sensor.*.critical", "a sensor is critical", 0, 1, 500),
    rule("sensor.*.warning", "a sensor warns", 0, 1, 100),
    // Redundancy of storage and network.
    rule("md.*.missing", "degraded disk array", 0, 1, 300),
    rule("multipath.*.failed_paths", "storage paths failed", 0, 2, 400),
    rule("multipath.*.paths_left", "last storage path", 2, 1, 400),
    rule("bond.*.failed_links", "a bond lost links", 0, 1, 200),
    rule("link.*.errors_per_minute", "link errors", 10, 1000, 300),
    rule("link.*.flaps_per_hour", "link flaps", 1, 10, 400),
    // Pressure, the kernel, time.
    rule("psi.memory.full_avg60_permille", "memory pressure", 100, 500, 400),
    rule("psi.io.full_avg60_permille", "storage pressure", 300, 900, 300),
    rule("psi.cpu.some_avg60_permille", "CPU pressure", 700, 1000, 200),
    rule("kernel.hardware_errors", "hardware errors in the kernel's log", 0, 3, 600),
    rule("kernel.io_errors", "disk errors in the kernel's log", 0, 10, 400),
    rule("clock.unsynchronised", "clock not synchronised", 0, 1, 100),
    rule("clock.offset_ms", "clock is off", 100, 5_000, 200),
    // The verdict of another system, such as a DCIM: it counts as it is.
    rule("external.*.risk", "external verdict", 0, 1000, 1000),
];

impl Risk for RiskDefault {
    fn risk(&self, node: &NodeFacts, telemetry: &[Reading]) -> Score {
        let flaps = points(node.flaps.min(5).into(), self.flap);
        let worst = self.worst(telemetry);
        let score = Score::new().term("flaps", self.weigh(flaps));
        RULES
            .iter()
            .zip(worst)
            .fold(score, |score, (rule, worst)| score.term(rule.reason, self.weigh(worst)))
    }
}

impl RiskDefault {
    /// The most points under each rule.
    fn worst(&self, telemetry: &[Reading]) -> [i64; RULES.len()] {
        let mut worst = [0; RULES.len()];
        for reading in telemetry.iter().filter(|reading| self.counts(reading)) {
            for (worst, rule) in worst.iter_mut().zip(&RULES) {
                if names(rule.reading, &reading.name) {
                    *worst = rule.points_of(reading.value).max(*worst);
                    break;
                }
            }
        }
        worst
    }

    fn counts(&self, reading: &Reading) -> bool {
        reading.age_ms <= self.stale_ms && !self.ignore.iter().any(|it| names(it, &reading.name))
    }

    fn weigh(&self, score: i64) -> i64 {
        points(score, self.weight_permille) / 1000
    }
}

/// Whether the pattern, where a `*` stands for one word between dots, names the reading.
fn names(pattern: &str, reading: &str) -> bool {
    let (mut ours, mut theirs) = (pattern.split('.'), reading.split('.'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(our), Some(their)) if our == "*" || our == their => {}
            _ => return false,
        }
    }
}

impl Rule {
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

laws!(RiskDefault);

#[cfg(test)]
mod tests;
