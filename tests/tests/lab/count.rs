//! Guests' own counters, watched from outside: a guest counts its seconds on its disk.

use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use steadfast_lab::lab::Lab;

/// Watches counters until it ends.
pub struct Counts {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Duration>>>,
}

impl Counts {
    pub fn begin(lab: &Lab, names: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = |name: &String| {
            let (lab, name, stop) = (lab.clone(), name.clone(), Arc::clone(&stop));
            thread::spawn(move || longest_pause(&lab, &name, &stop))
        };
        Self { threads: names.iter().map(watch).collect(), stop: Arc::clone(&stop) }
    }

    /// The longest time in which a counter did not move.
    pub fn end(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for thread in self.threads {
            let pause = thread.join().ok().context("a watch ended early")??;
            longest = longest.max(pause);
        }
        Ok(longest)
    }
}

fn longest_pause(lab: &Lab, name: &str, stop: &AtomicBool) -> Result<Duration> {
    let (mut count, mut moved, mut longest) = (lab.count(name)?, Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let now = lab.count(name)?;
        ensure!(now == count || now == count + 1, "{name} counted {now} after {count}");
        longest = longest.max(moved.elapsed());
        if now != count {
            (count, moved) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(longest)
}
