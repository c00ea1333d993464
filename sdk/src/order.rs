//! In which order VMs start: by priority, and none before those that it starts after.

use alloc::vec::Vec;

use crate::tally::place_in;
use crate::wire::{PlacementQuestion, VmFacts};
use crate::words::Words;

/// The VMs of the question: the highest priority first, equals by id, and each behind those of the question that it starts after,
/// which so start as early as the most urgent VM that needs them. VMs that wait for each other in a circle stand where the first of
/// them does.
///
/// ```
/// use steadfast_sdk::{fixture::Fixture, order};
/// let cluster = Fixture::cluster(1).vm("database").vm("shop").vm("mail");
/// let cluster = cluster.change("shop", |vm| vm.priority = 900).starts_after("shop", "database");
/// let asked = cluster.placement();
/// let names: Vec<_> = order::by_priority(&asked).iter().map(|vm| vm.name.as_str()).collect();
/// assert_eq!(names, ["database", "shop", "mail"]);
/// ```
#[must_use]
#[inline(never)]
pub fn by_priority(question: &PlacementQuestion) -> Vec<&VmFacts> {
    let vms = urgent_first(&question.vms);
    if vms.iter().any(|vm| !vm.after.is_empty()) { behind_their_own(&vms) } else { vms }
}

/// By priority, equals by id. The host asks in the order of ids: then only numbers are sorted.
fn urgent_first(vms: &[VmFacts]) -> Vec<&VmFacts> {
    let mut by_id: Vec<&VmFacts> = vms.iter().collect();
    if !vms.is_sorted_by(|one, other| one.id <= other.id) {
        by_id.clear();
        for vm in vms {
            // Not a sort: that is a tenth of a module's code, for what no host asks.
            by_id.insert(by_id.partition_point(|other| other.id <= vm.id), vm);
        }
    }
    let key = |(at, vm): (u64, &&VmFacts)| u64::from(u16::MAX - vm.priority) << 32 | at;
    let mut keys: Vec<u64> = (0..).zip(&by_id).map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| by_id[place_in(key) as usize]).collect()
}

/// The same VMs, each behind those that it starts after, which otherwise keep their order. No recursion: a chain of ten thousand VMs
/// must not end a module's stack.
#[inline(never)]
fn behind_their_own<'q>(vms: &[&'q VmFacts]) -> Vec<&'q VmFacts> {
    let mut places = Words::default();
    vms.iter().for_each(|vm| _ = places.add((&vm.id, "")));
    let needs = |at: usize| {
        let known = vms[at].after.iter().filter_map(|id| places.find((id, "")));
        let mut needs: Vec<u64> = known.map(|at| at as u64).collect();
        needs.sort_unstable();
        // The last one is looked at first.
        needs.into_iter().rev().map(|at| place_in(at) as usize).collect()
    };
    let mut seen = alloc::vec![false; vms.len()];
    let mut order = Vec::with_capacity(vms.len());
    for first in 0..vms.len() {
        let mut path = Vec::new();
        enter(first, &mut seen, &mut path, needs);
        while let Some((at, waits_for)) = path.last_mut() {
            match waits_for.pop() {
                Some(next) => enter(next, &mut seen, &mut path, needs),
                None => {
                    order.push(vms[*at]);
                    path.pop();
                }
            }
        }
    }
    order
}

fn enter(
    at: usize,
    seen: &mut [bool],
    path: &mut Vec<(usize, Vec<usize>)>,
    needs: impl Fn(usize) -> Vec<usize>,
) {
    if !core::mem::replace(&mut seen[at], true) {
        path.push((at, needs(at)));
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String};

    use super::*;
    use crate::fixture::Fixture;

    fn names(cluster: &Fixture) -> Vec<String> {
        by_priority(&cluster.placement()).iter().map(|vm| vm.name.clone()).collect()
    }

    fn vms(many: u16) -> Fixture {
        (0..many).fold(Fixture::cluster(0), |cluster, at| cluster.vm(&format!("v{at}")))
    }

    #[test]
    fn urgent_vms_come_first_and_equals_by_id() {
        let cluster = vms(3).change("v2", |vm| vm.priority = 900);
        assert_eq!(names(&cluster), ["v2", "v0", "v1"]);
    }

    #[test]
    fn what_an_urgent_vm_needs_starts_before_everything_less_urgent() {
        let cluster = vms(4).change("v3", |vm| vm.priority = 900).starts_after("v3", "v2");
        assert_eq!(names(&cluster.starts_after("v2", "v1")), ["v1", "v2", "v3", "v0"]);
    }

    #[test]
    fn a_vm_that_is_not_asked_about_holds_nobody() {
        let cluster = vms(2).change("v0", |vm| _ = vm.after.insert("elsewhere".into()));
        assert_eq!(names(&cluster), ["v0", "v1"]);
    }

    #[test]
    fn a_circle_is_no_end_of_it_and_every_vm_stands_there_once() {
        let cluster = vms(3).starts_after("v0", "v1").starts_after("v1", "v2");
        assert_eq!(names(&cluster.starts_after("v2", "v0")), ["v2", "v1", "v0"]);
        assert_eq!(names(&vms(2).starts_after("v1", "v1")), ["v0", "v1"]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain = (1..5_000_u32).fold(PlacementQuestion::default(), |mut question, number| {
            let mut vm = crate::generate::modest(number);
            vm.after = [crate::generate::uuid(number + 1)].into();
            question.vms.push(vm);
            question
        });
        let order = by_priority(&chain);
        assert_eq!((order.len(), &order[0].id), (4_999, &crate::generate::uuid(4_999)));
    }
}
