use super::*;
use crate::record::next_incarnation;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use steadfast_core::ids::BootId;

struct Rig {
    dir: PathBuf,
    received: mpsc::Receiver<Event>,
    watchdog: Watchdog,
    record: RunRecord,
}

impl Rig {
    fn new(name: &str, device: impl FnOnce(&PathBuf) -> String) -> Self {
        let dir = std::env::temp_dir().join(format!("steadfast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let record = next_incarnation(&dir, BootId(1)).unwrap();
        let (sender, received) = mpsc::channel();
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        let timing = Timing::standard(Millis(1_000));
        let device = device(&dir);
        let watchdog = Watchdog::start(&device, &timing, record.clone(), Clock, sink).unwrap();
        Self { dir, received, watchdog, record }
    }

    fn feed(&self, not_after: Instant) -> Event {
        self.feed_after(None, not_after)
    }

    fn feed_after(&self, last: Option<Instant>, not_after: Instant) -> Event {
        self.watchdog.feed(Some(Instant(1)), last, not_after);
        self.received.recv_timeout(Duration::from_secs(5)).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn soon() -> Instant {
    Clock.now() + Millis(5_000)
}

/// Echoes lines, or other answers; reports what it got.
fn power_switch(path: PathBuf, answer: Option<&'static str>) -> mpsc::Receiver<String> {
    let listener = UnixListener::bind(path).unwrap();
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || serve(stream, answer, &sender));
        }
    });
    lines
}

fn serve(mut stream: UnixStream, answer: Option<&str>, sender: &mpsc::Sender<String>) {
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap();
        let reply = answer.unwrap_or(&line).to_owned();
        let _ = sender.send(line);
        let _ = writeln!(stream, "{reply}");
    }
}

#[test]
fn a_feed_in_time_is_fed_and_recorded_and_a_late_one_only_wakes() {
    let mut lines = None;
    let rig = Rig::new("dog", |dir| {
        let path = dir.join("dog");
        lines = Some(power_switch(path.clone(), None));
        format!("unix:{}", path.display())
    });
    let lines = lines.unwrap();
    assert_eq!(rig.feed(Instant(0)), Event::Woke);
    assert!(lines.try_recv().is_err(), "a late feed must not even open the device");
    let before = Clock.now();
    let Event::WatchdogFed { ended } = rig.feed(soon()) else { panic!("not fed") };
    assert!(ended >= before && ended <= Clock.now());
    assert_eq!(lines.recv().unwrap(), "timeout 4000");
    let next = next_incarnation(&rig.dir, BootId(1)).unwrap();
    assert_eq!(next.inherited(Clock.now()).unwrap().last_feed_ended, Some(ended));
    assert_eq!(rig.record.incarnation().0 + 1, next.incarnation().0);
}

#[test]
fn each_decision_feeds_once_and_one_that_did_not_know_of_the_last_feed_feeds_nothing() {
    let mut lines = None;
    let rig = Rig::new("oncedog", |dir| {
        let path = dir.join("dog");
        lines = Some(power_switch(path.clone(), None));
        format!("unix:{}", path.display())
    });
    let lines = lines.unwrap();
    let mut last = None;
    for _ in 0..3 {
        let Event::WatchdogFed { ended } = rig.feed_after(last, soon()) else { panic!("not fed") };
        assert_eq!(lines.recv().unwrap(), "timeout 4000");
        // It was decided before the machine knew of this feed.
        assert_eq!(rig.feed_after(last, soon()), Event::Woke);
        assert!(lines.recv_timeout(Duration::from_millis(50)).is_err(), "fed twice");
        last = Some(ended);
    }
}

#[test]
fn a_missing_device_is_told_once_with_a_remedy() {
    let rig = Rig::new("nodog", |dir| dir.join("absent").display().to_string());
    let Event::WatchdogFailed { reason } = rig.feed(soon()) else { panic!("fed") };
    assert!(reason.contains("modprobe"), "{reason}");
    rig.watchdog.feed(None, None, soon());
    assert!(rig.received.recv_timeout(Duration::from_millis(200)).is_err());
}

