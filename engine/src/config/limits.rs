//! How much at once, how often, how long: the `[limits]` section.

use super::Problem;
use serde::Deserialize;
use steadfast_core::config::Limits;
use steadfast_core::host_shutdown::HostShutdown;
use steadfast_core::time::Millis;

/// Limits that differ from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    witness: Option<Witness>,
    max_evictions: Option<usize>,
    flaps: Option<u32>,
    flap_window_ms: Option<u64>,
    parallel_starts: Option<usize>,
    parallel_migrations: Option<usize>,
    migration_timeout_ms: Option<u64>,
    shutdown_timeout_ms: Option<u64>,
    budget_window_ms: Option<u64>,
    host_shutdown: Option<HostShutdown>,
    host_freeze_ms: Option<u64>,
}

/// What breaks the tie between two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Witness {
    /// The shared storage.
    Storage,
    /// Nothing: only a majority acts.
    None,
}

impl RawLimits {
    /// The limits, with what is wrong with them in `problems`.
    pub(super) fn resolve(&self, problems: &mut Vec<Problem>) -> Limits {
        let usual = Limits::default();
        let millis = |given: Option<u64>, usual: Millis| given.map_or(usual, Millis);
        let limits = Limits {
            witness: self.witness.map(|witness| witness == Witness::Storage),
            max_evictions: self.max_evictions,
            flaps: self.flaps.unwrap_or(usual.flaps),
            flap_window: millis(self.flap_window_ms, usual.flap_window),
            parallel_starts: self.parallel_starts.unwrap_or(usual.parallel_starts),
            parallel_migrations: self.parallel_migrations.unwrap_or(usual.parallel_migrations),
            migration_timeout: millis(self.migration_timeout_ms, usual.migration_timeout),
            shutdown_timeout: millis(self.shutdown_timeout_ms, usual.shutdown_timeout),
            budget_window: millis(self.budget_window_ms, usual.budget_window),
            host_shutdown: self.host_shutdown.unwrap_or(usual.host_shutdown),
            host_freeze: millis(self.host_freeze_ms, usual.host_freeze),
            proactive: usual.proactive,
        };
        check(&limits, problems);
        limits
    }
}

/// Each limit with its least value; below it nothing would ever be done.
fn check(limits: &Limits, problems: &mut Vec<Problem>) {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let least = [
        ("flaps", u64::from(limits.flaps), 2),
        ("flap_window_ms", limits.flap_window.0, 1_000),
        ("parallel_starts", number(limits.parallel_starts), 1),
        ("parallel_migrations", number(limits.parallel_migrations), 1),
        ("migration_timeout_ms", limits.migration_timeout.0, 1_000),
        ("shutdown_timeout_ms", limits.shutdown_timeout.0, 1_000),
        ("budget_window_ms", limits.budget_window.0, 1_000),
        ("host_freeze_ms", limits.host_freeze.0, 1_000),
    ];
    for (name, given, least) in least {
        if given < least {
            let what = format!("limits.{name} is {given}, less than {least}");
            problems.push(Problem::new(what, format!("set it to {least} or more")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> (Limits, Vec<Problem>) {
        let raw: RawLimits = toml::from_str(text).expect("readable");
        let mut problems = Vec::new();
        (raw.resolve(&mut problems), problems)
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(resolved(""), (Limits::default(), vec![]));
        let (limits, problems) = resolved("witness = \"storage\"\nshutdown_timeout_ms = 90000");
        let expected =
            Limits { witness: Some(true), shutdown_timeout: Millis(90_000), ..Limits::default() };
        assert_eq!((limits, problems), (expected, vec![]));
    }

    #[test]
    fn what_becomes_of_a_hosts_vms_is_one_of_four_words() {
        let (limits, problems) = resolved("host_shutdown = \"migrate\"");
        assert_eq!((limits.host_shutdown, problems.len()), (HostShutdown::Migrate, 0));
        assert!(toml::from_str::<RawLimits>("host_shutdown = \"shoot\"").is_err());
    }

    #[test]
    fn a_limit_that_lets_nothing_happen_is_refused_by_name() {
        let (_, problems) = resolved("parallel_starts = 0\nmigration_timeout_ms = 10");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].contains("limits.parallel_starts is 0, less than 1"), "{told:?}");
        assert!(told[1].contains("set it to 1000 or more"), "{told:?}");
    }
}
