//! Disk Paxos, rule by rule (PROTOCOL section 3). Random schedules are in `register_model.rs`.

use super::*;
use crate::feature_level::FeatureLevel;
use crate::kit::{ballot, cycle, genesis, id, labelled, page, pages, stamp};
use std::collections::BTreeMap;

/// A disk that works at once, and the time.
struct Disk {
    pages: Pages,
    bodies: BTreeMap<(NodeId, u8), Arc<[u8]>>,
    now: u64,
}

impl Disk {
    fn new() -> Self {
        Self { pages: pages([]), bodies: BTreeMap::new(), now: 100 }
    }

    fn page_of(&self, node: u32) -> Page {
        self.pages[&id(node)].clone().unwrap_or_else(|| page(node, 0))
    }

    /// Node `node` promises `promised` behind everybody's back.
    fn promise(&mut self, node: u32, promised: Ballot) {
        let mut page = self.page_of(node);
        page.sequence += 1;
        page.promised = promised;
        self.pages.insert(id(node), Some(page));
    }

    /// Node `node` accepts a body called `label`.
    fn accept(&mut self, node: u32, accepted: Stamp, label: &str) {
        let bytes: Arc<[u8]> = labelled(label).encode().into();
        let mut page = self.page_of(node);
        page.sequence += 1;
        page.promised = page.promised.max(accepted.ballot);
        (page.accepted, page.slot, page.digest) = (accepted, 0, Digest::of(&bytes));
        self.bodies.insert((id(node), 0), bytes);
        self.pages.insert(id(node), Some(page));
    }

    fn write_body(&mut self, register: &mut Register) -> bool {
        let Some((slot, bytes)) = register.take_body() else { return false };
        self.bodies.insert((register.me, slot), bytes);
        register.on_body_written();
        true
    }

    fn write_page(&mut self, register: &Register) {
        let mut page = self.page_of(register.me.0);
        page.sequence += 1;
        register.fill(&mut page);
        self.pages.insert(register.me, Some(page));
    }

    fn read(&mut self, register: &mut Register) -> Outcome {
        let (began, ended) = (self.now + 1, self.now + 2);
        self.now = ended;
        let cycle = cycle(began, ended, &self.pages);
        if let Some(wanted) = register.wanted(&cycle.pages) {
            let bytes = &self.bodies[&(wanted.node, wanted.slot)];
            register.on_body(wanted, bytes, cycle.read_ended).unwrap();
        }
        register.on_cycle(&cycle)
    }

    fn turn(&mut self, register: &mut Register) -> Outcome {
        self.write_body(register);
        self.write_page(register);
        self.read(register)
    }

    /// A register whose term stands.
    fn leader(&mut self, node: u32) -> Register {
        let mut register = follower(node);
        self.read(&mut register);
        register.begin(0);
        assert!(matches!(self.turn(&mut register), Outcome::None), "the promise is read");
        assert!(matches!(self.turn(&mut register), Outcome::TermStands));
        register
    }
}

fn follower(node: u32) -> Register {
    Register::new(id(node), FeatureLevel::NEWEST, genesis(3))
}

fn label(register: &Register) -> std::string::String {
    register.ledger().cluster.clone()
}

#[test]
fn a_begin_takes_a_term_above_every_page_everything_heard_and_its_own_promise() {
    let mut disk = Disk::new();
    disk.promise(2, ballot(7, 2));
    let mut register = follower(1);
    disk.read(&mut register);
    assert_eq!(register.begin(0), ballot(8, 1));
    assert_eq!(register.begin(0), ballot(9, 1), "a term begun and not written is not begun again");
    assert_eq!(register.begin(20), ballot(21, 1));
}

#[test]
fn a_begin_gives_up_on_an_equal_term_whichever_node_is_higher() {
    for rival in [1, 3] {
        let mut disk = Disk::new();
        let mut register = follower(2);
        disk.read(&mut register);
        assert_eq!(register.begin(0), ballot(1, 2));
        disk.promise(rival, ballot(1, rival));
        let outcome = disk.turn(&mut register);
        assert!(matches!(outcome, Outcome::Beaten { by, led: false } if by == ballot(1, rival)));
        assert_eq!(register.leading(), None);
        assert!(!register.is_busy(), "it is a follower again");
    }
}

