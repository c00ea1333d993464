//! What a machine makes of a storage cycle, complete or not. Whole cycles through the pipeline are in `heartbeat.rs`'s tests.

use crate::cluster::Cluster;
use crate::ids::Digest;
use crate::kit::{admitted, cycle, evict, id, page, pages, stamp};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::page::Page;
use std::vec::Vec;

#[test]
fn a_body_that_names_an_unread_page_still_bars_whom_it_evicts() {
    let mut cluster = Cluster::with_vm(|_| {});
    let machine = &mut cluster.members.get_mut(&2).unwrap().machine;
    let heard = |machine: &mut Machine| -> Vec<u32> {
        let now = machine.out.now;
        let (_, echoes) = machine.beats.begin_beat(&machine.config, now);
        echoes.iter().map(|echo| echo.node.0).collect()
    };
    assert!(heard(machine).contains(&3));

    let since = stamp(9, 1, 99);
    let mut ledger = Ledger { nodes: admitted(4).nodes, ..Ledger::clone(&machine.ledger()) };
    evict(&mut ledger, 3, since);
    let bytes = ledger.encode();
    let writer = Page { accepted: since, digest: Digest::of(&bytes), ..page(1, 1) };
    let now = machine.out.now.0;
    let shown = cycle(now, now, &pages([writer]));
    machine.wanted = machine.register.wanted(&shown.pages);
    assert!(machine.wanted.is_some(), "the newest body is to be read");
    machine.on_body(shown, Ok(bytes));
    assert!(machine.heartbeat.slots.contains(&id(4)), "n4's page is read from now on");
    assert_eq!(heard(machine), [1], "n3 is barred by the rumour, whatever became of the cycle");
}
