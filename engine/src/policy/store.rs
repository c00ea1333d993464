//! Who decides: the active generation, else the last good one, else the agent's own twin.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use steadfast_sdk::wire::{
    NodePriorityQuestion, NodePriorityVerdict, PlacementQuestion, PlacementVerdict, RiskQuestion,
    RiskVerdict,
};

use super::book::{Book, Rung};
use super::generation::{Generation, hex};
use super::kind::Question;
use super::load::{Ahead, Progress, Source, encode, micros};
use super::rollback;
use super::sandbox::Sandbox;
use super::settings::Settings;
use super::shadow::{Job, Shadows};
use super::status::PoliciesStatus;
use super::watch::{self, Message};
use super::{Failure, Kind, PolicyStatus};

/// A verdict, and who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer<V> {
    /// The verdict: of valid shape, legality is the core's to judge.
    pub verdict: V,
    /// Who gave it.
    pub decider: Decider,
}

/// Who gave a verdict, for the decision's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decider {
    /// Name of the policy.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of module, parameters and limits, in hex.
    pub digest: String,
    /// Which rung of the ladder it stands on.
    pub kind: DeciderKind,
    /// Fuel it used; 0 for the agent's own.
    pub fuel: u64,
    /// Time from question to checked verdict in microseconds, failures of better deciders included.
    pub micros: u64,
    /// Why better deciders were not used.
    pub failures: Vec<String>,
}

/// Rungs of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeciderKind {
    /// The policy that the folder names.
    Active,
    /// One that was active before, or whose file is gone or broken.
    LastGood,
    /// The agent's own.
    BuiltIn,
}

/// Holds the policies of a folder and asks them. Calls block, at worst for a few wall deadlines; never
/// call from the lease path.
pub struct PolicyStore {
    folder: PathBuf,
    pub(super) settings: Settings,
    pub(super) sandbox: Arc<Sandbox>,
    book: Mutex<Book>,
    /// What the next scan is likely to load.
    ahead: Mutex<Option<Ahead>>,
    shadows: Shadows,
    scans: Mutex<u64>,
    scanned: Condvar,
    wake: Mutex<Sender<Message>>,
    told: Mutex<Vec<PolicyStatus>>,
}

impl std::fmt::Debug for PolicyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl PolicyStore {
    /// Begins to watch the folder and to load what is in it, on a thread of its own; returns at once
    /// (see [`PolicyStore::wait_for_scan`]). A folder that is missing is picked up when it appears.
    /// `on_change` hears of every policy whose state, digest or error changes, on that thread.
    ///
    /// # Errors
    /// The sandbox cannot be set up, or no thread can be started.
    pub fn start(
        folder: PathBuf,
        settings: impl Into<Settings>,
        on_change: impl Fn(&PolicyStatus) + Send + 'static,
    ) -> anyhow::Result<Arc<Self>> {
        let (wake, woken): (Sender<Message>, Receiver<Message>) = channel();
        let store = Arc::new(Self::new(folder, settings.into(), wake.clone())?);
        let (weak, folder) = (Arc::downgrade(&store), store.folder.clone());
        watch::spawn(weak, folder, (wake, woken), on_change, store.settings.rescan)?;
        Ok(store)
    }

    /// A store that nobody wakes.
    #[cfg(test)]
    pub(super) fn unwatched(
        folder: PathBuf,
        settings: impl Into<Settings>,
    ) -> anyhow::Result<Arc<Self>> {
        Self::new(folder, settings.into(), channel().0).map(Arc::new)
    }

    fn new(folder: PathBuf, settings: Settings, wake: Sender<Message>) -> anyhow::Result<Self> {
        let sandbox = Arc::new(Sandbox::new(settings.limits.clone())?);
        let mut book = Book::default();
        rollback::recall(&settings, &mut book);
        Ok(Self {
            folder,
            shadows: Shadows::start(Arc::clone(&sandbox))?,
            settings,
            sandbox,
            book: Mutex::new(book),
            ahead: Mutex::default(),
            scans: Mutex::default(),
            scanned: Condvar::new(),
            wake: Mutex::new(wake),
            told: Mutex::default(),
        })
    }

    /// How well would this node lead? Blocks; always answers.
    pub fn ask_node_priority(
        &self,
        question: &NodePriorityQuestion,
    ) -> Answer<NodePriorityVerdict> {
        self.ask(question)
    }

    /// In which order do these VMs start, and where? Blocks; always answers.
    pub fn ask_placement(&self, question: &PlacementQuestion) -> Answer<PlacementVerdict> {
        self.ask(question)
    }

    /// How likely is this node to fail soon? Blocks; always answers. Shadows are asked too.
    pub fn ask_risk(&self, question: &RiskQuestion) -> Answer<RiskVerdict> {
        let answer = self.ask(question);
        self.tell(question, answer.clone(), drop);
        answer
    }