#[test]
fn a_begin_gives_up_on_a_higher_term() {
    let mut disk = Disk::new();
    let mut register = follower(1);
    disk.read(&mut register);
    register.begin(0);
    disk.promise(2, ballot(4, 2));
    assert!(matches!(disk.turn(&mut register), Outcome::Beaten { led: false, .. }));
    assert_eq!(register.begin(0), ballot(5, 1), "the next try goes above it");
}

#[test]
fn an_older_promise_of_another_node_does_not_stop_a_begin() {
    let mut disk = Disk::new();
    disk.promise(3, ballot(4, 3));
    let mut register = follower(1);
    disk.read(&mut register);
    register.begin(0);
    disk.turn(&mut register);
    assert!(matches!(disk.turn(&mut register), Outcome::TermStands));
}

#[test]
fn a_promise_counts_only_from_a_cycle_that_wrote_it() {
    let mut disk = Disk::new();
    let mut register = follower(1);
    disk.write_page(&register);
    disk.read(&mut register);
    register.begin(0);
    // The read under way began before the promise was written.
    assert!(matches!(disk.read(&mut register), Outcome::None));
    assert_eq!(register.take_body().map(|(slot, _)| slot), None, "nothing is adopted yet");
}

#[test]
fn adoption_takes_the_highest_ballot_before_the_highest_version() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "newer ballot");
    disk.accept(3, stamp(2, 3, 9), "higher version");
    let leader = disk.leader(1);
    assert_eq!(label(&leader), "newer ballot");
    let adopted = leader.known().unwrap().stamp;
    assert_eq!(adopted, Stamp { ballot: ballot(4, 1), version: 5 }, "its version is kept");
}

#[test]
fn adoption_takes_a_body_that_landed_while_the_promise_was_written() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "old");
    let mut register = follower(1);
    disk.read(&mut register);
    register.begin(0);
    disk.accept(2, stamp(3, 2, 6), "landed late");
    disk.turn(&mut register);
    assert!(matches!(disk.turn(&mut register), Outcome::TermStands));
    assert_eq!(label(&register), "landed late");
}

#[test]
fn an_adoption_gives_up_when_somebody_promises_before_its_second_read() {
    for rival in [ballot(1, 3), ballot(2, 3)] {
        let mut disk = Disk::new();
        let mut register = follower(1);
        disk.read(&mut register);
        register.begin(0);
        disk.turn(&mut register);
        disk.promise(3, rival);
        assert!(matches!(disk.turn(&mut register), Outcome::Beaten { led: false, .. }));
        assert_eq!(register.leading(), None);
    }
}

#[test]
fn a_commit_is_known_only_after_its_page_was_written_and_a_later_read_shows_nobody_above() {
    let mut disk = Disk::new();
    let mut leader = disk.leader(1);
    assert!(leader.commit(labelled("change")));
    assert!(matches!(disk.read(&mut leader), Outcome::None), "nothing was written yet");
    disk.write_body(&mut leader);
    assert!(matches!(disk.read(&mut leader), Outcome::None), "the page does not name it yet");
    disk.write_page(&leader);
    assert_ne!(label(&leader), "change");
    assert!(
        matches!(disk.read(&mut leader), Outcome::Committed { before } if before.cluster == "test")
    );
    assert_eq!(label(&leader), "change");
    assert_eq!(leader.known().unwrap().stamp, stamp(1, 1, 1));
    assert!(leader.proved().is_some());
}

#[test]
fn a_leader_has_one_commit_under_way_at_a_time() {
    let mut disk = Disk::new();
    let mut leader = disk.leader(1);
    assert!(leader.commit(labelled("first")));
    assert!(!leader.commit(labelled("second")), "one (ballot, version) never has two bodies");
    disk.turn(&mut leader);
    assert_eq!(label(&leader), "first");
    assert_eq!(leader.next_stamp(), Some(stamp(1, 1, 2)));
}