#[test]
fn a_device_with_a_longer_time_out_is_refused_and_disarmed_while_nothing_relies_on_it() {
    let mut lines = None;
    let rig = Rig::new("slowdog", |dir| {
        let path = dir.join("dog");
        lines = Some(power_switch(path.clone(), Some("timeout 60000")));
        format!("unix:{}", path.display())
    });
    let Event::WatchdogFailed { reason } = rig.feed(soon()) else { panic!("fed") };
    assert!(reason.contains("60000 ms") && reason.contains("4000 ms"), "{reason}");
    let lines = lines.unwrap();
    assert_eq!(lines.recv().unwrap(), "timeout 4000");
    assert_eq!(lines.recv().unwrap(), "V");
}

#[test]
fn a_device_that_cannot_wait_for_two_beats_is_refused_with_the_inequality() {
    let rig = Rig::new("hastydog", |dir| {
        let path = dir.join("dog");
        drop(power_switch(path.clone(), Some("timeout 900")));
        format!("unix:{}", path.display())
    });
    let Event::WatchdogFailed { reason } = rig.feed(soon()) else { panic!("fed") };
    assert!(reason.contains("2 beats <= W does not hold: 1000 ms > 900 ms"), "{reason}");
    assert_eq!(rig.watchdog.read_back().get(), Some(Millis(900)));
}

#[test]
fn a_released_watchdog_is_closed_with_the_magic_character_and_forgotten_until_the_next_feed() {
    let mut lines = None;
    let rig = Rig::new("releaseddog", |dir| {
        let path = dir.join("dog");
        lines = Some(power_switch(path.clone(), None));
        format!("unix:{}", path.display())
    });
    let lines = lines.unwrap();
    let release = || {
        rig.watchdog.release();
        rig.received.recv_timeout(Duration::from_secs(5)).unwrap()
    };
    let inherited = || next_incarnation(&rig.dir, BootId(1)).unwrap().inherited(Clock.now());
    assert_eq!(release(), Event::WatchdogClosed, "never opened");
    let Event::WatchdogFed { .. } = rig.feed(soon()) else { panic!("not fed") };
    assert_eq!(lines.recv().unwrap(), "timeout 4000");
    assert!(inherited().is_some());
    assert_eq!(release(), Event::WatchdogClosed);
    assert_eq!(lines.recv().unwrap(), "V");
    assert_eq!(inherited(), None);
    // The machine knows of no feed now, and is believed.
    let Event::WatchdogFed { .. } = rig.feed_after(None, soon()) else { panic!("not fed") };
    assert_eq!(lines.recv().unwrap(), "timeout 4000");
}

#[test]
fn a_watchdog_that_an_earlier_agent_left_open_is_closed_too() {
    let mut lines = None;
    let mut path = PathBuf::new();
    let rig = Rig::new("lostdog", |dir| {
        path = dir.join("dog");
        lines = Some(power_switch(path.clone(), None));
        format!("unix:{}", path.display())
    });
    let lines = lines.unwrap();
    let Event::WatchdogFed { .. } = rig.feed(soon()) else { panic!("not fed") };
    assert_eq!(lines.recv().unwrap(), "timeout 4000");
    let (sender, received) = mpsc::channel();
    let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
    let record = next_incarnation(&rig.dir, BootId(1)).unwrap();
    let device = format!("unix:{}", path.display());
    let timing = Timing::standard(Millis(1_000));
    let next = Watchdog::start(&device, &timing, record, Clock, sink).unwrap();
    next.release();
    assert_eq!(received.recv_timeout(Duration::from_secs(5)).unwrap(), Event::WatchdogClosed);
    assert_eq!(lines.recv().unwrap(), "V");
}
