//! The number of a VM in its question, by id: without a table, since the host asks in the order of ids and a verdict mostly goes
//! through the VMs in that order too, several times.

use alloc::string::String;

use crate::wire::VmFacts;
use crate::words::{Words, same};

/// So many VMs behind the last one that was found are looked at first.
const NEAR: usize = 32;

/// VMs of a question by their ids.
#[derive(Debug)]
pub(crate) struct Ids<'q> {
    vms: &'q [VmFacts],
    /// Behind the one that was found last.
    next: usize,
    /// Only where the VMs are not in the order of their ids.
    words: Option<Words<'q>>,
}

impl<'q> Ids<'q> {
    pub(crate) fn of(vms: &'q [VmFacts]) -> Self {
        let words = if vms.is_sorted_by(|one, other| one.id < other.id) {
            None
        } else {
            let mut words = Words::default();
            vms.iter().for_each(|vm| _ = words.add((&vm.id, "")));
            Some(words)
        };
        Self { vms, next: 0, words }
    }

    /// How many different ids there are.
    pub(crate) fn len(&self) -> usize {
        self.words.as_ref().map_or(self.vms.len(), |words| words.known().len())
    }

    /// Its number: less than [`Ids::len`], another for each id, and that in the question if all ids there differ.
    pub(crate) fn find(&mut self, id: &String) -> Option<usize> {
        if let Some(words) = &self.words {
            return words.find((id, ""));
        }
        let near = self.vms[self.next..].iter().take(NEAR).position(|vm| same(&vm.id, id));
        let found = match near {
            Some(behind) => self.next + behind,
            None => self.vms.binary_search_by(|vm| vm.id.cmp(id)).ok()?,
        };
        self.next = found + 1;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec::Vec};

    fn vms(ids: &[&str]) -> Vec<VmFacts> {
        ids.iter().map(|id| VmFacts { id: (*id).to_string(), ..VmFacts::default() }).collect()
    }

    #[test]
    fn vms_are_found_in_any_order_whatever_that_of_the_question_is() {
        let many: Vec<String> = (100..300).map(|number| number.to_string()).collect();
        let sorted: Vec<&str> = many.iter().map(String::as_str).collect();
        let mixed: Vec<&str> = (0..200).map(|at| sorted[at * 77 % 200]).collect();
        for asked in [vms(&sorted), vms(&mixed)] {
            let mut ids = Ids::of(&asked);
            for (number, vm) in asked.iter().enumerate().chain(asked.iter().enumerate().rev()) {
                assert_eq!(ids.find(&vm.id), Some(number));
            }
            assert_eq!((ids.len(), ids.find(&"1".to_string())), (200, None));
        }
    }

    #[test]
    fn an_id_that_comes_twice_counts_once() {
        let asked = vms(&["a", "b", "b", "c"]);
        let mut ids = Ids::of(&asked);
        assert_eq!((ids.len(), ids.find(&"c".to_string())), (3, Some(2)));
        assert_eq!((Ids::of(&[]).len(), Ids::of(&[]).find(&"c".to_string())), (0, None));
    }
}
