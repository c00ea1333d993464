//! An example to copy: a risk policy of its own, with its own parameters. Only disks count, by the thresholds of whoever runs them.
//!
//! `disk-risk.json` beside the module: `{"reallocated": 8, "wear_percent": 80}`.
use steadfast_sdk::prelude::*;

parameters! {
    /// From which value on readings of a disk count; at twice that they count fully.
    pub struct DiskRisk {
        /// Reallocated sectors.
        reallocated: i64 = 50,
        /// Sectors that wait to be reallocated.
        pending: i64 = 4,
        /// Wear in percent of what the maker promises.
        wear_percent: i64 = 90,
        /// Older readings do not count, in milliseconds.
        stale_ms: u64 = 3_600_000,
    }
}

impl Risk for DiskRisk {
    fn risk(&self, _: &NodeFacts, telemetry: &[Reading]) -> Score {
        let disks = telemetry.iter().filter(|it| it.name.starts_with("smart."));
        let fresh = disks.filter(|it| it.age_ms <= self.stale_ms);
        let worst = |what: &str, from: i64| {
            let values = fresh.clone().filter(|it| it.name.ends_with(what)).map(|it| it.value);
            values.map(|it| ramp(it, from, from.saturating_mul(2).max(1))).max().unwrap_or(0)
        };
        Score::new()
            .term("disk says that it fails", worst(".failing", 0))
            .term("reallocated sectors", worst(".reallocated", self.reallocated) / 2)
            .term("pending sectors", worst(".pending", self.pending) / 2)
            .term("worn out", worst(".wear_percent", self.wear_percent))
    }
}

export_policy! {
    DiskRisk: Risk,
    name = "disk-risk",
    about = "Disks by SMART, with thresholds of your own; nothing else counts.",
}

laws!(DiskRisk);

#[cfg(test)]
mod tests {
    use super::*;
    use steadfast_sdk::{fixture::Fixture, run::run_with};

    fn cluster(what: &str, value: i64) -> Fixture {
        Fixture::cluster(1).telemetry("n1", &format!("smart.sda.{what}"), value)
    }

    #[test]
    fn the_worst_disk_counts() {
        let risk = |cluster: Fixture| cluster.risk_of::<DiskRisk>("n1").value;
        assert_eq!(risk(cluster("failing", 1)), 1000);
        assert_eq!(risk(cluster("reallocated", 50)), 0);
        assert_eq!(
            risk(cluster("reallocated", 75).telemetry("n1", "smart.b.reallocated", 60)),
            250
        );
        assert_eq!(risk(cluster("unheard_of", 9)), 0);
    }

    #[test]
    fn the_parameters_move_the_thresholds() {
        let asked = cluster("reallocated", 75).risk("n1");
        let risk = |json| run_with::<DiskRisk, _>(json, &asked).score.value;
        assert_eq!((risk(r#"{"reallocated": 100}"#), risk(r#"{"reallocated": 30}"#)), (0, 500));
    }

    #[test]
    fn old_readings_do_not_count() {
        let cluster = Fixture::cluster(1).aged("n1", "smart.sda.failing", 1, 3_600_001);
        assert_eq!(cluster.risk_of::<DiskRisk>("n1").value, 0);
    }
}
