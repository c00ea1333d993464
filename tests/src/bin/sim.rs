//! `cargo sim`: run one seed, or a swarm of random ones; shrink a failure, replay it; tell a story.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use steadfast_tests::mutants;
use steadfast_tests::pve;
use steadfast_tests::scenario::files;
use steadfast_tests::scenario::runner::tell;
use steadfast_tests::sim::clock::SECOND;
use steadfast_tests::sim::faults::Kind;
use steadfast_tests::sim::plan::{Class, Plan, Plant, Wish};
use steadfast_tests::sim::profiles;
use steadfast_tests::sim::report::{Outcome, catch_panics, command, run_plan};
use steadfast_tests::sim::shrink::Shrinker;
use steadfast_tests::sim::swarm;

const USAGE: &str = "usage:
  cargo sim --seed N [--verbose] [--trace] [WISHES]
  cargo sim swarm --minutes M [--from SEED] [WISHES]
  cargo sim shrink --seed N [--to FILE] [--runs MAX] [WISHES]
  cargo sim replay FILE [--verbose] [--trace]
  cargo sim mutants [--only NAME,..] [--seeds MAX] [--from SEED] [--focus F]
  cargo sim scenario FILE [--trace]
  cargo sim import-pve DIR [--show]
wishes: [--nodes K] [--class C] [--kind FAULT] [--focus F] [--plant P]
classes: quiet, storage, network, swarm; faults: as `swarm` names them
plants: LyingFence, SlowClock, DeadWatchdog";

#[derive(Debug, Default)]
struct Arguments {
    swarm: bool,
    shrink: bool,
    runs: u64,
    to: Option<String>,
    replay: Option<String>,
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
    if std::env::args().nth(1).as_deref() == Some("import-pve") {
        return import_pve(std::env::args().skip(2).collect());
    }
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    catch_panics();
    if let Some(file) = &arguments.scenario {
        return scenario(std::path::Path::new(file), arguments.trace);
    }
    if let Some(file) = &arguments.replay {
        return replay(file, &arguments);
    }
    let clean = match (arguments.swarm, arguments.seed) {
        (true, _) => swarm(&arguments),
        (false, Some(seed)) if arguments.shrink => shrink(seed, &arguments),
        (false, Some(seed)) => {
            let repeat = command(seed, arguments.wish);
            tell_plan(&Plan::new(seed, arguments.wish), &arguments, &repeat)
        }
        (false, None) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { minutes: 1.0, runs: 4_000, ..Arguments::default() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "swarm" => arguments.swarm = true,
            "shrink" => arguments.shrink = true,
            "replay" => arguments.replay = Some(words.next()?),
            "--to" => arguments.to = Some(words.next()?),
            "--runs" => arguments.runs = words.next()?.parse().ok()?,
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

/// Stories of another manager, told to our machines.
fn import_pve(words: Vec<String>) -> ExitCode {
    let [folder, rest @ ..] = words.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let folders = match pve::folders(std::path::Path::new(folder)) {
        Ok(folders) => folders,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    catch_panics();
    if rest == ["--show"] {
        folders.iter().for_each(|f| println!("{}", pve::show(f).unwrap_or_else(|why| why)));
        return ExitCode::SUCCESS;
    }
    let tolerance = pve::compare::TOLERANCE;
    println!(
        "same: nodes cut off, places and states alike, no double run, down at most {tolerance} s longer"
    );
    let (mut told, mut same) = ([0, 0], [0, 0]);
    for folder in folders {
        let story = pve::tell(&folder);
        let kind = usize::from(story.placement);
        told[kind] += 1;
        same[kind] += usize::from(story.differences.is_empty());
        let verdict = if story.differences.is_empty() { "same" } else { "differs" };
        println!("{:<56} {verdict}", story.name);
        story.differences.iter().for_each(|difference| println!("    {difference}"));
        if !story.differences.is_empty() {
            println!("    why: {}", pve::reasons::reason(&story.name).unwrap_or("not known yet"));
        }
    }
    println!("{}/{} behaviour, {}/{} placement", same[0], told[0], same[1], told[1]);
    ExitCode::SUCCESS
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

/// Runs one plan. A failure is told as a story, one line a state change, and how to repeat it.
fn tell_plan(plan: &Plan, arguments: &Arguments, repeat: &str) -> bool {
    let first = run_plan(plan.clone(), arguments.trace, arguments.verbose);
    if first.violation.is_some() {
        tell_failure(plan, arguments.trace.then_some(&first), repeat);
        return false;
    }
    show(&first.lines);
    println!(
        "{}\nclean: {} s, {} events, all was up {} s after healing",
        plan.title(),
        first.passed / SECOND,
        first.stats.events,
        first.recovered / SECOND,
    );
    true
}

fn tell_failure(plan: &Plan, told: Option<&Outcome>, repeat: &str) {
    let story = told.cloned().unwrap_or_else(|| run_plan(plan.clone(), true, false));
    println!("{}", plan.title());
    show(&story.lines);
    if let Some(violation) = &story.violation {
        println!("\nbroken: {}: {}", violation.rule, violation.text);
    }
    println!("repeat: {repeat}");
}

/// Reads a plan, and runs it.
fn replay(file: &str, arguments: &Arguments) -> ExitCode {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match text.and_then(|text| Plan::from_text(&text)) {
        Ok(plan) if tell_plan(&plan, arguments, &format!("cargo sim replay {file}")) => {
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{file}: {why}");
            ExitCode::from(2)
        }
    }
}

/// Makes a failing plan smaller. The result goes to the file asked for, or, alone, to the standard output.
fn shrink(seed: u64, arguments: &Arguments) -> bool {
    let plan = Plan::new(seed, arguments.wish);
    let Some(violation) = run_plan(plan.clone(), false, false).violation else {
        eprintln!("seed {seed} breaks nothing: there is nothing to shrink");
        return true;
    };
    eprintln!("breaks {}\n{}", violation.rule, plan.title());
    let mut shrinker = Shrinker::new(plan, violation.rule, arguments.runs);
    shrinker.run(|plan, runs| eprintln!("after {runs} runs: {}", plan.title()));
    let text = shrinker.plan.to_text();
    let Some(file) = &arguments.to else {
        println!("{text}");
        return false;
    };
    match std::fs::write(file, text + "\n") {
        Ok(()) => tell_failure(&shrinker.plan, None, &format!("cargo sim replay {file}")),
        Err(error) => eprintln!("{file}: {error}"),
    }
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
        let (seconds, millis) = (outcome.begin / SECOND, outcome.begin % SECOND / 1_000);
        println!("the story begins at {seconds}.{millis:03} of the trace");
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

/// Random seeds on every core, until the time is over. The first failure is told.
fn swarm(arguments: &Arguments) -> bool {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let from = arguments.from.unwrap_or(clock.as_secs().wrapping_mul(1_000_000_007) >> 8);
    let (wish, first) = (arguments.wish, Once::new());
    let fails = |outcome: &Outcome| {
        let repeat = command(outcome.seed, wish);
        first.call_once(|| tell_failure(&Plan::new(outcome.seed, wish), None, &repeat));
        if let Some(violation) = &outcome.violation {
            let text: String = violation.text.chars().take(200).collect();
            println!("FAIL {}: {text}\n     {repeat}", violation.rule);
        }
    };
    let began = Instant::now();
    let limit = Duration::from_secs_f64(arguments.minutes * 60.0);
    let totals = swarm::swarm(from, limit, wish, fails);
    show(&totals.lines(began.elapsed().as_secs_f64(), wish));
    totals.is_clean()
}
