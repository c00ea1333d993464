//! A deterministic world that drives the shipped [`steadfast_core::machine::Machine`], unchanged.
//!
//! One seed decides everything: clocks, latencies, faults, configuration. The walk: [`plan`] draws a
//! configuration and a fault schedule, [`world`] runs it event by event, [`check`] judges after every
//! event, [`report`] tells the story of a failure.

pub mod agent;
pub mod aims;
pub mod calm;
pub mod chain;
pub mod check;
pub mod clock;
pub mod coverage;
pub mod faults;
pub mod fence;
pub mod focus;
pub mod host;
pub mod hypervisor;
pub mod members;
pub mod migration;
pub mod network;
pub mod node;
pub mod operator;
pub mod plan;
pub mod policy;
pub mod profiles;
pub mod queue;
pub mod report;
pub mod risk;
pub mod rng;
pub mod scenes;
pub mod script;
pub mod shots;
pub mod shrink;
pub mod shutdown;
pub mod storage;
pub mod strike;
pub mod swarm;
pub mod trace;
pub mod truth;
pub mod upgrade;
pub mod watchdog;
pub mod wishes;
pub mod words;
pub mod world;