    /// As [`PolicyStore::ask_node_priority`], of the one generation that the nodes have agreed on: any other would only be
    /// outvoted. Without it, or when it fails, the agent's own answers. Shadows are asked after `tell`.
    pub fn decide_node_priority(
        &self,
        agreed: [u8; 32],
        question: &NodePriorityQuestion,
        tell: impl FnOnce(Answer<NodePriorityVerdict>),
    ) {
        let rung = self.book().rung_of(Kind::NodePriority, agreed);
        let missing = rung.is_none() && agreed != Kind::NodePriority.twin_digest();
        let failures = missing.then(|| {
            format!(
                "the nodes have not agreed on a generation that this node holds ({})",
                hex(&agreed[..4])
            )
        });
        let rungs = rung.into_iter().collect();
        let answer = self.climb_all(question, rungs, failures.into_iter().collect());
        self.tell(question, answer, tell);
    }

    /// As [`PolicyStore::ask_placement`]. Shadows are asked after `tell`.
    pub fn decide_placement(
        &self,
        question: &PlacementQuestion,
        tell: impl FnOnce(Answer<PlacementVerdict>),
    ) {
        self.tell(question, self.ask(question), tell);
    }

    /// All policies: the agent's own and those of the folder, by kind and generation.
    #[must_use]
    pub fn status(&self) -> PoliciesStatus {
        let mut status = self.book().status(&self.settings);
        for kind in &mut status.kinds {
            kind.differences = self.shadows.differences(kind.kind);
        }
        status
    }

    /// SHA-256 of who decides the kind: of module, parameters and limits.
    #[must_use]
    pub fn digest(&self, kind: Kind) -> [u8; 32] {
        self.book().digest(kind, &self.settings)
    }

    /// Waits until the folder has been scanned that many times since the start, or the time is over;
    /// returns whether it has. Once is what an agent waits for before its first decision.
    pub fn wait_for_scan(&self, scans: u64, timeout: Duration) -> bool {
        let done = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.scanned.wait_timeout_while(done, timeout, |done| *done < scans);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= scans
    }

    /// Lets the generation before the active one decide, until the folder says something else. The name of the one that
    /// decided until now; `None`: the agent's own did already.
    pub fn roll_back(&self, kind: Kind) -> Option<String> {
        let mut book = self.book();
        let from = book.seats[kind.seat()].roll_back()?;
        self.seats_changed(book);
        Some(from.to_string())
    }

    /// Lets the generation of this digest decide no more; whether it decides here, comes later, or never.
    pub fn turn_away(&self, kind: Kind, digest: [u8; 32]) {
        let mut book = self.book();
        book.seats[kind.seat()].turn_away(digest);
        self.seats_changed(book);
    }

    /// Takes a rollback back; false: there was none.
    pub fn undo_roll_back(&self, kind: Kind) -> bool {
        let mut book = self.book();
        let undone = book.seats[kind.seat()].forgive(kind, &self.settings.limits);
        self.seats_changed(book);
        undone
    }

    fn seats_changed(&self, mut book: MutexGuard<'_, Book>) {
        book.assign(&self.settings);
        rollback::remember(&self.settings, &book);
        drop(book);
        self.wake(Message::Publish);
    }