#[test]
fn a_deposed_commit_makes_a_follower_and_its_change_is_a_rumour_that_the_next_leader_adopts() {
    let mut disk = Disk::new();
    let mut deposed = disk.leader(1);
    deposed.commit(labelled("unknown outcome"));
    disk.promise(2, ballot(2, 2));
    let outcome = disk.turn(&mut deposed);
    assert!(matches!(outcome, Outcome::Beaten { by, led: true } if by == ballot(2, 2)));
    assert_eq!(deposed.leading(), None);
    assert!(!deposed.commit(labelled("after the end")));
    disk.read(&mut deposed);
    assert_eq!(label(&deposed), "unknown outcome");
    assert!(deposed.proved().is_none(), "neither committed nor failed");

    let mut next = follower(2);
    next.adopt_page(&disk.page_of(2));
    disk.read(&mut next);
    assert_eq!(next.begin(0), ballot(3, 2));
    disk.turn(&mut next);
    disk.turn(&mut next);
    assert_eq!(label(&next), "unknown outcome");
    disk.read(&mut deposed);
    disk.read(&mut deposed);
    assert!(deposed.proved().is_some_and(|known| known.ledger.cluster == "unknown outcome"));
}

#[test]
fn a_body_whose_ballot_was_lost_while_it_was_written_is_never_named() {
    let mut disk = Disk::new();
    let mut leader = disk.leader(1);
    leader.commit(labelled("lost"));
    let before = disk.page_of(1).accepted;
    assert!(leader.take_body().is_some());
    leader.resign();
    leader.on_body_written();
    disk.write_page(&leader);
    assert_eq!(disk.page_of(1).accepted, before);
}

#[test]
fn an_idle_leader_is_deposed_by_a_promise_above_its_ballot_and_not_by_one_below() {
    let mut disk = Disk::new();
    let mut leader = disk.leader(2);
    disk.promise(1, ballot(1, 1));
    assert!(matches!(disk.turn(&mut leader), Outcome::None));
    disk.promise(3, ballot(1, 3));
    assert!(matches!(disk.turn(&mut leader), Outcome::Beaten { led: true, .. }));
}

#[test]
fn a_read_with_proof_needs_a_second_read_begun_after_the_body_was_seen() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "body");
    let mut reader = follower(1);
    disk.read(&mut reader);
    assert_eq!(label(&reader), "body");
    assert!(reader.proved().is_none(), "one read proves nothing");
    let shown = disk.now;
    reader.on_cycle(&cycle(shown - 1, shown + 5, &disk.pages));
    assert!(reader.proved().is_none(), "a read begun before it was seen proves nothing");
    disk.read(&mut reader);
    assert!(reader.proved().is_some());
}

#[test]
fn a_read_that_begins_and_ends_in_the_very_millisecond_of_the_first_proves_nothing() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "body");
    let mut reader = follower(1);
    let one = cycle(100, 100, &disk.pages);
    let wanted = reader.wanted(&one.pages).unwrap();
    reader.on_body(wanted, &disk.bodies[&(id(2), 0)], one.read_ended).unwrap();
    reader.on_cycle(&one);
    assert!(reader.proved().is_none());
}

#[test]
fn a_promise_above_the_newest_body_makes_it_a_rumour_until_it_is_adopted() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "body");
    disk.promise(3, ballot(4, 3));
    let mut reader = follower(1);
    for _ in 0..3 {
        disk.read(&mut reader);
    }
    assert!(reader.proved().is_none());
    assert!(!reader.wants_proof(), "no cycle of ours can prove it: it is not asked for in haste");
    disk.accept(3, stamp(4, 3, 5), "body");
    disk.read(&mut reader);
    assert!(reader.wants_proof());
    disk.read(&mut reader);
    assert!(reader.proved().is_some_and(|known| known.stamp == stamp(4, 3, 5)));
}

#[test]
fn a_newer_body_in_the_second_read_starts_the_proof_anew() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "five");
    let mut reader = follower(1);
    disk.read(&mut reader);
    disk.accept(2, stamp(3, 2, 6), "six");
    disk.read(&mut reader);
    assert_eq!(label(&reader), "six");
    assert!(reader.proved().is_none());
}

