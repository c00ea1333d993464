//! The source of a live migration: hands the guest over on the leader's order, and gives the ownership up once the guest has left.
//!
//! Why a VM still never runs twice: the source owns the VM until the ledger says otherwise. It says *departed* only when libvirt called
//! the migration a success *and* a scan begun after that shows no process, and having said so it never starts the VM again
//! under that ownership; its next incarnation starts it only on an order, which no leader gives while a migration or a commit that
//! rests on that word is under way. Until libvirt's word has come, a process that is gone is not replaced.
//! Each migration is tried once, by the incarnation that saw it begin: a copy of an earlier attempt never meets a later one.

use crate::action::Action;
use crate::decision::Kind;
use crate::guest::Ending;
use crate::ids::{Stamp, VmId};
use crate::ledger::{Ledger, Migration, VmEntry};
use crate::machine::Machine;
use crate::message::MigrateOrder;
use crate::outbox::Note;
use crate::time::{Instant, Millis};
use alloc::{collections::BTreeMap, string::String, vec::Vec};

/// An order not carried out within this is forgotten; the leader repeats what it still wants.
const ORDER_LIMIT: Millis = Millis(10_000);
/// A migration that was called off and does not end is aborted again after this.
const ABORT_AGAIN: Millis = Millis(5_000);
/// libvirt has not said how a migration ended that was called off so long ago, and the process is gone: so be it.
const SILENCE_LIMIT: Millis = Millis(60_000);
/// A process that lingers so long after a successful migration is destroyed: its guest is paused, and complete elsewhere.
const LINGER_LIMIT: Millis = Millis(10_000);

/// A guest on its way to another node.
#[derive(Debug)]
struct Departure {
    /// The commit that began it.
    migration: Stamp,
    /// The ownership that is given up with it.
    ownership: Stamp,
    /// What libvirt said in the end, and when.
    ended: Option<(Result<(), String>, Instant)>,
    /// It was read that the migration is off then.
    off: Option<Instant>,
    aborted: Option<Instant>,
}

/// Guests that leave this node.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    ordered: BTreeMap<VmId, (MigrateOrder, Instant)>,
    under_way: BTreeMap<VmId, Departure>,
    /// The last migration of each VM that was tried here.
    tried: BTreeMap<VmId, Stamp>,
    /// Migrations of an earlier incarnation, called off here.
    disowned: BTreeMap<VmId, Stamp>,
}

impl Departures {
    /// The guest is on its way, or its migration has not been accounted for yet.
    pub fn is_leaving(&self, vm: &VmId) -> bool {
        self.under_way.contains_key(vm)
    }

    pub fn forget_orders(&mut self) {
        self.ordered.clear();
    }
}

/// How a migration came out.
enum Outcome {
    /// Nothing is certain yet.
    Open,
    Left,
    Lingers,
    Failed(String),
    /// No process, no success.
    Lost(String),
}

impl Machine {
    pub(crate) fn on_migrate_order(&mut self, order: MigrateOrder) {
        // Orders of an older term, or to another incarnation, are refused.
        if order.to != self.config.me || order.term < self.election.highest_term {
            return;
        }
        self.election.highest_term = order.term;
        self.register.on_committed_heard(order.stamp);
        self.heartbeat.hurry(self.out.now, Millis(0));
        let now = self.out.now;
        self.departures.ordered.insert(order.vm.clone(), (order, now));
    }

    /// Carries out orders to migrate, if the ledger read with proof says the same.
    pub(crate) fn migrate_ordered(&mut self) {
        let now = self.out.now;
        self.departures.ordered.retain(|_, (_, received)| now.since(*received) < ORDER_LIMIT);
        let Some(known) = self.register.proved().filter(|known| !known.ledger.is_off()) else {
            return;
        };
        let (stamp, ledger) = (known.stamp, known.ledger.clone());
        for vm in self.departures.ordered.keys().cloned().collect::<Vec<_>>() {
            let Some((order, _)) = self.departures.ordered.get(&vm) else { continue };
            if order.stamp > stamp || order.term < self.election.highest_term {
                continue;
            }
            let since = order.since;
            self.departures.ordered.remove(&vm);
            if let Some((entry, migration)) = self.to_leave(&vm, since, &ledger) {
                self.depart(entry, migration, &ledger);
            }
        }
    }