    /// Compiles the first module of the folder that was not tried yet, for the next scan: only that decides. On the loading thread.
    pub(super) fn look_ahead(&self) {
        let read = |path: PathBuf| {
            let source = Source::read(&path, &self.settings, &mut Progress::default()).ok()?;
            let tried = Some(source.fingerprint());
            let known =
                self.book().files.get(&watch::name(&path)).is_some_and(|it| it.tried == tried);
            if known { None } else { Some(source) }
        };
        let new = watch::modules(&self.folder).into_iter().find_map(read);
        let compiled = new.map(|source| source.compile_ahead(&self.sandbox, &self.settings));
        // What is wrong with it is the scan's to find.
        *self.ahead() = compiled.and_then(Result::ok);
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the folder, loads what is new in it, and gives the seats anew. On the loading thread.
    pub(super) fn scan(&self) {
        let files = watch::modules(&self.folder);
        for path in &files {
            self.load(path);
        }
        *self.ahead() = None;
        let mut book = self.book();
        for (name, entry) in &mut book.files {
            entry.present = files.iter().any(|path| watch::name(path) == *name);
        }
        book.assign(&self.settings);
        rollback::remember(&self.settings, &book);
        drop(book);
        *self.scans.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.scanned.notify_all();
    }

    /// Tells of every policy that changed since the last time.
    pub(super) fn publish(&self, on_change: &impl Fn(&PolicyStatus)) {
        let now: Vec<PolicyStatus> = self.status().all().cloned().collect();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |status: &PolicyStatus| told.iter().any(|old| old.news() == status.news());
        now.iter().filter(|status| !known(status)).for_each(on_change);
        *told = now;
    }

    fn load(&self, path: &std::path::Path) {
        let name = watch::name(path);
        let mut progress = Progress::default();
        let read = Source::read(path, &self.settings, &mut progress);
        let tried = read.as_ref().ok().map(Source::fingerprint);
        if tried.is_some() && self.book().files.get(&name).is_some_and(|it| it.tried == tried) {
            return;
        }
        let ahead = self.ahead().take();
        let loaded = read.and_then(|source| {
            source.trust(&self.settings, &mut progress)?;
            source.load(&self.sandbox, &self.settings, &mut progress, ahead)
        });
        let mut book = self.book();
        let entry = book.files.entry(name).or_default();
        entry.tried = tried;
        entry.stages = progress.stages;
        entry.failure = loaded.as_ref().err().cloned();
        if let Ok(generation) = loaded {
            book.admit(generation);
        }
        drop(book);
        watch::give_back_memory();
    }

    fn ask<Q: Question>(&self, question: &Q) -> Answer<Q::Verdict> {
        let rungs = self.book().rungs(Q::DECIDES);
        self.climb_all(question, rungs, Vec::new())
    }

    /// The first of the rungs that answers, else the agent's own.
    fn climb_all<Q: Question>(
        &self,
        question: &Q,
        rungs: Vec<Rung>,
        mut failures: Vec<String>,
    ) -> Answer<Q::Verdict> {
        let begin = Instant::now();
        let answer = rungs.iter().find_map(|rung| self.climb(question, rung, &mut failures));
        let mut answer = answer.unwrap_or_else(|| builtin(question));
        answer.decider.micros = micros(begin);
        answer.decider.failures = failures;
        answer
    }

    /// Hands over the answer, then has the shadows asked: nobody waits for them.
    fn tell<Q: Question>(
        &self,
        question: &Q,
        answer: Answer<Q::Verdict>,
        tell: impl FnOnce(Answer<Q::Verdict>),
    ) {
        let shadows = self.book().shadows(Q::DECIDES, &self.settings);
        if shadows.is_empty() {
            return tell(answer);
        }
        let decider = format!("{} {}", answer.decider.name, answer.decider.version);
        let decided = question.gist(&answer.verdict);
        tell(answer);
        if let Ok(question) = encode(question) {
            self.shadows.ask(Job { kind: Q::DECIDES, question, decided, decider, shadows });
        }
    }

    fn climb<Q: Question>(
        &self,
        question: &Q,
        rung: &Rung,
        failures: &mut Vec<String>,
    ) -> Option<Answer<Q::Verdict>> {
        let it = &rung.generation;
        if it.is_suspended(Q::DECIDES, &self.settings.limits) {
            failures.push(format!("{it}: suspended after too many failures in a row"));
            return None;
        }
        match self.attempt(question, it) {
            Ok((verdict, fuel)) => {
                let kind = if rung.last_good { DeciderKind::LastGood } else { DeciderKind::Active };
                Some(Answer { verdict, decider: Decider::of(it, kind, fuel) })
            }
            Err(failure) => {
                it.tally(Q::DECIDES).failed(&failure);
                failures.push(format!("{it}: {failure}"));
                self.wake(Message::Publish);
                None
            }
        }
    }

    fn attempt<Q: Question>(
        &self,
        question: &Q,
        generation: &Generation,
    ) -> Result<(Q::Verdict, u64), Failure> {
        let begin = Instant::now();
        let Generation { program, parameters, .. } = generation;
        let (verdict, usage) = self.sandbox.ask(program, parameters, question)?;
        generation.tally(Q::DECIDES).succeeded(&usage, begin.elapsed());
        Ok((verdict, usage.fuel))
    }

    fn wake(&self, message: Message) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a listener there is nobody to tell.
        let _ = wake.send(message);
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PolicyStore {
    fn drop(&mut self) {
        self.wake(Message::Stop);
    }
}

impl Decider {
    fn of(generation: &Generation, kind: DeciderKind, fuel: u64) -> Self {
        Self {
            name: generation.manifest.name.clone(),
            version: generation.manifest.version.clone(),
            digest: hex(&generation.digests.all),
            kind,
            fuel,
            micros: 0,
            failures: Vec::new(),
        }
    }
}

fn builtin<Q: Question>(question: &Q) -> Answer<Q::Verdict> {
    let twin = Q::DECIDES.twin();
    let decider = Decider {
        name: twin.name.to_string(),
        version: twin.version.to_string(),
        digest: hex(&Q::DECIDES.twin_digest()),
        kind: DeciderKind::BuiltIn,
        fuel: 0,
        micros: 0,
        failures: Vec::new(),
    };
    Answer { verdict: question.builtin(), decider }
}
