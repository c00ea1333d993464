//! `cargo sim`: run one seed, or a swarm of random ones.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use steadfast_tests::mutants;
use steadfast_tests::scenario::files;
use steadfast_tests::scenario::runner::tell;
use steadfast_tests::sim::clock::SECOND;
use steadfast_tests::sim::coverage::Atlas;
use steadfast_tests::sim::faults::Kind;
use steadfast_tests::sim::plan::{Class, Plan, Plant, Wish};
use steadfast_tests::sim::profiles;
use steadfast_tests::sim::report::{Outcome, catch_panics, command, run};

const USAGE: &str = "usage:
  cargo sim --seed N [--verbose] [--trace] [--nodes K] [--class C] [--plant P] [--focus F]
  cargo sim swarm --minutes M [--from SEED] [--nodes K] [--class C] [--plant P] [--focus F]
  cargo sim mutants [--only NAME] [--seeds MAX]
  cargo sim scenario FILE [--trace]
classes: quiet, storage, network, swarm
plants: LyingFence, SlowClock, DeadWatchdog";

#[derive(Debug, Default)]
struct Arguments {
    swarm: bool,
    scenario: Option<String>,
    seed: Option<u64>,
    from: Option<u64>,
    minutes: f64,
    trace: bool,
    verbose: bool,
    wish: Wish,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("mutants") {
        return mutants::main(std::env::args().skip(2).collect());
    }
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    catch_panics();
    if let Some(file) = &arguments.scenario {
        return scenario(std::path::Path::new(file), arguments.trace);
    }
    let clean = match (arguments.swarm, arguments.seed) {
        (true, _) => swarm(&arguments),
        (false, Some(seed)) => single(seed, &arguments),
        (false, None) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { minutes: 1.0, ..Arguments::default() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "swarm" => arguments.swarm = true,
            "scenario" => arguments.scenario = Some(words.next()?),
            "--seed" => arguments.seed = Some(words.next()?.parse().ok()?),
            "--from" => arguments.from = Some(words.next()?.parse().ok()?),
            "--minutes" => arguments.minutes = words.next()?.parse().ok()?,
            "--nodes" => {
                let nodes = words.next()?.parse().ok().filter(|n| (2..=64).contains(n))?;
                arguments.wish.nodes = Some(nodes);
            }
            "--trace" => arguments.trace = true,
            "--verbose" => (arguments.trace, arguments.verbose) = (true, true),
            "--focus" => arguments.wish = profiles::find(&words.next()?)?.wish(),
            "--kind" => {
                let name = words.next()?;
                let named = |kind: &Kind| format!("{kind:?}") == name;
                arguments.wish.kind = Some(Kind::SWARM.into_iter().find(named)?);
            }
            "--class" => arguments.wish.class = Some(class(&words.next()?)?),
            "--plant" => arguments.wish.plant = Some(plant(&words.next()?)?),
            _ => return None,
        }
    }
    Some(arguments)
}

fn class(word: &str) -> Option<Class> {
    match word {
        "quiet" => Some(Class::Quiet),
        "storage" => Some(Class::StorageForAll),
        "network" => Some(Class::NetworkForAll),
        "swarm" => Some(Class::Swarm),
        _ => None,
    }
}

fn plant(word: &str) -> Option<Plant> {
    [Plant::LyingFence, Plant::SlowClock, Plant::DeadWatchdog]
        .into_iter()
        .find(|plant| format!("{plant:?}") == word)
}

fn single(seed: u64, arguments: &Arguments) -> bool {
    let plan = Plan::new(seed, arguments.wish);
    let first = run(seed, arguments.wish, arguments.trace, arguments.verbose);
    let Some(violation) = &first.violation else {
        show(&first.lines);
        println!(
            "seed {seed}: {:?}, {} nodes, {} faults, {} s, {} events, up {} s after healing: clean",
            plan.class,
            plan.nodes,
            plan.faults.len(),
            first.passed / SECOND,
            first.stats.events,
            first.recovered / SECOND,
        );
        return true;
    };
    let story =
        if arguments.trace { first.clone() } else { run(seed, arguments.wish, true, false) };
    println!(
        "seed {seed}: {:?}, {} nodes, {} VMs, {:?} {:?}, fence agents {:b}, rule 4 {}, L {} S {} W {}",
        plan.class,
        plan.nodes,
        plan.vms,
        plan.mood,
        plan.kinds,
        plan.fence_agents,
        plan.never_paused,
        plan.timing.lease,
        plan.timing.stop,
        plan.timing.watchdog,
    );
    show(&story.lines);
    println!("\nseed {seed} violates {}: {}", violation.rule, violation.text);
    println!("repeat: {}", command(seed, arguments.wish));
    false
}

