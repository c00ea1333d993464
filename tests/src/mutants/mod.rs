//! The checker is checked: `cargo sim mutants` plants one bug after the other in the core, and the simulator must catch each
//! within a bounded number of seeds. The bugs are in `engine/core/src/mutants.rs`; [`targets`] says which faults
//! aim at each. The ordinary `sim` knows no bugs: it builds itself anew with them, apart, and hands over.

#[cfg(not(steadfast_mutants))]
mod build;
#[cfg(steadfast_mutants)]
mod hunt;
pub mod targets;

use crate::sim::focus::Focus;
use crate::sim::profiles;
use std::process::ExitCode;

/// Seeds that one bug may take at most.
pub const SEEDS: u64 = 3_000;

const USAGE: &str =
    "usage: cargo sim mutants [--only NAME,..] [--seeds MAX] [--from SEED] [--seed N] [--focus F]
  --only NAME   these planted bugs alone
  --seeds MAX   give up after so many seeds each (3000)
  --from SEED   begin with this one (1): how much is luck?
  --seed N      with one --only: the story of one seed
  --focus F     hunt with this profile of faults instead of each one's own";

/// What the command line says.
#[derive(Debug)]
pub struct Arguments {
    /// These bugs alone; empty: all.
    pub only: Vec<String>,
    /// Seeds to try for each.
    pub seeds: u64,
    /// The first of them.
    pub from: u64,
    /// The story of this seed.
    pub seed: Option<u64>,
    /// A profile of faults for all.
    pub focus: Option<Focus>,
}

/// `cargo sim mutants`.
#[must_use]
pub fn main(words: Vec<String>) -> ExitCode {
    let Some(arguments) = parse(words.iter().cloned()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    #[cfg(not(steadfast_mutants))]
    let done = build::hand_over(&arguments, &words);
    #[cfg(steadfast_mutants)]
    let done = hunt::run_hunts(&arguments);
    done.unwrap_or_else(|why| {
        eprintln!("{why}");
        ExitCode::from(2)
    })
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments =
        Arguments { only: Vec::new(), seeds: SEEDS, from: 1, seed: None, focus: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => arguments.only = words.next()?.split(',').map(String::from).collect(),
            "--seeds" => arguments.seeds = words.next()?.parse().ok()?,
            "--from" => arguments.from = words.next()?.parse().ok()?,
            "--focus" => arguments.focus = Some(profiles::find(&words.next()?)?),
            "--seed" => arguments.seed = Some(words.next()?.parse().ok()?),
            _ => return None,
        }
    }
    (arguments.seed.is_none() || arguments.only.len() == 1).then_some(arguments)
}
