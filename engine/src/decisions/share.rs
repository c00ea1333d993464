//! The last decisions of every node on shared storage: any node can explain what a dead one decided.
//!
//! One thread appends, one reads when it is asked; storage that hangs stops them and nothing else. Questions to policies are too large
//! for it and stay on the node's own disk; who decided and the scores are here.

use crate::api::wire::DecisionReport;
use crate::pages::PageStore;
use crate::pages::records::{MAX_RECORD, RecordWriter};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steadfast_core::ids::NodeId;

/// Lines that may wait for storage; more are left out.
const QUEUE: usize = 4_096;
/// Lines that come within this go into one record.
const GATHER: Duration = Duration::from_millis(100);
/// Larger lines go without their question.
const QUESTION_BYTES: usize = 16 << 10;
/// Of so many candidates the scores are told.
const CANDIDATES: usize = 8;

/// Decisions that were read, and whose could not be.
type Shared = (Vec<DecisionReport>, Vec<String>);
/// Whose are wanted, and by whom.
type Wanted = (Vec<(NodeId, String)>, SyncSender<Shared>);

/// The way to both threads.
#[derive(Debug)]
pub(super) struct Sharer {
    lines: SyncSender<Vec<u8>>,
    wanted: SyncSender<Wanted>,
    /// One question at a time: a storage that hangs must not gather threads.
    asking: Mutex<()>,
}

impl Sharer {
    pub(super) fn start(pages: Arc<PageStore>) -> std::io::Result<Self> {
        let (lines, to_append) = sync_channel(QUEUE);
        let (wanted, to_read) = sync_channel::<Wanted>(1);
        let (writing, reading) = (Arc::clone(&pages), pages);
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        thread("decision-share").spawn(move || append_all(&writing, &to_append))?;
        thread("decision-read").spawn(move || {
            for (nodes, answer) in to_read {
                // Who asked may be gone.
                let _ = answer.try_send(read(&reading, &nodes));
            }
        })?;
        Ok(Self { lines, wanted, asking: Mutex::new(()) })
    }

    /// Queues a decision; never blocks. `line` is it as JSON.
    pub(super) fn share(&self, report: &DecisionReport, line: &[u8]) {
        let line = match line.len() <= QUESTION_BYTES {
            true => line.to_vec(),
            false => serde_json::to_vec(&brief(report)).unwrap_or_default(),
        };
        if line.len() >= MAX_RECORD || self.lines.try_send(line).is_err() {
            tracing::debug!(id = report.id, "shared storage is too slow for decisions");
        }
    }

    /// The decisions of `nodes`. Blocks up to `patience`.
    pub(super) fn read(&self, nodes: Vec<(NodeId, String)>, patience: Duration) -> Shared {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, answered) = sync_channel(1);
        let shared = match self.wanted.try_send((nodes, answer)) {
            Ok(()) => answered.recv_timeout(patience).ok(),
            Err(_) => None,
        };
        drop(asking);
        shared.unwrap_or_else(|| {
            let text = format!(
                "shared storage did not answer within {} ms: only what this node's agent decided since it started is told; ask again, or \
                 see decisions.jsonl on the other nodes",
                patience.as_millis()
            );
            (Vec::new(), vec![text])
        })
    }
}

fn brief(report: &DecisionReport) -> DecisionReport {
    let mut brief = report.without_question();
    if let Some(reasons) = &mut brief.reasons {
        reasons.candidates.truncate(CANDIDATES);
    }
    brief
}

fn append_all(pages: &PageStore, lines: &Receiver<Vec<u8>>) {
    let mut writer: Option<RecordWriter> = None;
    let mut told = false;
    let mut next = None;
    while let Some(first) = next.take().or_else(|| lines.recv().ok()) {
        let batch;
        (batch, next) = gather(first, lines);
        let result = match &mut writer {
            Some(writer) => writer.append(&batch),
            None => pages.record_writer().and_then(|fresh| writer.insert(fresh).append(&batch)),
        };
        match result {
            Ok(()) => told = false,
            Err(error) => {
                writer = None;
                if !std::mem::replace(&mut told, true) {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "decisions are not on shared storage: other nodes cannot explain them"
                    );
                }
            }
        }
    }
}

/// What fits into one record with `first`, and the line that did not.
fn gather(first: Vec<u8>, lines: &Receiver<Vec<u8>>) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut batch, until) = (first, Instant::now() + GATHER);
    batch.push(b'\n');
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if batch.len() + line.len() < MAX_RECORD => {
                batch.extend_from_slice(&line);
                batch.push(b'\n');
            }
            Ok(line) => return (batch, Some(line)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return (batch, None);
            }
        }
    }
}

fn read(pages: &PageStore, nodes: &[(NodeId, String)]) -> Shared {
    let (mut reports, mut notes) = (Vec::new(), Vec::new());
    for (node, name) in nodes {
        match pages.read_records(*node) {
            Ok(batches) => reports.extend(batches.iter().flat_map(|batch| parse(batch))),
            Err(error) => notes.push(format!("the decisions of {} are missing: {error:#}", name)),
        }
    }
    (reports, notes)
}

/// What this version understands of a batch of lines.
fn parse(batch: &[u8]) -> impl Iterator<Item = DecisionReport> {
    let lines = batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_together_share_a_record_until_it_is_full() {
        let (queue, lines) = sync_channel(10);
        let large = vec![b'x'; MAX_RECORD - 3];
        for line in [b"b".to_vec(), large.clone(), b"c".to_vec()] {
            queue.send(line).unwrap();
        }
        let (batch, next) = gather(b"a".to_vec(), &lines);
        assert_eq!((batch, next.as_ref()), (b"a\nb\n".to_vec(), Some(&large)));
        let (batch, next) = gather(next.unwrap(), &lines);
        assert_eq!((batch.len(), next), (MAX_RECORD, None));
    }

    #[test]
    fn lines_of_another_version_are_passed_over() {
        let good = serde_json::to_vec(&DecisionReport::sample()).unwrap();
        let batch = [b"{\"new\":1}\n".as_slice(), &good, b"\ntorn".as_slice()].concat();
        assert_eq!(parse(&batch).count(), 1);
    }
}
