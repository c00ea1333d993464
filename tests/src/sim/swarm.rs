//! Many seeds on every core, and what they came to.

use super::clock::{SECOND, Time};
use super::coverage::Atlas;
use super::plan::Wish;
use super::policy::Mood;
use super::report::{Outcome, command, run};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What seeds came to.
#[derive(Debug, Default)]
pub struct Totals {
    seeds: u64,
    events: u64,
    seconds: u64,
    slowest: BTreeMap<Mood, (Time, u64)>,
    faults: BTreeMap<String, u64>,
    failures: BTreeMap<&'static str, Vec<u64>>,
    atlas: Atlas,
    stale_reads: u64,
    aimed: u64,
    residual: u64,
}

/// Random seeds from `from` on, until the time is over. `fails` is told about each failure.
pub fn swarm(from: u64, limit: Duration, wish: Wish, fails: impl Fn(&Outcome) + Sync) -> Totals {
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let began = Instant::now();
    let progress = Progress::new(began, limit);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut totals = Totals::default();
        while !stop.load(Ordering::Relaxed) && began.elapsed() < limit {
            let outcome = run(next.fetch_add(1, Ordering::Relaxed), wish, false, false);
            if outcome.violation.is_some() {
                fails(&outcome);
            }
            progress.add(&outcome);
            totals.add(&outcome);
        }
        totals
    };
    let totals: Vec<Totals> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    progress.end();
    totals.into_iter().fold(Totals::default(), Totals::merge)
}

/// A terminal is told every few seconds how far the swarm is.
struct Progress {
    began: Instant,
    limit: Duration,
    shown: bool,
    /// Seeds, simulated seconds and failures so far; when to tell next.
    so_far: Mutex<(u64, Time, u64, Duration)>,
}

impl Progress {
    fn new(began: Instant, limit: Duration) -> Self {
        let shown = std::io::stderr().is_terminal();
        Self { began, limit, shown, so_far: Mutex::new((0, 0, 0, PROGRESS_EVERY)) }
    }

    fn add(&self, outcome: &Outcome) {
        let Ok(mut so_far) = self.so_far.lock() else { return };
        let (seeds, seconds, failures, next) = &mut *so_far;
        *seeds += 1;
        *seconds += outcome.passed / SECOND;
        *failures += u64::from(outcome.violation.is_some());
        let elapsed = self.began.elapsed();
        if self.shown && elapsed >= *next {
            *next = elapsed + PROGRESS_EVERY;
            let (hours, all) = (*seconds / 3_600, self.limit.as_secs());
            eprint!(
                "\r{}/{all} s: {seeds} seeds, {hours} simulated hours, {failures} failures ",
                elapsed.as_secs()
            );
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r{:70}\r", "");
        }
    }
}

impl Totals {
    /// No seed has failed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    fn add(&mut self, outcome: &Outcome) {
        let stats = &outcome.stats;
        self.seeds += 1;
        self.events += stats.events;
        self.seconds += outcome.passed / SECOND;
        self.stale_reads += stats.stale_reads;
        self.aimed += stats.aimed;
        self.residual += stats.residual;
        self.atlas.add(&stats.coverage, stats.faults.keys());
        let slowest = self.slowest.entry(outcome.mood).or_default();
        *slowest = (*slowest).max((outcome.recovered / SECOND, outcome.seed));
        for (kind, count) in &stats.faults {
            *self.faults.entry(format!("{kind:?}")).or_insert(0) += count;
        }
        if let Some(violation) = &outcome.violation {
            self.failures.entry(violation.rule).or_default().push(outcome.seed);
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.seeds += other.seeds;
        self.events += other.events;
        self.seconds += other.seconds;
        self.stale_reads += other.stale_reads;
        self.aimed += other.aimed;
        self.residual += other.residual;
        self.atlas = self.atlas.merge(other.atlas);
        for (mood, slowest) in other.slowest {
            let known = self.slowest.entry(mood).or_default();
            *known = (*known).max(slowest);
        }
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_insert(0) += count;
        }
        for (rule, seeds) in other.failures {
            self.failures.entry(rule).or_default().extend(seeds);
        }
        self
    }

    /// Lines for people, of a swarm that took so many seconds.
    #[must_use]
    pub fn lines(&self, seconds: f64, wish: Wish) -> Vec<String> {
        let mut lines = self.speed(seconds);
        let mood = |(mood, (s, seed)): (&Mood, &(Time, u64))| format!("{mood:?} {s} s ({seed})");
        let moods: Vec<_> = self.slowest.iter().map(mood).collect();
        lines.push(format!("slowest recovery after healing (seed): {}", moods.join(", ")));
        let faults: Vec<_> = self.faults.iter().map(|(k, c)| format!("{k} {c}")).collect();
        lines.push(format!("faults: {}", faults.join(", ")));
        lines.push(format!(
            "of these {} directed; {} stale reads; known residual of calm: {}",
            self.aimed, self.stale_reads, self.residual
        ));
        lines.push("coverage, in seeds:".into());
        lines.extend(Atlas::blank().merge(self.atlas.clone()).lines());
        for (rule, seeds) in &self.failures {
            let first = seeds.iter().min().copied().unwrap_or_default();
            lines.push(format!("{rule}: {} failures, first {}", seeds.len(), command(first, wish)));
        }
        lines
    }

    #[allow(clippy::cast_precision_loss)] // For people.
    fn speed(&self, seconds: f64) -> Vec<String> {
        let (seeds, events, hours) =
            (self.seeds as f64, self.events as f64, self.seconds as f64 / 3_600.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let mut text = format!(
            "{} seeds ({:.1}/s), {} events ({:.0} k/s), {hours:.1} simulated cluster-hours: {:.0} a minute",
            self.seeds,
            seeds / seconds,
            self.events,
            events / seconds / 1_000.0,
            hours * 60.0 / seconds,
        );
        // Others may use the machine too.
        if let Some(used) = processor_seconds() {
            let alone = hours * 60.0 / used * cores;
            text += &format!(" ({alone:.0} if nothing else ran on these {cores} cores)");
        }
        vec![text]
    }
}

/// Processor time that this process has used (source: /proc; ticks of 10 ms).
#[allow(clippy::cast_precision_loss)] // For people.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let ticks = |k: usize| after_name.split(' ').nth(k)?.parse::<u64>().ok();
    let used = ticks(11)? + ticks(12)?;
    (used > 0).then(|| used as f64 / 100.0)
}
