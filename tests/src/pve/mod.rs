//! `cargo sim import-pve DIR`: stories of another HA manager, told to our machines.
//!
//! DIR is a user's own checkout of pve-ha-manager's test folders; nothing of it is kept here. [`story`] reads a folder's input,
//! [`outcome`] reads what that project expects of it. What is compared is what an operator would notice: which nodes were cut
//! off, where each service ends and in which state, how long it was down.

pub mod outcome;
pub mod story;
