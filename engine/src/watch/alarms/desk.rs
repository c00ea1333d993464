//! Which alarms there are. Pure: time comes from outside.

use super::conditions::{Found, patience};
use super::{Alarm, Rule, Told};
use crate::watch::config::RuleSettings;
use std::collections::BTreeMap;

/// What comes back within this after it was over is the same alarm, and nobody is told again.
const CALM_MS: u64 = 10_000;
/// Alarms that are over and still shown.
const RECENT: usize = 200;

/// What a look changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) raised: Vec<Alarm>,
    pub(super) resolved: Vec<Alarm>,
}

type Key = (String, Rule, String);

#[derive(Debug, Default)]
pub(super) struct Desk {
    next: i64,
    alarms: BTreeMap<i64, Alarm>,
    /// Conditions that do not last long enough yet, and since when they do.
    pending: BTreeMap<Key, u64>,
    /// Alarms whose condition is gone, and since when.
    fading: BTreeMap<i64, u64>,
}

impl Desk {
    pub(super) fn new(alarms: Vec<Alarm>, next: i64) -> Self {
        let alarms = alarms.into_iter().map(|alarm| (alarm.id, alarm)).collect();
        Self { next, alarms, ..Self::default() }
    }

    /// Newest first.
    pub(super) fn all(&self) -> Vec<Alarm> {
        self.alarms.values().rev().cloned().collect()
    }

    pub(super) fn count_open(&self, cluster: &str) -> usize {
        self.alarms.values().filter(|alarm| alarm.cluster == cluster && alarm.is_open()).count()
    }

    /// What is wrong with a cluster now.
    pub(super) fn look(
        &mut self,
        cluster: &str,
        found: &Found,
        rules: &RuleSettings,
        now: u64,
    ) -> Changes {
        let mut changes = Changes::default();
        for ((rule, subject), text) in &found.conditions {
            changes.raised.extend(self.see((cluster, *rule, subject), text, rules, now));
        }
        self.pending.retain(|(of, rule, subject), _| {
            of != cluster || found.conditions.contains_key(&(*rule, subject.clone()))
        });
        let gone: Vec<i64> = (self.alarms.values())
            .filter(|alarm| alarm.cluster == cluster && alarm.resolved_wall_ms.is_none())
            .filter(|alarm| found.is_gone(alarm))
            .map(|alarm| alarm.id)
            .collect();
        for id in gone {
            changes.resolved.extend(self.fade(id, now));
        }
        self.forget();
        changes
    }