/// Prints a story; a reader who has seen enough (`| head`) is no error.
fn show(lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Tells one story and shows its log; with `trace`, everything that happened.
fn scenario(file: &std::path::Path, trace: bool) -> ExitCode {
    let story = match files::read(file) {
        Ok(story) => story,
        Err(why) => {
            eprintln!("{}: {why}", file.display());
            return ExitCode::from(2);
        }
    };
    let outcome = tell(&story, trace);
    if trace {
        show(&outcome.trace);
        println!("the story begins at {} s of the trace", outcome.begin / SECOND);
    }
    println!("{}\n", story.title);
    show(&outcome.log);
    if let Some(failure) = &outcome.failure {
        println!("\n{failure}");
        return ExitCode::FAILURE;
    }
    if outcome.log != story.log {
        println!("\nthe log in the file differs:\n{}", files::diff(&story.log, &outcome.log));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Random seeds on every core, until the time is over.
fn swarm(arguments: &Arguments) -> bool {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = arguments.from.unwrap_or(clock.as_secs().wrapping_mul(1_000_000_007) >> 8);
    let (next, stop) = (AtomicU64::new(from), AtomicBool::new(false));
    let began = Instant::now();
    let limit = Duration::from_secs_f64(arguments.minutes * 60.0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let totals: Vec<Totals> = std::thread::scope(|scope| {
        let work = || {
            let mut totals = Totals::default();
            while !stop.load(Ordering::Relaxed) && began.elapsed() < limit {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                totals.add(&run(seed, arguments.wish, false, false), arguments.wish);
            }
            totals
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let all = totals.into_iter().reduce(Totals::merge).unwrap_or_default();
    all.print(began.elapsed().as_secs_f64());
    all.failures.is_empty()
}

#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    events: u64,
    seconds: u64,
    slowest: (u64, u64),
    faults: std::collections::BTreeMap<String, u64>,
    failures: std::collections::BTreeMap<&'static str, Vec<u64>>,
    atlas: Atlas,
    stale_reads: u64,
    aimed: u64,
    residual: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome, wish: Wish) {
        self.seeds += 1;
        self.events += outcome.stats.events;
        self.seconds += outcome.passed / SECOND;
        self.atlas.add(&outcome.stats.coverage);
        self.stale_reads += outcome.stats.stale_reads;
        self.aimed += outcome.stats.aimed;
        self.residual += outcome.stats.residual;
        self.slowest = self.slowest.max((outcome.recovered / SECOND, outcome.seed));
        for (kind, count) in &outcome.stats.faults {
            *self.faults.entry(format!("{kind:?}")).or_insert(0) += count;
        }
        if let Some(violation) = &outcome.violation {
            let text: String = violation.text.chars().take(200).collect();
            println!("FAIL {}: {text}\n     {}", violation.rule, command(outcome.seed, wish));
            self.failures.entry(violation.rule).or_default().push(outcome.seed);
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.seeds += other.seeds;
        self.events += other.events;
        self.seconds += other.seconds;
        self.slowest = self.slowest.max(other.slowest);
        self.atlas = self.atlas.merge(other.atlas);
        self.stale_reads += other.stale_reads;
        self.aimed += other.aimed;
        self.residual += other.residual;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_insert(0) += count;
        }
        for (rule, seeds) in other.failures {
            self.failures.entry(rule).or_default().extend(seeds);
        }
        self
    }

    #[allow(clippy::cast_precision_loss)] // For people.
    fn print(&self, seconds: f64) {
        let per = |count: u64| count as f64 / seconds;
        println!(
            "{} seeds ({:.1}/s), {:.1} simulated hours ({:.0} a minute), {} events ({:.0} k/s)",
            self.seeds,
            per(self.seeds),
            self.seconds as f64 / 3_600.0,
            per(self.seconds) / 60.0,
            self.events,
            per(self.events) / 1_000.0,
        );
        println!("slowest recovery after healing: {} s (seed {})", self.slowest.0, self.slowest.1);
        let faults: Vec<_> = self.faults.iter().map(|(k, c)| format!("{k} {c}")).collect();
        println!("faults: {}", faults.join(", "));
        println!(
            "directed faults {}, stale reads {}, known residual of calm {}",
            self.aimed, self.stale_reads, self.residual
        );
        for line in Atlas::blank().merge(self.atlas.clone()).lines() {
            println!("{line}");
        }
        for (rule, seeds) in &self.failures {
            println!("{rule}: {} failures, seeds {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
        }
    }
}