    /// The VM may leave by this very migration: it is this node's, runs here, and nobody has tried before.
    fn to_leave<'a>(
        &self,
        vm: &VmId,
        since: Stamp,
        ledger: &'a Ledger,
    ) -> Option<(&'a VmEntry, &'a Migration)> {
        let entry = ledger.vms.get(vm)?;
        let migration = entry.migration.as_ref().filter(|migration| migration.since == since)?;
        let fresh = self.born.is_some_and(|born| born < since)
            && self.departures.tried.get(vm) != Some(&since);
        let runs = self.guests.is_present(vm)
            && !self.guests.is_destroying(vm)
            && !self.guests.is_starting(vm)
            && !self.shutdowns.is_asked(vm);
        let mine = entry.owner == self.me() && entry.may_run_here();
        (fresh && runs && mine && !self.departures.is_leaving(vm)).then_some((entry, migration))
    }

    fn depart(&mut self, entry: &VmEntry, migration: &Migration, ledger: &Ledger) {
        let vm = &entry.spec.id;
        let not_after = match self.lease.may_start(&self.config, self.out.now) {
            Ok(not_after) => not_after,
            Err(why) => return self.refuse(vm, why),
        };
        let (to, name) = (migration.to, ledger.name(migration.to));
        let text = alloc::format!("{} leaves for {name}: {}", entry.spec.name, migration.reason);
        self.tell_migration(vm, text);
        let departure = Departure {
            migration: migration.since,
            ownership: entry.since,
            ended: None,
            off: None,
            aborted: None,
        };
        self.departures.tried.insert(vm.clone(), migration.since);
        self.departures.under_way.insert(vm.clone(), departure);
        self.beats.next = self.out.now;
        self.out.push(Action::MigrateVm { vm: vm.clone(), to, name, not_after });
    }

    pub(crate) fn on_migration_ended(&mut self, vm: &VmId, result: Result<(), String>) {
        let now = self.out.now;
        if let Some(departure) = self.departures.under_way.get_mut(vm) {
            departure.ended = Some((result, now));
            self.guests.disturb(now);
            self.guests.scan_if(true, &mut self.out);
        }
    }

    /// Accounts for migrations that ended, and aborts those that are off.
    pub(crate) fn watch_departures(&mut self) {
        if let Some(known) = self.register.proved() {
            let ledger = known.ledger.clone();
            self.call_off_departures(&ledger);
            if self.brief.read(&ledger, self.config.me.node).moves {
                self.disown_migrations(&ledger);
            }
        }
        for vm in self.departures.under_way.keys().cloned().collect::<Vec<_>>() {
            match self.outcome(&vm) {
                Outcome::Open => {}
                Outcome::Left => self.give_up_departed(&vm),
                Outcome::Lingers => {
                    let why = "its guest has left, its process lingers";
                    self.guests.destroy(&vm, why, &mut self.out);
                }
                Outcome::Failed(why) => {
                    self.departures.under_way.remove(&vm);
                    self.beats.next = self.out.now;
                    let text = alloc::format!("{} stays here: {why}", self.vm_name(&vm));
                    self.tell_migration(&vm, text);
                }
                Outcome::Lost(why) => {
                    self.departures.under_way.remove(&vm);
                    let window = self.config.limits.budget_window;
                    self.guests.on_exited(&vm, true, window, self.out.now);
                    let text = alloc::format!("{} was lost as it left: {why}", self.vm_name(&vm));
                    self.tell_migration(&vm, text);
                }
            }
        }
    }

    fn outcome(&mut self, vm: &VmId) -> Outcome {
        let Some(departure) = self.departures.under_way.get(vm) else { return Outcome::Open };
        let now = self.out.now;
        if self.guests.is_uncertain(vm) {
            self.guests.scan_if(self.scan_is_old(), &mut self.out);
            return Outcome::Open;
        }
        match (&departure.ended, self.guests.is_present(vm)) {
            (Some((Ok(()), _)), false) => Outcome::Left,
            (None, false) if mutant!(DepartedWithoutWord) => Outcome::Left,
            (Some((Ok(()), at)), true) if now.since(*at) >= LINGER_LIMIT => Outcome::Lingers,
            (Some((Err(why), _)), true) => Outcome::Failed(why.clone()),
            (Some((Err(why), _)), false) => Outcome::Lost(why.clone()),
            (None, false) if departure.off.is_some_and(|at| now.since(at) >= SILENCE_LIMIT) => {
                Outcome::Lost("libvirt did not say how it ended".into())
            }
            _ => Outcome::Open,
        }
    }

    /// The guest has left. While the migration stands the target may go on with it; otherwise it starts here again.
    fn give_up_departed(&mut self, vm: &VmId) {
        let Some(known) = self.register.proved() else { return };
        let Some(departure) = self.departures.under_way.get(vm) else { return };
        let entry = known.ledger.vms.get(vm).filter(|entry| entry.since == departure.ownership);
        let migration = entry.and_then(|entry| entry.migration.as_ref());
        let stands = migration.is_some_and(|migration| migration.since == departure.migration);
        let ownership = departure.ownership;
        self.departures.under_way.remove(vm);
        let name = self.vm_name(vm);
        self.beats.next = self.out.now;
        if stands {
            self.guests.end(vm, ownership, Ending::Departed);
            self.tell_migration(vm, alloc::format!("{name} has left"));
        } else {
            let text = alloc::format!("{name} has left for a target that does not expect it");
            self.tell_migration(vm, text);
        }
    }

    /// The ledger read with proof does not know the migration any more.
    fn call_off_departures(&mut self, ledger: &Ledger) {
        let now = self.out.now;
        for (vm, departure) in &mut self.departures.under_way {
            let entry = ledger.vms.get(vm).filter(|entry| entry.owner == self.config.me.node);
            let migration = entry.and_then(|entry| entry.migration.as_ref());
            if migration.is_some_and(|migration| migration.since == departure.migration) {
                continue;
            }
            departure.off.get_or_insert(now);
            let again = departure.aborted.is_none_or(|at| now.since(at) >= ABORT_AGAIN);
            if departure.ended.is_none() && again {
                departure.aborted = Some(now);
                self.out.push(Action::AbortMigration { vm: vm.clone() });
            }
        }
    }

    /// What an earlier incarnation began is not this one's to finish: the leader calls it off.
    fn disown_migrations(&mut self, ledger: &Ledger) {
        let Some(born) = self.born else { return };
        for (vm, entry) in ledger.owned_by(self.config.me.node) {
            let Some(migration) = entry.migration.as_ref().filter(|m| m.since <= born) else {
                continue;
            };
            if self.departures.disowned.insert(vm.clone(), migration.since) != Some(migration.since)
            {
                self.out.push(Action::AbortMigration { vm: vm.clone() });
            }
        }
    }

    pub(crate) fn tell_migration(&mut self, vm: &VmId, text: String) {
        let note = Note::new(Kind::Migration, "PROTOCOL 7", text);
        self.out.record(note.vm(vm).node(self.config.me.node));
    }
}

#[cfg(test)]
#[path = "tests/departure.rs"]
mod tests;
