//! What a node says before it goes.

use super::*;
use crate::cluster::Cluster;
use crate::event::Event;
use crate::ids::NodeId;
use crate::kit::{at, id};
use std::string::String;
use std::vec::Vec;

/// n3 runs `db`, which cannot be destroyed.
fn hanging() -> Cluster {
    let mut cluster = Cluster::with_vm(|config| {
        config.fence_agents = Default::default();
        config.verification = true;
    });
    cluster.guests_hang = true;
    cluster
}

/// What `node` shows of `other`'s last words.
fn shown(cluster: &Cluster, node: u32, other: NodeId) -> Option<String> {
    let snapshot = cluster.members[&node].machine.snapshot(at(cluster.now));
    snapshot.nodes.into_iter().find(|view| view.id == other).unwrap().last_words
}

#[test]
fn a_node_that_keeps_its_lease_or_runs_nothing_says_nothing() {
    let mut cluster = hanging();
    cluster.run(30_000);
    // n2 runs nothing: losing its lease is nobody's harm.
    cluster.split(&[&[1, 3], &[2]], 100);
    cluster.storage(2, false);
    cluster.run(30_000);
    assert_eq!((cluster.last_words.len(), shown(&cluster, 3, id(3))), (0, None));
}

#[test]
fn a_node_that_lost_both_channels_says_how_long_ago_and_why_it_resets_itself() {
    let mut cluster = hanging();
    cluster.split(&[&[1, 2], &[3]], 100);
    cluster.storage(3, false);
    cluster.run(7_000);
    let own = shown(&cluster, 3, id(3)).expect("its lease is over");
    assert!(own.starts_with("the lease is over for "), "{own}");
    assert!(own.contains("network evidence ") && own.contains("storage evidence "), "{own}");
    assert!(own.contains("to be gone within ") && own.ends_with(": db"), "{own}");
    cluster.run(10_000);
    let told: Vec<&(u32, String)> = cluster.last_words.iter().collect();
    let [(3, first), (3, reset)] = told[..] else { panic!("{told:?}") };
    assert!(first.starts_with("the lease is over for 0 ms; "), "{first}");
    assert!(reset.starts_with("HA VMs could not be proved gone"), "{reset}");
    assert!(reset.contains("storage evidence ") && reset.ends_with(": db"), "{reset}");
    assert_eq!(cluster.resets, [3]);
}

#[test]
fn others_read_the_last_words_of_a_node_on_its_page() {
    let mut cluster = hanging();
    // Its disk works: it reads that it is evicted, and cannot stop its VM.
    cluster.split(&[&[1, 2], &[3]], 100);
    for node in [1, 2, 3] {
        let reachable = node != 3;
        cluster.later(node, 1, Event::VerificationChecked { reachable });
    }
    cluster.run(40_000);
    assert_eq!(cluster.resets, [3]);
    let words = shown(&cluster, 1, id(3)).expect("they are on its page");
    assert!(words.starts_with("evicted by ") && words.ends_with(": db"), "{words}");
}

#[test]
fn last_words_are_short_enough_for_a_page() {
    let mut cluster = hanging();
    for number in 0..9 {
        let mut spec = crate::kit::spec(&alloc::format!("vm{number}"));
        spec.name = alloc::format!("{number}{}", "n\u{f6}".repeat(60));
        cluster.executing.insert((spec.id.clone(), 3));
        cluster.enable(spec);
    }
    cluster.split(&[&[1, 2], &[3]], 100);
    cluster.storage(3, false);
    cluster.run(7_000);
    let words = shown(&cluster, 3, id(3)).unwrap();
    assert!((350..=LENGTH).contains(&words.len()), "{}: {words}", words.len());
}
