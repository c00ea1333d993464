//! `steadfast hook`: what libvirt's script calls. Says nothing but why a VM may not start: libvirt reads what it
//! prints.

use super::args::Hook;
use super::client::Failure;
use crate::hook::{Operation, Places, ask::ask};
use std::io::Read as _;

pub(super) fn run(hook: &Hook) -> Result<(), Failure> {
    let Hook { socket, list, starts, name, operation } = hook;
    let Ok(operation) = operation.parse::<Operation>() else { return Ok(()) };
    let (socket, list, starts) = (socket.clone(), list.clone(), starts.clone());
    let mut xml = Vec::new();
    // What could be read of it will do; without any the name has to.
    let _ = std::io::stdin().lock().read_to_end(&mut xml);
    let places = Places { socket, list, starts };
    ask(&places, operation, name, &String::from_utf8_lossy(&xml)).map_err(Failure::Usage)
}
