//! The machine's state as people and the API see it.

use crate::beats::Heard;
use crate::election::Phase;
use crate::feature_level;
use crate::guest::GuestState;
use crate::ids::{NodeId, Stamp, VmId};
use crate::ledger::{Eviction, Ledger, VmEntry};
use crate::liveness::{facts_of, reason_words};
use crate::machine::Machine;
use crate::maintenance::is_emptied;
use crate::message::RiskReport;
use crate::plan::proof_words;
use crate::proactive::{self, Level, Mode};
use crate::snapshot::{
    BallotView, ElectionView, LeaseView, LedgerView, NodeName, NodeView, RiskView, Snapshot,
    Status, VmView,
};
use crate::start_order::held_by;
use crate::time::{Instant, Millis};
use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

/// HA guests here, and their states.
type Own = BTreeMap<VmId, GuestState>;

/// What a node says of itself that the ledger does not name.
const NOT_CONFIGURED: &str =
    "not configured in this cluster; `steadfast node add` on a member adds it";

impl Machine {
    /// The state, for people. `now` is own time.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let ledger = self.register.ledger();
        let known = self.register.known();
        // Once: of 10,000 VMs a quarter may be here.
        let own = self.guest_reports().into_iter().map(|report| (report.vm, report.state));
        let own: Own = own.collect();
        let vm = |entry| self.vm_view(entry, &ledger, &own, now);
        Snapshot {
            at: now,
            cluster: ledger.cluster.clone(),
            node: self.own_name(),
            leader: self.election.leader.map(|leader| name_of(&ledger, leader.who.node)),
            term: self.election.highest_term,
            ledger: LedgerView {
                stamp: known.map_or(Stamp::default(), |known| known.stamp),
                proved: known.is_some_and(|known| known.proved),
                promised: self.register.highest,
            },
            view: self.view.members.iter().copied().collect(),
            quorate: facts_of!(self, &ledger).view_may_act(),
            lease: self.lease_view(now),
            election: self.election_view(),
            nodes: self.nodes_shown(&ledger).map(|n| self.node_view(n, &ledger, now)).collect(),
            vms: ledger.vms.values().map(vm).collect(),
            disarm: ledger.disarm.clone(),
            feature_level: ledger.level,
        }
    }

    /// The ledger may not name this node yet, or not any more.
    fn own_name(&self) -> NodeName {
        NodeName { id: self.me(), name: self.config.name.clone() }
    }

    /// Every configured node, and this one.
    fn nodes_shown<'a>(&self, ledger: &'a Ledger) -> impl Iterator<Item = NodeId> + use<'a> {
        let stranger = Some(self.me()).filter(|me| !ledger.nodes.contains_key(me));
        ledger.nodes.keys().copied().chain(stranger)
    }

    fn lease_view(&self, now: Instant) -> LeaseView {
        let admitted = self.lease.admission().is_some();
        LeaseView {
            left: self.lease.left(&self.config, now).filter(|_| admitted),
            network_age: self.lease.network_age(now),
            storage_age: self.lease.storage_age(now),
            armed: self.lease.is_armed(&self.config, now),
            text: self.lease_text(now),
        }
    }

    fn lease_text(&self, now: Instant) -> String {
        if let Some(trouble) = &self.lease.watchdog_trouble {
            return alloc::format!("the watchdog does not work: {trouble}");
        }
        if let Some((eviction, _)) = self.lease.evicted() {
            return alloc::format!("evicted by {eviction}");
        }
        if !self.register.ledger().nodes.contains_key(&self.me()) {
            return NOT_CONFIGURED.into();
        }
        if self.lease.admission().is_none() {
            let why = self.register.why_unproved().or_else(|| self.heartbeat.trouble.clone());
            return why.unwrap_or_else(|| "not admitted yet".into());
        }
        if self.lease.is_good(&self.config, now) { "good".into() } else { "run out".into() }
    }

    fn election_view(&self) -> ElectionView {
        let election = &self.election;
        let ballot = |(node, ballot): (&NodeId, &crate::message::ElectionBallot)| BallotView {
            node: *node,
            priority: ballot.priority.clone(),
            decider: ballot.decider.clone(),
            eligible: ballot.eligible,
        };
        ElectionView {
            round: election.round,
            phase: self.phase_words().into(),
            reason: election.reason.clone(),
            ballots: election.ballots.iter().map(ballot).collect(),
            winner: election.winner,
        }
    }

    fn phase_words(&self) -> &'static str {
        match self.election.phase {
            Phase::Waiting => "waiting",
            Phase::Collecting => "collecting",
            Phase::Confirming => "confirming",
            Phase::Claiming => "claiming",
            Phase::Following if self.register.leading().is_some() => "leading",
            Phase::Following if self.election.leader.is_some() => "following",
            Phase::Following => "idle",
        }
    }

    fn node_view(&self, node: NodeId, ledger: &Ledger, now: Instant) -> NodeView {
        let heard = self.beats.heard(node);
        let seen = self.heartbeat.seen(node);
        let known = self.liveness.of(node);
        let status = known.map_or(Status::Joining, |known| known.status);
        let own = node == self.me();
        let writer = heard.map(|heard| heard.from).or(seen.map(|seen| seen.page.writer));
        NodeView {
            id: node,
            name: if own { self.config.name.clone() } else { ledger.name(node) },
            status,
            status_text: status.words().into(),
            reason: known.map_or_else(|| self.stranger_text(node), |known| known.reason.clone()),
            boot: writer.map(|writer| writer.boot),
            incarnation: writer.map(|writer| writer.incarnation),
            in_view: self.view.contains(node),
            beat_age: heard.map(|heard| now.since(heard.received)),
            page_age: seen.map(|seen| now.since(seen.first_shown)),
            lease_left: if own {
                self.lease_view(now).left
            } else {
                heard.and_then(|heard| lease_left_now(heard, now))
            },
            armed: heard.is_some_and(|heard| heard.beat.armed),
            verification: seen.and_then(|seen| seen.page.verification),
            facts: if own {
                self.own_facts()
            } else {
                heard.map(|heard| heard.beat.facts.clone()).unwrap_or_default()
            },
            policy: if own {
                self.policies.active
            } else {
                heard.map(|heard| heard.beat.policy).unwrap_or_default()
            },
            policies: if own {
                self.policies.staged
            } else {
                heard.map(|heard| heard.beat.policies).unwrap_or_default()
            },
            eviction: ledger.eviction(node).map(|e| self.eviction_text(node, e, ledger)),
            last_words: if own {
                self.last_words()
            } else {
                seen.and_then(|seen| seen.page.last_words.clone())
            },
            maintenance: ledger.nodes.get(&node).and_then(|entry| entry.maintenance.clone()),
            speaks: feature_level::spoken(node, &facts_of!(self, ledger)),
            leaving: ledger.nodes.get(&node).is_some_and(|entry| entry.leaving),
            risk: self.risk_view(node, ledger, now),
        }
    }

    /// Nothing, where nobody says anything of it.
    fn risk_view(&self, node: NodeId, ledger: &Ledger, now: Instant) -> Option<RiskView> {
        let settings = &self.config.limits.proactive;
        let told = if node == self.me() {
            self.own_risk_report()
        } else {
            let heard = self.beats.heard(node).filter(|heard| !heard.stale);
            let aged = |heard: &Heard| {
                let report = heard.beat.risk.clone()?;
                Some(RiskReport { age: report.age + now.since(heard.received), ..report })
            };
            heard.and_then(aged).filter(|report| report.age < settings.stale)
        };
        let hold = ledger.nodes.get(&node).and_then(|entry| entry.hold.clone());
        if told.is_none() && hold.is_none() {
            return None;
        }
        let leads = self.register.leading().is_some();
        let alone = told.as_ref().map_or(Level::Calm, |report| settings.level_of(report.score));
        let level = self.proactive.level(node).filter(|_| leads).unwrap_or(alone);
        let words = self.proactive.words(node).filter(|_| leads);
        let done = hold.as_ref().map(|hold| {
            alloc::format!(
                "it {} (risk {}: {})",
                proactive::words(hold.level, Mode::Drain),
                hold.score,
                hold.reason
            )
        });
        let text = [done, words].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(RiskView { report: told, hold, level, mode: settings.mode, text })
    }

    /// A node that the ledger does not name is not assessed.
    fn stranger_text(&self, node: NodeId) -> String {
        if node == self.me() { NOT_CONFIGURED.into() } else { String::new() }
    }

    fn eviction_text(&self, node: NodeId, eviction: &Eviction, ledger: &Ledger) -> String {
        let why = reason_words(eviction.reason);
        let next = match eviction.proof {
            Some(proof) => alloc::format!("proved: {}", proof_words(proof)),
            None => self.fencing.waits_for(node, eviction, ledger.nodes.len()),
        };
        alloc::format!("{why}; {next}")
    }

    fn vm_view(&self, entry: &VmEntry, ledger: &Ledger, own: &Own, now: Instant) -> VmView {
        let (state, reason) = self.vm_state(entry, ledger, own, now);
        VmView {
            id: entry.spec.id.clone(),
            name: entry.spec.name.clone(),
            owner: name_of(ledger, entry.owner),
            state: state.into(),
            reason,
            priority: entry.spec.priority,
            memory_mib: entry.spec.memory_mib,
            vcpus: entry.spec.vcpus,
            labels: entry.spec.labels.clone(),
            desired: entry.desired,
            migrating_to: entry.migration.as_ref().map(|to| name_of(ledger, to.to)),
            home: entry.home.map(|home| name_of(ledger, home)),
        }
    }

    fn vm_state(
        &self,
        entry: &VmEntry,
        ledger: &Ledger,
        own: &Own,
        now: Instant,
    ) -> (&'static str, String) {
        let vm = &entry.spec.id;
        if let Some(why) = &entry.failed {
            return ("failed", why.clone());
        }
        let waiting = self.recovery.waiting.get(vm).filter(|_| !self.runs(entry, ledger));
        if let Some(why) = waiting {
            return ("waiting", why.clone());
        }
        let frozen = entry.may_run() && ledger.is_freezing(entry.owner);
        if frozen && !self.runs(entry, ledger) {
            let host = ledger.name(entry.owner);
            return (
                "waiting",
                alloc::format!("the host {host} went down on purpose; it waits for it"),
            );
        }
        let orphan = ledger.eviction(entry.owner).filter(|_| entry.may_run());
        if let Some(eviction) = orphan {
            return ("orphan", self.eviction_text(entry.owner, eviction, ledger));
        }
        let heard = self.beats.heard(entry.owner);
        let state = if entry.owner == self.me() {
            own.get(vm)
        } else {
            let Some(heard) = heard else {
                return ("unknown", "its owner was not heard of yet".into());
            };
            let age = now.since(heard.received);
            if age >= self.config.timing.beat * 3 {
                return ("unknown", alloc::format!("its owner was last heard {age} ago"));
            }
            heard.report(vm).map(|report| &report.state)
        };
        match state {
            Some(GuestState::Running) => ("running", self.why_it_stays(entry, ledger)),
            Some(GuestState::Starting) => ("starting", String::new()),
            Some(GuestState::Stopping) => ("stopping", String::new()),
            Some(GuestState::GivenUp { .. }) if !entry.may_run() => {
                ("stopped", "an operator wants it off".into())
            }
            Some(GuestState::GivenUp { reason, .. }) => {
                let owner = ledger.name(entry.owner);
                ("orphan", alloc::format!("{owner} gave it up: {reason}; it gets another place"))
            }
            Some(GuestState::Expected { .. }) => ("stopped", "it is expected there".into()),
            Some(GuestState::Leaving) => ("migrating", String::new()),
            Some(GuestState::ShutDown { .. }) => ("stopped", "its guest shut itself down".into()),
            Some(GuestState::Departed { .. }) => ("migrating", "it left its node".into()),
            None if !entry.may_run() => ("stopped", "an operator wants it off".into()),
            None if let Some(why) = held_by(entry, &facts_of!(self, ledger)) => ("waiting", why),
            None => ("stopped", self.refused.get(vm).map_or(String::new(), ToString::to_string)),
        }
    }
}

