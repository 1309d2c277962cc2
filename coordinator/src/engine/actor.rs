//! The engine's thread: takes what is queued, decides, commits, applies, flushes once, answers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use evocache_proto::domain::WorkerId;
use tokio::sync::broadcast;

use super::command::{Answer, Command, Refusal, Request};
use super::decide::{Context, Decision, decide};
use super::handle::{Change, Handle, Message, Reply};
use super::meters::Meters;
use super::state::{Inconsistent, State};
use crate::domain::lease::RetryPolicy;
use crate::domain::time::Timestamp;
use crate::faults::{self, Point};
use crate::ports::{Clock, Fact, IdSource, Store, StoreError};

/// Calls that may wait to be decided; the next is refused as busy.
const QUEUE: usize = 16 * 1024;
/// Calls decided before a flush.
const BATCH: usize = 512;
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often old things are forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// Changes a watcher may lag behind before it misses some.
const CHANGES: usize = 1024;

/// What an engine is made of.
pub struct Settings {
    /// Where facts are kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<dyn IdSource>,
    /// How long leases last and how often a candidate is tried.
    pub policy: RetryPolicy,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The facts cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The facts do not fit together.
    #[error("the store's records contradict each other: {0}")]
    Inconsistent(#[from] Inconsistent),
    /// No thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running engine.
pub struct Engine {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Recovers the state from the store and starts the thread.
    pub fn start(settings: Settings) -> Result<Self, EngineError> {
        let now = settings.clock.now();
        let state = State::recover(settings.store.load()?, now, &settings.policy)?;
        let (queue, inbox) = sync_channel(QUEUE);
        let (changes, _) = broadcast::channel(CHANGES);
        let meters = Arc::new(Meters::default());
        let store = Arc::downgrade(&settings.store);
        let handle = Handle { queue, changes: changes.clone(), store, meters: meters.clone() };
        let actor = Actor {
            state,
            settings,
            inbox,
            changes,
            waiters: VecDeque::new(),
            outbox: vec![],
            news: vec![],
            dirty: false,
            unsynced: false,
            broken: None,
            meters,
            ticked: now,
            tidied: now,
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || actor.run())?;
        Ok(Self { handle, thread })
    }

    /// How to talk to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the thread after what is queued. Blocks until it has ended.
    pub fn stop(self) {
        self.handle.stop();
        if self.thread.join().is_err() {
            tracing::error!("the engine's thread panicked");
        }
    }
}

struct Waiter {
    worker: WorkerId,
    until: Timestamp,
    reply: Reply,
}

struct Actor {
    state: State,
    settings: Settings,
    inbox: Receiver<Message>,
    changes: broadcast::Sender<Change>,
    waiters: VecDeque<Waiter>,
    /// Answers that wait for the flush.
    outbox: Vec<(Reply, Result<Answer, Refusal>)>,
    /// Changes to tell watchers after the flush.
    news: Vec<Change>,
    /// Something changed that may give a waiting worker something to do.
    dirty: bool,
    unsynced: bool,
    /// A flush failed: memory may be ahead of the disk, so nothing more is decided.
    broken: Option<StoreError>,
    meters: Arc<Meters>,
    ticked: Timestamp,
    tidied: Timestamp,
}

impl Actor {
    fn run(mut self) {
        loop {
            let mut next = match self.inbox.recv_timeout(TICK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut taken = 0;
            while let Some(message) = next.take() {
                self.meters.queued.fetch_sub(1, Relaxed);
                match message {
                    Message::Stop => {
                        self.flush();
                        return;
                    }
                    Message::Look(look) => look(&self.state, self.settings.clock.now()),
                    Message::Do { request, command, reply } => self.take(request.as_ref(), &command, reply),
                    Message::Wait { worker, wait, reply } => {
                        let until = self.settings.clock.now().plus(wait);
                        self.waiters.push_back(Waiter { worker, until, reply });
                        self.dirty = true;
                    }
                }
                taken += 1;
                if taken < BATCH {
                    next = self.inbox.try_recv().ok();
                }
            }
            self.look_at_clock();
            if std::mem::take(&mut self.dirty) {
                self.serve_waiters();
            }
            self.flush();
        }
    }

    fn take(&mut self, request: Option<&Request>, command: &Command, reply: Reply) {
        let result = self.carry_out(request, command);
        self.outbox.push((reply, result));
    }

    /// Decide, commit, apply.
    fn carry_out(&mut self, request: Option<&Request>, command: &Command) -> Result<Answer, Refusal> {
        if let Some(error) = &self.broken {
            return Err(Refusal::Store(error.clone()));
        }
        let now = self.settings.clock.now();
        let context = Context { now, policy: &self.settings.policy, ids: self.settings.ids.as_ref() };
        faults::pass(Point::DecideBefore);
        let decided = decide(&self.state, request, command, &context);
        faults::pass(Point::DecideAfter);
        let decided = decided.inspect_err(|refusal| self.meters.refused(command, refusal));
        let Decision { facts, touches, answer } = decided?;
        if !facts.is_empty() {
            self.settings.store.commit(&facts)?;
            self.meters.decided(command, &facts);
            self.unsynced = true;
            self.dirty = true;
            faults::pass(Point::ApplyBefore);
        }
        for fact in facts {
            self.news.extend(news(&fact));
            if let Err(e) = self.state.apply(fact, now) {
                // A decision made a fact that does not fit: a bug. Disk is ahead of memory; a restart would show it.
                tracing::error!(error = %e, "a decision contradicts the state");
                self.meters.broken.store(true, Relaxed);
                self.broken = Some(StoreError::Failed(format!("internal contradiction: {e}; restart the coordinator")));
                return Err(Refusal::Internal(e.to_string()));
            }
        }
        for touch in touches {
            self.state.touch(touch);
        }
        faults::pass(Point::ApplyAfter);
        Ok(answer.unwrap_or(Answer::Accepted))
    }

    fn look_at_clock(&mut self) {
        let now = self.settings.clock.now();
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.background(&Command::Tick);
        // A candidate's back-off may have passed, or a waiter's patience.
        self.dirty |= !self.waiters.is_empty();
        if now.since(self.tidied) >= TIDY {
            self.tidied = now;
            self.background(&Command::Tidy);
        }
    }

    fn background(&mut self, command: &Command) {
        if let Err(e) = self.carry_out(None, command)
            && self.broken.is_none()
        {
            tracing::warn!(error = %e, "background work was not carried out");
        }
    }

    /// Gives waiting workers what there is, first come first served. Workers that declared the same are served
    /// alike: when there is nothing for one of them, the others are not asked.
    fn serve_waiters(&mut self) {
        let now = self.settings.clock.now();
        let mut idle: BTreeSet<(String, String, String)> = BTreeSet::new();
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.reply.is_closed() {
                continue;
            }
            let entry = self.state.workers.get(&waiter.worker);
            let draining = entry.is_some_and(|w| w.draining);
            let key = entry.map(|w| {
                let d = &w.registration.declaration;
                (d.model.clone(), d.fingerprint.clone(), d.layout.to_string())
            });
            let known_idle = !draining && key.as_ref().is_some_and(|key| idle.contains(key));
            let patient = now < waiter.until;
            if known_idle && patient {
                self.waiters.push_back(waiter);
                continue;
            }
            let result = self.carry_out(None, &Command::Acquire { worker: waiter.worker.clone() });
            let nothing = matches!(&result, Ok(Answer::Work { offer: None, draining: false }));
            if nothing {
                idle.extend(key);
            }
            if nothing && patient {
                self.waiters.push_back(waiter);
            } else {
                self.outbox.push((waiter.reply, result));
            }
        }
    }

    /// Makes everything committed durable, then answers.
    fn flush(&mut self) {
        if std::mem::take(&mut self.unsynced)
            && let Err(e) = self.sync()
        {
            tracing::error!(error = %e, "the store cannot be flushed: nothing more is decided until a restart");
            for (_, result) in &mut self.outbox {
                *result = Err(Refusal::Store(e.clone()));
            }
            self.meters.broken.store(true, Relaxed);
            self.broken = Some(e);
            self.news.clear();
        }
        if !self.outbox.is_empty() {
            faults::pass(Point::AnswerBefore);
        }
        for (reply, result) in self.outbox.drain(..) {
            // Whoever asked may have gone away; the effect stands, and a repeat gets the same answer.
            let _ = reply.send(result);
        }
        faults::pass(Point::AnswerAfter);
        for change in self.news.drain(..) {
            // No watcher is fine.
            let _ = self.changes.send(change);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long the disk takes; nothing is decided by it")]
    fn sync(&self) -> Result<(), StoreError> {
        let began = std::time::Instant::now();
        let synced = self.settings.store.sync();
        self.meters.flushes.record(began.elapsed());
        synced
    }
}

fn news(fact: &Fact) -> Option<Change> {
    match fact {
        Fact::Evaluated { search, evaluation, .. } => {
            Some(Change { search: search.clone(), evaluation: Some(evaluation.clone()) })
        }
        Fact::SearchCreated { search, .. }
        | Fact::SearchBound { search, .. }
        | Fact::SearchMoved { search, .. }
        | Fact::SearchDeleted { search } => Some(Change { search: search.clone(), evaluation: None }),
        Fact::LeaseMoved { search, state, .. } if !state.is_open() => {
            Some(Change { search: search.clone(), evaluation: None })
        }
        Fact::LeaseMoved { .. }
        | Fact::CandidateCreated { .. }
        | Fact::WorkerRegistered { .. }
        | Fact::WorkerDraining { .. }
        | Fact::WorkerForgotten { .. }
        | Fact::RequestAnswered { .. }
        | Fact::RequestForgotten { .. } => None,
    }
}
