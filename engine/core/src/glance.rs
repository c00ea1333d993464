//! Has anything changed that people see? Asked after every step while somebody looks on, so it costs a walk over the nodes and
//! nothing more: no VM is looked at.

use crate::machine::Machine;

/// FNV-1a over words: not for secrets, only to be different when something differs.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn put(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn put_all(&mut self, words: impl IntoIterator<Item = u64>) {
        words.into_iter().for_each(|word| self.put(word));
    }
}

impl Machine {
    /// A number that differs once a snapshot would differ in more than ages and in words that follow from them. What a step
    /// records, starts or stops is not in it: its actions tell that.
    #[must_use]
    pub fn glance(&self) -> u64 {
        let mut digest = Digest::new();
        self.glance_at_rights(&mut digest);
        self.glance_at_election(&mut digest);
        self.glance_at_nodes(&mut digest);
        digest.0
    }

    fn glance_at_rights(&self, digest: &mut Digest) {
        let (lease, now) = (&self.lease, self.out.now);
        let known = self.register.known();
        let stamp = known.map_or_else(Default::default, |known| known.stamp);
        digest.put_all([stamp.ballot.term, u64::from(stamp.ballot.node), stamp.version]);
        digest.put_all(
            [
                known.is_some_and(|known| known.proved),
                lease.admission().is_some(),
                lease.is_good(&self.config, now),
                lease.is_armed(&self.config, now),
                lease.watchdog_trouble.is_some(),
                lease.evicted().is_some(),
            ]
            .map(u64::from),
        );
        digest.put(self.guests.changes());
        digest.put_all(self.view.members.iter().map(|node| u64::from(node.0)));
    }

    fn glance_at_election(&self, digest: &mut Digest) {
        let election = &self.election;
        digest.put_all([election.highest_term, election.round, election.phase as u64]);
        digest.put(u64::from(self.register.leading().is_some()));
        digest.put(election.leader.map_or(0, |leader| u64::from(leader.who.node.0)));
        digest.put(election.winner.map_or(0, |winner| u64::from(winner.0)));
        for (node, ballot) in &election.ballots {
            let score = ballot.priority.value.cast_unsigned();
            digest.put_all([u64::from(node.0), score, u64::from(ballot.eligible)]);
        }
    }

    fn glance_at_nodes(&self, digest: &mut Digest) {
        let ledger = self.register.ledger();
        for node in ledger.nodes.keys() {
            let status = self.liveness.of(*node).map_or(0, |known| 1 + known.status as u64);
            let said = self.beats.heard(*node).map_or(0, |heard| heard.said);
            let armed = self.beats.heard(*node).is_some_and(|heard| heard.beat.armed);
            let verified = self.heartbeat.seen(*node).and_then(|seen| seen.page.verification);
            let verified = verified.map_or(2, u64::from);
            digest.put_all([u64::from(node.0), status, said, u64::from(armed), verified]);
        }
        for policy in [&self.policies.active, &self.policies.staged.placement] {
            digest.put_all(policy.0[..8].iter().map(|byte| u64::from(*byte)));
        }
    }
}

#[cfg(test)]
#[path = "tests/glance.rs"]
mod tests;
