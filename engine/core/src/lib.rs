//! The pure HA machine (see the walk in `machine.rs`).
#![no_std]
extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

/// Is this bug planted? `false`, at no cost, unless the simulator is built to check its checker (see `mutants.rs`).
#[cfg(not(steadfast_mutants))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
#[cfg(steadfast_mutants)]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_planted($crate::mutants::Mutant::$name)
    };
}

pub mod action;
mod arrival;
mod beats;
pub mod bounds;
mod brake;
mod brief;
mod budget;
mod candidacy;
pub mod config;
mod cycle;
pub mod decision;
mod departure;
mod disarm;
mod duty;
mod election;
mod enrolment;
pub mod event;
mod eviction;
pub mod feature_level;
mod flaps;
mod glance;
mod groups;
pub mod guest;
mod heartbeat;
pub mod host_shutdown;
pub mod ids;
pub mod invariants;
mod last_words;
mod lead;
mod lease;
pub mod ledger;
mod liveness;
pub mod machine;
mod maintenance;
mod membership;
pub mod message;
mod migration;
mod misplaced;
#[cfg(steadfast_mutants)]
pub mod mutants;
mod orders;
mod outbox;
pub mod page;
pub mod placement;
mod plan;
mod policy;
pub mod proactive;
mod promised;
mod question;
mod quorum;
mod recovery;
mod register;
mod report;
mod shutdown;
pub mod snapshot;
mod start_order;
mod starting;
pub mod step;
pub mod time;
pub mod timing_lint;
mod view;
mod watch;
mod what_if;
mod wishes;

#[cfg(test)]
#[path = "tests/cluster.rs"]
mod cluster;
#[cfg(test)]
#[path = "tests/kit.rs"]
mod kit;
#[cfg(test)]
#[path = "tests/stage.rs"]
mod stage;