    /// The alarm, if this raises one.
    fn see(
        &mut self,
        (cluster, rule, subject): (&str, Rule, &str),
        text: &str,
        rules: &RuleSettings,
        now: u64,
    ) -> Option<Alarm> {
        let known = self.alarms.values_mut().rev().find(|alarm| {
            alarm.cluster == cluster
                && alarm.rule == rule.name()
                && alarm.subject == subject
                // What was called impossible happened once, and is one alarm for good.
                && (alarm.resolved_wall_ms.is_none() || rule == Rule::Impossible)
        });
        if let Some(alarm) = known {
            if rule != Rule::Impossible {
                self.fading.remove(&alarm.id);
            }
            alarm.text = text.into();
            return None;
        }
        let key = (cluster.to_string(), rule, subject.to_string());
        let since = *self.pending.entry(key.clone()).or_insert(now);
        let needed = u64::try_from(patience(rule, rules).as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(since) < needed {
            return None;
        }
        self.pending.remove(&key);
        let alarm = Alarm {
            id: self.next,
            cluster: cluster.into(),
            rule: rule.name().into(),
            subject: subject.into(),
            text: text.into(),
            severity: rule.severity().into(),
            raised_wall_ms: now,
            ..Alarm::default()
        };
        self.next += 1;
        self.alarms.insert(alarm.id, alarm.clone());
        Some(alarm)
    }

    /// Its condition is gone: over when it stays so.
    fn fade(&mut self, id: i64, now: u64) -> Option<Alarm> {
        let since = *self.fading.entry(id).or_insert(now);
        if now.saturating_sub(since) < CALM_MS {
            return None;
        }
        self.fading.remove(&id);
        let alarm = self.alarms.get_mut(&id)?;
        alarm.resolved_wall_ms = Some(since);
        Some(alarm.clone())
    }

    /// Somebody takes care: nobody is reminded any more. What has no end by itself is over with it.
    pub(super) fn acknowledge(&mut self, id: i64, by: &str, now: u64) -> Option<Alarm> {
        let alarm = self.alarms.get_mut(&id)?;
        if alarm.acknowledged_wall_ms.is_none() {
            alarm.acknowledged_wall_ms = Some(now);
            alarm.acknowledged_by = Some(by.into());
        }
        Some(alarm.clone())
    }

    /// Notes what a receiver was told.
    pub(super) fn note_told(
        &mut self,
        ids: &[i64],
        receiver: &str,
        note: impl Fn(&mut Told),
    ) -> Vec<Alarm> {
        let mut changed = Vec::new();
        for id in ids {
            let Some(alarm) = self.alarms.get_mut(id) else { continue };
            let told = alarm.told.entry(receiver.into()).or_default();
            let before = told.clone();
            note(told);
            if *told != before {
                changed.push(alarm.clone());
            }
        }
        changed
    }

    fn forget(&mut self) {
        let over: Vec<i64> = (self.alarms.values())
            .filter(|alarm| alarm.resolved_wall_ms.is_some())
            .map(|alarm| alarm.id)
            .collect();
        for id in &over[..over.len().saturating_sub(RECENT)] {
            self.alarms.remove(id);
        }
    }
}

impl Found {
    /// What the alarm is about is not so any more. Of a cluster that nobody sees, nothing is known.
    fn is_gone(&self, alarm: &Alarm) -> bool {
        let Some(rule) = Rule::find(&alarm.rule) else { return true };
        if !self.sees && rule != Rule::Unreachable {
            return false;
        }
        // What is called impossible has no end by itself: a person says so.
        if rule == Rule::Impossible {
            return alarm.acknowledged_wall_ms.is_some();
        }
        !self.conditions.contains_key(&(rule, alarm.subject.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(conditions: &[(Rule, &str)]) -> Found {
        let conditions = conditions.iter();
        let conditions = conditions.map(|(rule, name)| ((*rule, (*name).into()), "text".into()));
        Found { sees: true, conditions: conditions.collect() }
    }

    fn look(desk: &mut Desk, conditions: &[(Rule, &str)], now: u64) -> (usize, usize) {
        let changes = desk.look("c", &found(conditions), &RuleSettings::default(), now);
        (changes.raised.len(), changes.resolved.len())
    }

    #[test]
    fn an_alarm_is_raised_once_and_resolved_when_it_is_over_for_good() {
        let mut desk = Desk::new(Vec::new(), 5);
        let down = [(Rule::NodeDown, "n2")];
        assert_eq!(look(&mut desk, &down, 1_000), (1, 0));
        assert_eq!(look(&mut desk, &down, 2_000), (0, 0));
        assert_eq!(look(&mut desk, &[], 3_000), (0, 0), "it may come back");
        assert_eq!(look(&mut desk, &down, 4_000), (0, 0), "the same alarm");
        assert_eq!(look(&mut desk, &[], 5_000), (0, 0));
        assert_eq!(look(&mut desk, &[], 15_000), (0, 1));
        let all = desk.all();
        assert_eq!((all.len(), all[0].id, all[0].resolved_wall_ms), (1, 5, Some(5_000)));
        assert_eq!(look(&mut desk, &down, 16_000), (1, 0), "another one");
        assert_eq!((desk.all()[0].id, desk.count_open("c")), (6, 1));
    }

    #[test]
    fn a_vm_that_starts_soon_is_no_alarm() {
        let mut desk = Desk::default();
        let down = [(Rule::VmDown, "web")];
        assert_eq!(look(&mut desk, &down, 0), (0, 0));
        assert_eq!(look(&mut desk, &down, 29_999), (0, 0));
        assert_eq!(look(&mut desk, &[], 30_000), (0, 0));
        assert_eq!(look(&mut desk, &down, 31_000), (0, 0), "it counts from the beginning");
        assert_eq!(look(&mut desk, &down, 61_000), (1, 0));
    }

    #[test]
    fn nothing_is_resolved_while_nobody_sees() {
        let mut desk = Desk::default();
        look(&mut desk, &[(Rule::NodeDown, "n2")], 0);
        let mut blind = found(&[(Rule::Unreachable, "")]);
        blind.sees = false;
        let rules = RuleSettings::default();
        desk.look("c", &blind, &rules, 20_000);
        let changes = desk.look("c", &blind, &rules, 40_000);
        assert_eq!((changes.raised.len(), changes.resolved.len()), (1, 0));
        assert_eq!(look(&mut desk, &[], 50_000), (0, 0));
        assert_eq!(look(&mut desk, &[], 61_000), (0, 2));
    }

    #[test]
    fn after_a_restart_nobody_is_told_twice() {
        let mut before = Desk::default();
        look(&mut before, &[(Rule::NodeDown, "n2")], 0);
        let mut after = Desk::new(before.all(), 9);
        assert_eq!(look(&mut after, &[(Rule::NodeDown, "n2")], 1_000), (0, 0));
    }

    #[test]
    fn who_acknowledges_is_remembered_and_the_first_one_counts() {
        let mut desk = Desk::default();
        look(&mut desk, &[(Rule::Impossible, "n1-5-1")], 0);
        assert_eq!(look(&mut desk, &[], 60_000), (0, 0), "it has no end by itself");
        assert!(desk.acknowledge(7, "anna", 1).is_none());
        desk.acknowledge(0, "anna", 61_000);
        let alarm = desk.acknowledge(0, "bert", 62_000).expect("there");
        assert_eq!(alarm.acknowledged_by.as_deref(), Some("anna"));
        assert_eq!(desk.count_open("c"), 0);
        let still = [(Rule::Impossible, "n1-5-1")];
        look(&mut desk, &still, 63_000);
        assert_eq!(look(&mut desk, &still, 73_000), (0, 1));
        assert_eq!(look(&mut desk, &still, 90_000), (0, 0), "it is one alarm for good");
    }
}
