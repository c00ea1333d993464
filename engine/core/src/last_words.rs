//! What a node says when its lease is over while HA VMs may still execute on it: it may be reset before anybody can ask.
//!
//! The words go to its page, where others see them if its storage works, to a record, and into the reason of a reset.

use crate::decision::Kind;
use crate::machine::Machine;
use crate::outbox::Note;
use crate::time::Millis;
use alloc::{string::String, vec::Vec};

/// VMs that are named.
const NAMED: usize = 5;
/// The words' length in bytes: a page has little room.
const LENGTH: usize = 400;

impl Machine {
    /// `None` while all is good: the lease is, or no HA VM can execute here, or HA is off.
    pub(crate) fn last_words(&self) -> Option<String> {
        let now = self.out.now;
        let calm = self.lease.is_good(&self.config, now)
            || !self.guests.may_execute()
            || self.is_disarmed()
            || self.may_be_disarmed();
        if calm {
            return None;
        }
        let age =
            |age: Option<Millis>| age.map_or("none".into(), |age| alloc::format!("{age} old"));
        let left = self.lease.deadline(&self.config).map(|deadline| deadline.since(now));
        let mut words = alloc::format!(
            "{}; network evidence {}, storage evidence {}; to be gone within {}: {}",
            self.why_over(),
            age(self.lease.network_age(now)),
            age(self.lease.storage_age(now)),
            left.unwrap_or_default(),
            self.who_may_execute()
        );
        let end = (0..=LENGTH).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
        words.truncate(end);
        Some(words)
    }

    fn why_over(&self) -> String {
        if let Some((eviction, _)) = self.lease.evicted() {
            return alloc::format!("evicted by {eviction}");
        }
        match self.lease.expires(&self.config) {
            Some(end) => alloc::format!("the lease is over for {}", self.out.now.since(end)),
            None => "there is no lease".into(),
        }
    }

    fn who_may_execute(&self) -> String {
        let present = self.guests.present_ha();
        let mut names: Vec<String> =
            present.iter().map(|vm| self.vm_name(vm)).take(NAMED).collect();
        match present.len() {
            0 => names.push("a start in flight".into()),
            all if all > NAMED => names.push(alloc::format!("{} more", all - NAMED)),
            _ => {}
        }
        names.join(", ")
    }

    /// Once each time that the lease ends over HA VMs.
    pub(crate) fn speak_if_stopping(&mut self) {
        let Some(words) = self.last_words() else {
            self.spoken = false;
            return;
        };
        if !core::mem::replace(&mut self.spoken, true) {
            self.out.record(Note::new(Kind::LastWords, "PROTOCOL 4", words).node(self.me()));
        }
    }

    /// After a boot: what this node said before. Not said once more.
    pub(crate) fn on_last_words_found(&mut self, text: String) {
        self.out.record(Note::new(Kind::Reset, "PROTOCOL 4", text).node(self.me()));
    }
}

#[cfg(test)]
#[path = "tests/last_words.rs"]
mod tests;
