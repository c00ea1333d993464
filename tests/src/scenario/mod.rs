//! Stories: one a file in `tests/scenarios`, told to the simulator's world without any chance in it.
//!
//! A file begins with its title, a sentence, and whatever a reader should know, as comments. Then it says what there is, what
//! happens and what must come of it. Below `----` stands the log, which is an assertion too: `UPDATE_EXPECT=1 cargo test`
//! rewrites it, and its change is read in review. All checks of the simulator are made after every step; after the end all
//! faults are healed and everything must come right.
//!
//! ```text
//! # A member dies and its fence agent works: its VM runs elsewhere within seconds.
//! fence agents for all            what there is: `setup.rs`
//! vm web on n2
//! at 10s: power n2 off            what happens: `deed.rs`
//! expect web runs on n3 within 5s what must come of it: `condition.rs`
//! end 60s
//! ----
//!   10.0  >   power n2 off
//! ```
//!
//! A step happens at the same instant as the one before it, unless it is preceded by `at TIME:` (since the story's
//! beginning), `after TIME:` (since the step before), or `when CONDITION:` (at most two minutes later). The story begins when
//! everybody is admitted and every VM runs under HA, or, with `begin cold`, when the nodes are switched on.

pub mod condition;
pub mod deed;
pub mod files;
pub mod ledger;
pub mod log;
pub mod runner;
pub mod setup;
pub mod stage;
pub mod story;
pub mod vm;
pub mod watch;
pub mod wish;
pub mod words;
