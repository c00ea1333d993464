//! Hunts planted bugs: seed after seed on every core, until the simulator catches each.

use super::{Arguments, targets};
use crate::sim::clock::{SECOND, Time};
use crate::sim::plan::Wish;
use crate::sim::report::{catch_panics, run};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use steadfast_core::mutants::{Mutant, plant};

/// What is hunted.
#[derive(Debug)]
struct Prey {
    mutant: Mutant,
    wish: Wish,
    rules: &'static [&'static str],
}

/// What came of one hunt.
#[derive(Debug, Default)]
struct Hunt {
    /// The lowest seed that catches the bug, and is clean without it; which rule says so.
    caught: Option<(u64, &'static str)>,
    /// Seeds that fail by another rule, or without the bug too: they show nothing.
    unclean: u64,
    /// Simulated time of all seeds up to there.
    passed: Time,
}

/// Hunts what the command line names.
pub fn run_hunts(arguments: &Arguments) -> Result<ExitCode, String> {
    catch_panics();
    let mutants = chosen(arguments)?;
    if let (Some(seed), Some(prey)) = (arguments.seed, mutants.first()) {
        return Ok(tell(seed, prey.mutant, prey.wish));
    }
    let began = Instant::now();
    println!("{}", head());
    let mut survivors = 0;
    for prey in &mutants {
        let began = Instant::now();
        let found = hunt(prey, arguments.from..=arguments.from + arguments.seeds - 1);
        println!("{}", row(prey.mutant, &found, began.elapsed().as_secs_f64()));
        survivors += usize::from(found.caught.is_none());
    }
    let (all, seconds) = (mutants.len(), began.elapsed().as_secs());
    println!("{} of {all} planted bugs caught in {seconds} s", all - survivors);
    println!("the story of one: cargo sim mutants --only BUG --seed SEED");
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(arguments: &Arguments) -> Result<Vec<Prey>, String> {
    let only = &arguments.only;
    let wanted = |mutant: &&Mutant| only.is_empty() || only.contains(&format!("{mutant:?}"));
    let with_target = |mutant: &Mutant| {
        let target = targets::find(&format!("{mutant:?}"))?;
        let wish = arguments.focus.unwrap_or(target.focus).wish();
        Ok(Prey { mutant: *mutant, wish, rules: target.rules })
    };
    Mutant::ALL.iter().filter(wanted).map(with_target).collect()
}

/// The lowest seed that catches it: the same on every machine. Only a seed that breaks the promise that the bug breaks,
/// and is clean without it, counts.
fn hunt(prey: &Prey, seeds: RangeInclusive<u64>) -> Hunt {
    let mut found = Hunt::default();
    let mut from = *seeds.start();
    while let Some((seed, rule)) = first_failure(prey, from..=*seeds.end(), &mut found.passed) {
        let known = prey.rules.contains(&rule);
        if known && run(seed, prey.wish, false, false).violation.is_none() {
            found.caught = Some((seed, rule));
            break;
        }
        found.unclean += 1;
        from = seed + 1;
    }
    found
}

/// The lowest of these seeds that fails with the bug, on all cores.
fn first_failure(
    prey: &Prey,
    seeds: RangeInclusive<u64>,
    passed: &mut Time,
) -> Option<(u64, &'static str)> {
    let (next, best) = (AtomicU64::new(*seeds.start()), AtomicU64::new(*seeds.end()));
    let ran = Mutex::new(BTreeMap::new());
    plant(Some(prey.mutant));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > best.load(Ordering::Relaxed) {
                return;
            }
            let outcome = run(seed, prey.wish, false, false);
            let rule = outcome.violation.map(|violation| violation.rule);
            if rule.is_some() {
                best.fetch_min(seed, Ordering::Relaxed);
            }
            if let Ok(mut ran) = ran.lock() {
                ran.insert(seed, (outcome.passed, rule));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    plant(None);
    let ran = ran.into_inner().ok()?;
    for (seed, (time, rule)) in ran {
        *passed += time;
        if let Some(rule) = rule {
            return Some((seed, rule));
        }
    }
    None
}

fn head() -> String {
    format!(
        "{:<24} {:<22} {:>5} {:>8} {:>6}  {:<7} {}",
        "bug", "caught by", "seed", "sim. s", "s", "section", "what is planted"
    )
}

fn row(mutant: Mutant, found: &Hunt, seconds: f64) -> String {
    let (seed, rule) = found.caught.unwrap_or((0, "SURVIVED"));
    let (name, passed) = (format!("{mutant:?}"), found.passed / SECOND);
    let (section, text) = (mutant.section(), mutant.text());
    let unclean = match found.unclean {
        0 => String::new(),
        count => format!(" ({count} seeds before it fail otherwise)"),
    };
    format!(
        "{name:<24} {rule:<22} {seed:>5} {passed:>8} {seconds:>6.1}  {section:<7} {text}{unclean}"
    )
}

/// The story of one seed with the bug.
fn tell(seed: u64, mutant: Mutant, wish: Wish) -> ExitCode {
    plant(Some(mutant));
    let outcome = run(seed, wish, true, false);
    plant(None);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    match outcome.violation {
        Some(violation) => {
            println!("\n{mutant:?}: seed {seed} violates {}: {}", violation.rule, violation.text)
        }
        None => println!("\n{mutant:?}: seed {seed} is clean: it does not catch this bug"),
    }
    ExitCode::SUCCESS
}
