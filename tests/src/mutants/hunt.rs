//! Hunts planted bugs: seed after seed on every core, until the simulator catches each.

use super::{Arguments, targets};
use crate::mutants::targets::Target;
use crate::sim::report::{catch_panics, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use steadfast_core::mutants::{Mutant, plant};

/// What came of one hunt.
#[derive(Debug)]
struct Catch {
    seed: u64,
    rule: &'static str,
    /// The same seed is clean without the bug, as it must be.
    clean_without: bool,
}

/// Hunts what the command line names.
pub fn run_hunts(arguments: &Arguments) -> Result<ExitCode, String> {
    catch_panics();
    let mutants = chosen(arguments)?;
    if let (Some(seed), Some((mutant, target))) = (arguments.seed, mutants.first()) {
        return Ok(tell(seed, *mutant, target));
    }
    let began = Instant::now();
    println!("{}", head());
    let mut survivors = 0;
    for (mutant, target) in &mutants {
        let began = Instant::now();
        let found = hunt(*mutant, target, arguments.seeds);
        println!(
            "{}",
            row(*mutant, found.as_ref(), arguments.seeds, began.elapsed().as_secs_f64())
        );
        survivors += usize::from(!found.is_some_and(|found| found.clean_without));
    }
    let (all, seconds) = (mutants.len(), began.elapsed().as_secs());
    println!("{} of {all} planted bugs caught in {seconds} s", all - survivors);
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(arguments: &Arguments) -> Result<Vec<(Mutant, &'static Target)>, String> {
    let only = &arguments.only;
    let wanted = |mutant: &&Mutant| only.is_empty() || only.contains(&format!("{mutant:?}"));
    let with_target = |mutant: &Mutant| Ok((*mutant, targets::find(&format!("{mutant:?}"))?));
    Mutant::ALL.iter().filter(wanted).map(with_target).collect()
}

/// The lowest seed that catches it: the same on every machine.
fn hunt(mutant: Mutant, target: &Target, seeds: u64) -> Option<Catch> {
    let (next, best) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    let caught = Mutex::new(BTreeMap::new());
    plant(Some(mutant));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds || seed > best.load(Ordering::Relaxed) {
                return;
            }
            if let Some(violation) = run(seed, target.focus.wish(), false, false).violation {
                best.fetch_min(seed, Ordering::Relaxed);
                if let Ok(mut caught) = caught.lock() {
                    caught.insert(seed, violation.rule);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    plant(None);
    let (seed, rule) = caught.into_inner().ok()?.pop_first()?;
    let clean_without = run(seed, target.focus.wish(), false, false).violation.is_none();
    Some(Catch { seed, rule, clean_without })
}

fn head() -> String {
    format!(
        "{:<24} {:<20} {:>6} {:>6}  {:<7} {}",
        "bug", "caught by", "seeds", "s", "rule", "what is planted"
    )
}

fn row(mutant: Mutant, found: Option<&Catch>, seeds: u64, seconds: f64) -> String {
    let (by, tried) = match found {
        Some(Catch { rule, seed, clean_without: true }) => (*rule, *seed),
        Some(Catch { seed, .. }) => ("A REAL BUG", *seed),
        None => ("SURVIVED", seeds),
    };
    let name = format!("{mutant:?}");
    let (section, text) = (mutant.section(), mutant.text());
    format!("{name:<24} {by:<20} {tried:>6} {seconds:>6.1}  {section:<7} {text}")
}

/// The story of one seed with the bug.
fn tell(seed: u64, mutant: Mutant, target: &Target) -> ExitCode {
    plant(Some(mutant));
    let outcome = run(seed, target.focus.wish(), true, false);
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