impl Machine {
    fn runs(&self, entry: &VmEntry, ledger: &Ledger) -> bool {
        let state = facts_of!(self, ledger);
        state.state_of(entry.owner, &entry.spec.id) == Some(&GuestState::Running)
    }

    /// Why a VM that runs is still on a node that is to be emptied. What it waits for only the leader knows.
    fn why_it_stays(&self, entry: &VmEntry, ledger: &Ledger) -> String {
        let leaves = is_emptied(ledger, entry.owner) || ledger.drain_of(entry.owner).is_some();
        if !leaves || entry.migration.is_some() {
            return String::new();
        }
        let (vm, owner) = (&entry.spec.id, ledger.name(entry.owner));
        let why = match &self.election.leader {
            _ if ledger.disarm.is_some() => "HA is off, or will be".into(),
            _ if self.register.leading().is_some() => match self.recovery.waiting.get(vm) {
                Some(why) => why.clone(),
                None => self.migrations.why_not_yet(entry, &facts_of!(self, ledger)),
            },
            Some(leader) => {
                alloc::format!(
                    "ask {}, which leads, what it waits for",
                    ledger.name(leader.who.node)
                )
            }
            None => "nobody leads".into(),
        };
        alloc::format!("it is to leave {owner}: {why}")
    }
}

/// What is left of a node's lease by its last word, if it has heard nothing since.
fn lease_left_now(heard: &Heard, now: Instant) -> Option<Millis> {
    let (left, age) = (heard.beat.lease_left?, now.since(heard.received));
    (left > age).then(|| Millis(left.0 - age.0))
}

fn name_of(ledger: &Ledger, node: NodeId) -> NodeName {
    NodeName { id: node, name: ledger.name(node) }
}
