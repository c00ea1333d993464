//! What a step says: actions in order, and records that explain them.

use crate::action::Action;
use crate::decision::{Decision, Kind, PolicyRecord, Reasons};
use crate::ids::{Identity, NodeId, Stamp, VmId};
use crate::message::{Body, MESSAGE_FORMAT, Message};
use crate::time::Instant;
use alloc::{boxed::Box, string::String, vec::Vec};

/// Collects the actions of one step. Lives as long as the machine, for its counters.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Own time of the step.
    pub now: Instant,
    /// Actions of the step.
    pub actions: Vec<Action>,
    /// Term and stamp that records name.
    pub context: (u64, Stamp),
    me: Identity,
    records: u64,
    ids: u64,
}

/// A record being written.
#[derive(Debug)]
pub(crate) struct Note {
    kind: Kind,
    rule: &'static str,
    text: String,
    node: Option<NodeId>,
    vm: Option<VmId>,
    facts: Vec<(String, String)>,
    reasons: Option<Reasons>,
    policy: Option<PolicyRecord>,
}

impl Note {
    pub fn new(kind: Kind, rule: &'static str, text: String) -> Self {
        let (node, vm, facts, reasons, policy) = (None, None, Vec::new(), None, None);
        Self { kind, rule, text, node, vm, facts, reasons, policy }
    }

    pub fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    pub fn is_of(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    pub fn vm(mut self, vm: &VmId) -> Self {
        self.vm = Some(vm.clone());
        self
    }

    pub fn fact(mut self, name: &str, value: impl core::fmt::Display) -> Self {
        self.facts.push((name.into(), alloc::format!("{value}")));
        self
    }

    /// What a policy said of the subject of this note.
    pub fn reasons(mut self, reasons: Reasons) -> Self {
        self.reasons = Some(reasons);
        self
    }

    /// What that policy was asked.
    pub fn policy(mut self, policy: Option<PolicyRecord>) -> Self {
        self.policy = policy;
        self
    }
}

impl Outbox {
    pub fn new(me: Identity, now: Instant) -> Self {
        let context = (0, Stamp::default());
        Self { now, actions: Vec::new(), context, me, records: 0, ids: 0 }
    }

    /// The number that the next record will have.
    pub fn next_record(&self) -> u64 {
        self.records + 1
    }

    /// A number that this incarnation has not used.
    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub fn send(&mut self, body: Body) {
        let message = Message { format: MESSAGE_FORMAT, from: self.me, body };
        self.push(Action::Send(Box::new(message)));
    }

    pub fn record(&mut self, note: Note) {
        self.records += 1;
        let decision = Decision {
            number: self.records,
            at: self.now,
            kind: note.kind,
            node: note.node,
            vm: note.vm,
            term: self.context.0,
            stamp: self.context.1,
            text: note.text,
            rule: note.rule,
            facts: note.facts,
            reasons: note.reasons,
            policy: note.policy,
        };
        self.push(Action::Record(Box::new(decision)));
    }
}
