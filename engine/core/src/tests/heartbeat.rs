//! The storage cycle (PROTOCOL section 3, rules of real disks).

use super::*;
use crate::kit::{at, id, outbox, page, pages, show, who};
use std::vec::Vec;

const BEAT: Millis = Millis(500);

/// Node n1's pipeline and what it asks of the disk.
struct Bench {
    heartbeat: Heartbeat,
    out: Outbox,
}

impl Bench {
    fn new() -> Self {
        Self { heartbeat: Heartbeat::new(who(1), crate::kit::nodes(), at(0)), out: outbox(1, 0) }
    }

    /// After the first read, which found `found`.
    fn read(found: &Pages) -> Self {
        let mut bench = Self::new();
        show(&mut bench.heartbeat, &mut found.clone(), 10, 20);
        bench.heartbeat.adopt_sequence(found);
        bench.out.now = at(30);
        bench
    }

    fn asked(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.out.actions)
    }

    fn write(&mut self) -> (u64, Box<Page>) {
        self.heartbeat.write_page(page(1, 0), BEAT, &mut self.out);
        self.written()
    }

    fn written(&mut self) -> (u64, Box<Page>) {
        match self.asked().pop() {
            Some(Action::WritePage { id, page }) => (id, page),
            other => panic!("expected a page write, got {other:?}"),
        }
    }

    fn end_write(&mut self, id: u64) {
        self.heartbeat.on_write_ended(id, Ok(()), BEAT, &mut self.out);
    }

    fn end_read(&mut self, found: Pages) -> Progress {
        let Some(Action::ReadPages { id, .. }) = self.asked().pop() else {
            panic!("nothing is read")
        };
        let now = self.out.now;
        self.heartbeat.on_pages_read(id, Ok(found), BEAT, now)
    }
}

#[test]
fn the_first_thing_of_an_incarnation_is_a_read_and_no_write_is_allowed_before_it_ends() {
    let mut bench = Bench::new();
    assert!(!bench.heartbeat.is_idle());
    bench.heartbeat.on_time(&mut bench.out);
    assert!(matches!(bench.asked()[..], [Action::ReadPages { .. }]));
    assert!(!bench.heartbeat.is_idle());
    bench.heartbeat.on_time(&mut bench.out);
    assert!(bench.asked().is_empty(), "one read at a time");
}

#[test]
fn an_agent_that_cannot_read_at_first_reads_again_and_writes_nothing() {
    let mut bench = Bench::new();
    bench.heartbeat.on_time(&mut bench.out);
    let Some(Action::ReadPages { id: read, .. }) = bench.asked().pop() else {
        panic!("nothing is read")
    };
    bench.heartbeat.on_pages_read(read, Err("stalled".into()), BEAT, at(100));
    assert!(!bench.heartbeat.is_idle());
    assert_eq!(bench.heartbeat.wake_at(), Some(at(150)));
    bench.out.now = at(150);
    bench.heartbeat.on_time(&mut bench.out);
    assert!(matches!(bench.asked()[..], [Action::ReadPages { .. }]));
}

#[test]
fn the_first_read_renews_nothing_since_nothing_was_written_before_it() {
    let bench = Bench::read(&pages([]));
    assert_eq!(bench.heartbeat.last_cycle, None);
    assert_eq!(bench.heartbeat.age(at(50)), None);
}

#[test]
fn the_first_page_of_an_incarnation_goes_on_from_the_sequence_on_disk() {
    let mut bench = Bench::read(&pages([page(1, 41), page(2, 7)]));
    let (_, page) = bench.write();
    assert_eq!(page.sequence, 42);
}

#[test]
fn a_cycle_begins_with_its_write_and_not_with_its_read() {
    let mut bench = Bench::read(&pages([]));
    let (write, page) = bench.write();
    bench.out.now = at(130);
    bench.end_write(write);
    bench.out.now = at(150);
    let Progress::PagesRead(cycle) = bench.end_read(pages([*page])) else { panic!("unfinished") };
    assert_eq!((cycle.start, cycle.read_began, cycle.read_ended), (Some(at(30)), at(130), at(150)));
    bench.heartbeat.finish(&cycle);
    assert_eq!(bench.heartbeat.age(at(1_030)), Some(Millis(1_000)));
    assert_eq!(bench.heartbeat.latency(), Millis(120));
}

#[test]
fn a_failed_write_is_repeated_identically_until_it_succeeds_and_keeps_its_start() {
    let mut bench = Bench::read(&pages([]));
    let (mut write, first) = bench.write();
    for attempt in 1..4 {
        let now = bench.out.now;
        let error = Err("no space".into());
        bench.heartbeat.on_write_ended(write, error, BEAT, &mut bench.out);
        assert!(!bench.heartbeat.is_idle(), "no other write may begin");
        bench.heartbeat.on_time(&mut bench.out);
        assert!(bench.asked().is_empty(), "not at once");
        bench.out.now = now + BEAT;
        bench.heartbeat.on_time(&mut bench.out);
        let (id, page) = bench.written();
        assert_eq!(page, first, "attempt {attempt}");
        write = id;
    }
    bench.end_write(write);
    let Progress::PagesRead(cycle) = bench.end_read(pages([*first])) else { panic!("unfinished") };
    assert_eq!(cycle.start, Some(at(30)), "the basis is when the first attempt began");
}