#[test]
fn a_leaders_word_that_a_stamp_is_committed_proves_that_very_stamp_only() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "body");
    let mut reader = follower(1);
    disk.read(&mut reader);
    reader.on_committed_heard(stamp(3, 2, 4));
    assert!(reader.proved().is_none());
    reader.on_committed_heard(stamp(3, 2, 6));
    assert!(reader.proved().is_none(), "a later commit is read, not assumed");
    assert!(reader.wants_proof());
    reader.on_committed_heard(stamp(3, 2, 5));
    assert!(reader.proved().is_some());
}

#[test]
fn a_torn_body_is_refused_and_nothing_is_learnt_from_it() {
    let mut disk = Disk::new();
    disk.accept(2, stamp(3, 2, 5), "body");
    let mut reader = follower(1);
    let wanted = reader.wanted(&disk.pages).unwrap();
    let torn = labelled("torn").encode();
    assert!(matches!(
        reader.on_body(wanted, &torn, Instant(5)),
        Err(LedgerError::Digest { stamp: got, .. }) if got == stamp(3, 2, 5)
    ));
    assert!(reader.known().is_none());
}

#[test]
fn a_body_is_never_written_into_the_slot_that_the_page_on_disk_names() {
    let mut disk = Disk::new();
    let mut leader = disk.leader(1);
    for version in 1..=6 {
        let named = disk.page_of(1).slot;
        assert!(leader.commit(labelled(&format!("change {version}"))));
        let (slot, bytes) = leader.take_body().unwrap();
        assert_ne!(slot, named);
        assert!(leader.take_body().is_none(), "it is written once");
        disk.bodies.insert((id(1), slot), bytes);
        leader.on_body_written();
        disk.write_page(&leader);
        assert_eq!(disk.page_of(1).slot, slot);
        assert!(matches!(disk.read(&mut leader), Outcome::Committed { .. }));
    }
}

#[test]
fn a_new_incarnation_carries_over_its_page_and_its_old_ballot_leads_nothing() {
    let mut disk = Disk::new();
    let mut old = disk.leader(1);
    old.commit(labelled("kept"));
    disk.turn(&mut old);
    let on_disk = disk.page_of(1);

    let mut new = follower(1);
    new.adopt_page(&on_disk);
    let mut first = page(1, 0);
    new.fill(&mut first);
    let block = |page: &Page| (page.promised, page.accepted, page.slot, page.digest);
    assert_eq!(block(&first), block(&on_disk), "the first write changes nothing in the block");
    disk.read(&mut new);
    assert_eq!(new.leading(), None, "a ballot dies with its incarnation");
    assert_eq!(label(&new), "kept");
    assert_eq!(new.begin(0), ballot(2, 1));
    disk.turn(&mut new);
    let (slot, _) = new.take_body().unwrap();
    assert_ne!(slot, on_disk.slot);
}

#[test]
fn before_the_first_leader_the_genesis_is_known_and_nothing_is_wanted() {
    let mut disk = Disk::new();
    let mut register = follower(1);
    assert!(register.known().is_none());
    assert!(register.wanted(&disk.pages).is_none());
    disk.read(&mut register);
    assert!(register.proved().is_some_and(|known| known.stamp == Stamp::default()));
}

#[test]
fn a_node_that_may_not_lead_by_the_ledger_that_it_would_adopt_gives_up_and_writes_no_body() {
    let mut without_me = genesis(3);
    without_me.nodes.remove(&id(3));
    let mut newcomer = genesis(3);
    let (before, since) = ([id(1), id(2)].into(), stamp(1, 1, 1));
    newcomer.changing = Some(crate::ledger::Changing { before, since });
    for ledger in [without_me, newcomer] {
        let mut disk = Disk::new();
        let bytes: Arc<[u8]> = ledger.encode().into();
        let mut page = disk.page_of(1);
        page.sequence = 1;
        (page.accepted, page.slot, page.digest) = (stamp(1, 1, 1), 0, Digest::of(&bytes));
        disk.bodies.insert((id(1), 0), bytes);
        disk.pages.insert(id(1), Some(page));
        let mut register = follower(3);
        register.begin(0);
        assert!(matches!(disk.turn(&mut register), Outcome::Barred));
        assert!(!register.is_busy() && register.take_body().is_none());
    }
}
