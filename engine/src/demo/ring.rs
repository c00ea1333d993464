//! The control network: one group, its members, and messages in one order for all.
//!
//! As corosync's ring: when a member falls silent nothing is delivered until the others have noticed, which takes token and
//! consensus; what was sent meanwhile comes after the new view.

use super::world::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use steadfast_core::event::Event;
use steadfast_core::ids::NodeId;
use steadfast_core::message::Message;
use steadfast_core::time::{Instant, Millis};

/// Token and consensus of the lab's corosync: how long it needs to notice a silent node.
pub(super) const MEMBERSHIP: Millis = Millis(1_100);
/// How long a loss really takes to be noticed, which is a little less.
const LOSS: Millis = Millis(1_000);
/// How long somebody who comes needs to be let in.
const ARRIVAL: Millis = Millis(150);
/// Messages that wait for a new ring; more are dropped, as corosync's flow control would.
const MAX_WAITING: usize = 4_096;

/// What waits for a new ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// When the new one stands.
    forms: Option<Instant>,
    waiting: Vec<(NodeId, u64, Arc<Message>)>,
}

impl State {
    /// Somebody fell silent.
    pub(super) fn ring_broke(&mut self) {
        self.form_later(LOSS);
    }

    /// Somebody came.
    pub(super) fn ring_grows(&mut self) {
        self.form_later(ARRIVAL);
    }

    fn form_later(&mut self, after: Millis) {
        let at = self.now + after;
        if self.ring.forms.is_none_or(|forms| forms < at) {
            self.ring.forms = Some(at);
            self.later(after, move |state| state.form(at));
        }
    }

    fn form(&mut self, at: Instant) {
        if self.ring.forms != Some(at) {
            return; // Something else came in between.
        }
        self.ring.forms = None;
        let members = self.hosts.iter().filter(|(_, host)| host.member);
        let boots: BTreeMap<NodeId, u64> = members.map(|(node, host)| (*node, host.boot)).collect();
        let mut whole = boots.clone();
        whole.retain(|node, _| self.host(*node).is_some_and(|host| host.plugged));
        for (node, boot) in boots {
            let Some(host) = self.hosts.get_mut(&node) else { continue };
            let view = if host.plugged { whole.clone() } else { [(node, boot)].into() };
            if host.view != view {
                host.tell(Event::ViewChanged { members: view.keys().copied().collect() });
                host.view = view;
            }
        }
        for (node, boot, message) in std::mem::take(&mut self.ring.waiting) {
            if self.seated(node, boot).is_some() {
                self.deliver(node, &message);
            }
        }
    }

    /// Multicasts, itself included.
    pub(super) fn send(&mut self, node: NodeId, boot: u64, message: Message) {
        let message = Arc::new(message);
        if self.ring.forms.is_none() {
            return self.deliver(node, &message);
        }
        if self.ring.waiting.len() < MAX_WAITING {
            self.ring.waiting.push((node, boot, message));
        }
    }

    fn deliver(&mut self, sender: NodeId, message: &Message) {
        let Some(from) = self.hosts.get(&sender) else { return };
        for (member, boot) in &from.view {
            let there = self.hosts.get(member).filter(|host| host.member && host.boot == *boot);
            if let Some(host) = there {
                let message = Box::new(message.clone());
                host.tell(Event::MessageReceived { sender, message });
            }
        }
    }

    /// A node's networks are unplugged or plugged in.
    pub(super) fn plug(&mut self, node: NodeId, plugged: bool) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if std::mem::replace(&mut host.plugged, plugged) == plugged {
            return;
        }
        let what = if plugged { "is plugged in again" } else { "is cut off all networks" };
        let text = format!("{} {what}", host.name);
        self.note(text);
        if plugged { self.ring_grows() } else { self.ring_broke() }
    }
}