#[test]
fn a_failed_body_write_is_repeated_with_the_same_bytes_into_the_same_slot() {
    let mut bench = Bench::read(&pages([]));
    bench.heartbeat.write_body(1, [1, 2, 3].into(), &mut bench.out);
    let Some(Action::WriteBody { id: write, .. }) = bench.asked().pop() else { panic!("no body") };
    bench.heartbeat.on_write_ended(write, Err("torn".into()), BEAT, &mut bench.out);
    bench.out.now = at(1_000);
    bench.heartbeat.on_time(&mut bench.out);
    let Some(Action::WriteBody { slot, bytes, .. }) = bench.asked().pop() else {
        panic!("no body")
    };
    assert_eq!((slot, &bytes[..]), (1, &[1, 2, 3][..]));
}

#[test]
fn one_write_is_in_flight_and_no_deadline_ends_it() {
    let mut bench = Bench::read(&pages([]));
    let (write, _) = bench.write();
    bench.out.now = at(1_000_000);
    bench.heartbeat.on_time(&mut bench.out);
    assert!(bench.asked().is_empty());
    assert!(!bench.heartbeat.is_idle());
    assert_eq!(bench.heartbeat.wake_at(), None);
    bench.heartbeat.on_write_ended(write + 7, Ok(()), BEAT, &mut bench.out);
    assert!(bench.asked().is_empty(), "the end of another write is not its end");
    bench.end_write(write);
    assert!(matches!(bench.asked()[..], [Action::ReadPages { .. }]));
}

#[test]
fn a_read_that_shows_an_older_sequence_than_before_is_not_a_finished_cycle() {
    for stale in [Some(page(2, 8)), None] {
        let mut bench = Bench::read(&pages([page(2, 9)]));
        let (write, own) = bench.write();
        bench.end_write(write);
        let found = pages([*own].into_iter().chain(stale));
        assert!(matches!(bench.end_read(found), Progress::None));
        assert!(bench.heartbeat.trouble.as_ref().is_some_and(|why| why.contains("stale read")));
        assert_eq!(bench.heartbeat.last_cycle, None);
        assert_eq!(bench.heartbeat.seen(id(2)).unwrap().page.sequence, 9);
    }
}

#[test]
fn a_read_that_shows_an_own_page_as_it_was_before_is_stale_and_not_somebody_elses_work() {
    for found in [None, Some(page(1, 7))] {
        let mut bench = Bench::read(&pages(found.clone()));
        let (write, first) = bench.write();
        bench.end_write(write);
        assert!(matches!(bench.end_read(pages(found)), Progress::None));
        assert!(bench.heartbeat.trouble.as_ref().is_some_and(|why| why.contains("stale read")));
        let (write, second) = bench.write();
        bench.end_write(write);
        assert!(matches!(bench.end_read(pages([*first])), Progress::None));
        let (write, third) = bench.write();
        assert!(second.sequence < third.sequence);
        bench.end_write(write);
        assert!(matches!(bench.end_read(pages([*third])), Progress::PagesRead(_)));
        assert!(!bench.heartbeat.is_halted());
    }
}

#[test]
fn a_read_that_failed_renews_nothing_and_the_next_cycle_writes_a_new_page() {
    let mut bench = Bench::read(&pages([]));
    let (write, own) = bench.write();
    bench.end_write(write);
    let Some(Action::ReadPages { id: read, .. }) = bench.asked().pop() else {
        panic!("nothing is read")
    };
    bench.heartbeat.on_pages_read(read, Err("one slot".into()), BEAT, at(40));
    assert_eq!(bench.heartbeat.last_cycle, None);
    assert!(bench.heartbeat.is_idle());
    assert_eq!(bench.write().1.sequence, own.sequence + 1);
}

#[test]
fn a_page_of_our_own_that_we_did_not_write_ends_all_storage_work() {
    let mut bench = Bench::read(&pages([]));
    let (write, own) = bench.write();
    bench.end_write(write);
    let mut other = (*own).clone();
    other.view_size += 1;
    let progress = bench.end_read(pages([other]));
    assert!(matches!(progress, Progress::Hijacked(why) if why.contains("another steadfastd")));
    assert!(bench.heartbeat.is_halted());
    bench.out.now = at(100_000);
    bench.heartbeat.on_time(&mut bench.out);
    assert!(bench.asked().is_empty());
    assert!(!bench.heartbeat.is_idle(), "nothing is written any more");
}

#[test]
fn the_first_read_of_an_incarnation_may_show_what_an_earlier_one_wrote() {
    let bench = Bench::read(&pages([page(1, 41)]));
    assert!(!bench.heartbeat.is_halted());
}

#[test]
fn the_answer_to_an_earlier_read_is_not_taken_for_the_present_one() {
    let mut bench = Bench::read(&pages([]));
    let (write, own) = bench.write();
    bench.end_write(write);
    let Some(Action::ReadPages { id: read, .. }) = bench.asked().pop() else {
        panic!("nothing is read")
    };
    let late = bench.heartbeat.on_pages_read(read - 1, Ok(pages([*own])), BEAT, at(40));
    assert!(matches!(late, Progress::None));
    assert!(!bench.heartbeat.is_idle());
}

#[test]
fn silence_is_counted_in_complete_cycles_since_the_sequence_was_first_shown() {
    let mut heartbeat = Heartbeat::new(who(1), crate::kit::nodes(), at(0));
    let mut disk = pages([page(2, 5)]);
    show(&mut heartbeat, &mut disk, 10, 20);
    show(&mut heartbeat, &mut disk, 30, 40);
    show(&mut heartbeat, &mut disk, 50, 60);
    let seen = heartbeat.seen(id(2)).unwrap();
    assert_eq!((seen.first_shown, seen.silent_cycles, seen.moved), (at(20), 2, false));
    disk.insert(id(2), Some(page(2, 6)));
    show(&mut heartbeat, &mut disk, 70, 80);
    let seen = heartbeat.seen(id(2)).unwrap();
    assert_eq!((seen.first_shown, seen.silent_cycles, seen.moved), (at(80), 0, true));
}
