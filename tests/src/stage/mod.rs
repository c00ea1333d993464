//! A stage set for HA-watch's page: its API with made state of any size, on which failures can be played. It decides nothing and protects
//! nothing; it shows whether the page keeps up, and what it looks like.

mod answers;
mod made;
mod plays;
mod server;

#[path = "../../../engine/src/watch/page/mod.rs"]
#[allow(dead_code)]
mod page;

pub use server::{Stage, serve};
