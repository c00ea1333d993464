//! Steadfast's SDK for policy authors.
#![no_std]
extern crate alloc;
pub mod wire;
