//! The engine's loop: takes what is queued, decides, commits, applies, flushes once, answers.

mod recovery;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evocache_proto::domain::SearchId;
use tokio::sync::{broadcast, mpsc, watch};

use super::advisers::{Advisers, Heard, Thinking};
use super::command::{Answer, Command, Refusal, Request};
use super::decide::{Context, Decision, decide};
use super::handle::{Change, Handle, Message, Reply};
use super::meters::Meters;
use super::state::{Inconsistent, State};
use super::waiters::{Class, Waiter, Waiters};
use crate::faults::{self, Point};
use crate::ports::{Cleared, Clock, Fact, IdSource, Room, Store, StoreError};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;
use recovery::recover;

/// Calls that may wait to be decided; the next is refused as busy.
const QUEUE: usize = 16 * 1024;
/// Calls decided before a flush.
const BATCH: usize = 512;
/// After so much work at a stretch, what was decided is answered, and whoever has come meanwhile is heard.
const STRETCH: Duration = Duration::from_millis(20);
/// And so much of it for workers that wait, of each kind: those whose patience is over, and those that get work.
const SERVING: Duration = Duration::from_millis(10);
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
    /// Where models think.
    pub thinking: Thinking,
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

/// The engine panicked. What was answered is on disk; the process must end, so that whoever supervises it starts it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub struct EnginePanic(pub String);

/// A running engine.
pub struct Engine {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Holds the panic once there was one; closed when the thread has ended.
    panicked: watch::Receiver<Option<EnginePanic>>,
}

/// Recovers the state from the store. Nothing is done before the work is run.
pub fn open(settings: Settings) -> Result<(Handle, Work), EngineError> {
    let now = settings.clock.now();
    let state = recover(settings.store.as_ref(), now, &settings.policy)?;
    let (queue, inbox) = mpsc::channel(QUEUE);
    let (changes, _) = broadcast::channel(CHANGES);
    let meters = Arc::new(Meters::default());
    let store = Arc::downgrade(&settings.store);
    let actor = Actor {
        advisers: Advisers::new(settings.thinking, queue.clone()),
        state,
        settings,
        inbox,
        changes: changes.clone(),
        waiters: Waiters::default(),
        unserved: VecDeque::new(),
        served: None,
        outbox: vec![],
        news: vec![],
        dirty: false,
        unsynced: false,
        hurried: false,
        clearing: false,
        broken: None,
        stale: false,
        scarce: None,
        meters: meters.clone(),
        ticked: now,
        tidied: now,
        tried: now,
    };
    Ok((Handle { queue, changes, store, meters }, Work(actor)))
}

/// What an engine does; to be run on any runtime that has time. Blocks while it writes to the disk.
pub struct Work(Actor);

impl Work {
    /// Ends after what is queued once it is told to [stop](Handle::stop).
    pub async fn run(self) {
        self.0.run().await;
    }
}

impl Engine {
    /// Recovers the state from the store and starts a thread of its own.
    pub fn start(settings: Settings) -> Result<Self, EngineError> {
        let (handle, work) = open(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (tell, panicked) = watch::channel(None);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            // Nothing is used after a panic: the state goes with the actor, and the store is closed.
            let worked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work.run())));
            if let Err(panic) = worked {
                let panic = EnginePanic(text(panic.as_ref()));
                tracing::error!("{panic}");
                tell.send_replace(Some(panic));
            }
        })?;
        Ok(Self { handle, thread, panicked })
    }

    /// Returns when the engine has panicked, and not otherwise.
    pub async fn panicked(&self) -> EnginePanic {
        let mut panicked = self.panicked.clone();
        let panic = panicked.wait_for(Option::is_some).await.ok().and_then(|panic| panic.clone());
        match panic {
            Some(panic) => panic,
            // It was told to stop, and has.
            None => std::future::pending().await,
        }
    }

    /// How to talk to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether it has panicked: it decides nothing any more.
    pub fn has_panicked(&self) -> bool {
        self.panicked.borrow().is_some()
    }

    /// Ends the thread after what is queued. Blocks until it has ended; tells whether it has panicked before.
    pub fn stop(self) -> Result<(), EnginePanic> {
        self.handle.stop();
        // Its panics are caught inside.
        let _ = self.thread.join();
        self.panicked.borrow().clone().map_or(Ok(()), Err)
    }
}

/// What a panic said.
fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it does not say why".into())
}

struct Actor {
    state: State,
    settings: Settings,
    inbox: mpsc::Receiver<Message>,
    advisers: Advisers,
    changes: broadcast::Sender<Change>,
    waiters: Waiters,
    /// Classes of waiting workers for which there may be something to do, and the one that was served last.
    unserved: VecDeque<Class>,
    served: Option<Class>,
    /// Answers that wait for the flush.
    outbox: Vec<(Reply, Result<Answer, Refusal>)>,
    /// Changes to tell watchers after the flush.
    news: Vec<Change>,
    /// Something changed that may give a waiting worker something to do.
    dirty: bool,
    unsynced: bool,
    /// There may be more workers whose patience is over.
    hurried: bool,
    /// There is more to remove of a deleted search, and nothing in the way.
    clearing: bool,
    /// A flush failed: memory may be ahead of the disk, so nothing more is decided.
    broken: Option<StoreError>,
    /// The store was opened again, and memory is of the one before.
    stale: bool,
    /// The store's room, while it is scarce.
    scarce: Option<Room>,
    meters: Arc<Meters>,
    ticked: Timestamp,
    tidied: Timestamp,
    /// When the store was last tried again.
    tried: Timestamp,
}

impl Actor {
    async fn run(mut self) {
        self.look_at_room();
        let searches: Vec<SearchId> = self.state.searches.keys().cloned().collect();
        searches.iter().for_each(|search| self.teach(search));
        let (mut heard, mut messages) = (Vec::with_capacity(BATCH), VecDeque::with_capacity(BATCH));
        loop {
            if messages.is_empty() {
                let behind = !self.state.behind.is_empty() && self.broken.is_none();
                let has_work = self.clearing || behind || self.hurried || !self.unserved.is_empty();
                let patience = if has_work { Duration::ZERO } else { TICK };
                // Nothing queued is fine: the clock is looked at all the same.
                if let Ok(0) = tokio::time::timeout(patience, self.inbox.recv_many(&mut heard, BATCH)).await {
                    return;
                }
                messages.extend(heard.drain(..));
            }
            let began = moment();
            while let Some(message) = messages.pop_front() {
                if self.handle(message).is_break() {
                    self.flush();
                    return;
                }
                if self.is_over(began, STRETCH) {
                    break;
                }
            }
            self.look_at_clock();
            if std::mem::take(&mut self.dirty) {
                self.unserved = self.waiters.classes_after(self.served.as_ref());
            }
            self.serve_waiters();
            self.clear_some();
            self.add_up_some();
            self.flush();
            self.meters.busy.record(began.elapsed());
        }
    }

    /// Whether this has taken its time. Never where all is to depend on the commands alone, as in a simulation.
    fn is_over(&self, began: Instant, time: Duration) -> bool {
        self.settings.thinking == Thinking::Aside && began.elapsed() > time
    }

    /// Breaks when it is told to stop.
    fn handle(&mut self, message: Message) -> ControlFlow<()> {
        if !matches!(message, Message::Advised { .. }) {
            self.meters.queued.fetch_sub(1, Relaxed);
        }
        match message {
            Message::Stop => return ControlFlow::Break(()),
            Message::Look(look) => {
                self.meters.looks.fetch_add(1, Relaxed);
                look(&self.state, self.settings.clock.now());
            }
            Message::Do { request, command, reply } => self.take(request.as_ref(), &command, reply),
            Message::Wait { worker, wait, reply } => {
                let until = self.settings.clock.now().plus(wait);
                self.receive(Waiter { worker, until, reply });
            }
            Message::Advised { search, adviser, advice } => {
                if self.advisers.is_current(&search, adviser) {
                    self.heard(&search, advice.map_or(Heard::Mute, Heard::Advice));
                }
            }
        }
        ControlFlow::Continue(())
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
        let (policy, ids) = (&self.settings.policy, self.settings.ids.as_ref());
        let context = Context { now, policy, ids, scarce: self.scarce };
        faults::pass(Point::DecideBefore);
        let decided = decide(&self.state, request, command, &context);
        faults::pass(Point::DecideAfter);
        let decided = decided.inspect_err(|refusal| self.meters.refused(command, refusal));
        let Decision { facts, touches, answer } = decided?;
        if !facts.is_empty() {
            if let Some(room) = self.scarce.filter(Room::is_used_up) {
                return Err(Refusal::Full(room));
            }
            if let Err(e) = self.settings.store.commit(&facts) {
                self.break_down(e.clone());
                return Err(e.into());
            }
            self.meters.decided(command, &facts);
            self.unsynced = true;
            self.dirty = true;
            faults::pass(Point::ApplyBefore);
        }
        let (mut taught, mut leavers): (Vec<SearchId>, Vec<Waiter>) = (vec![], vec![]);
        for fact in facts {
            self.news.extend(news(&fact));
            if let Fact::Evaluated { search, .. }
            | Fact::Disowned { search, .. }
            | Fact::SearchMoved { search, .. }
            | Fact::SearchExtended { search, .. }
            | Fact::SearchDeleted { search } = &fact
            {
                taught.push(search.clone());
            }
            if let Fact::Disowned { search, .. } = &fact {
                // It has heard what is no longer believed.
                self.advisers.dismiss(search);
            }
            if let Fact::WorkerQuarantined { worker, reason, .. } = &fact {
                tracing::warn!(%worker, reason, "worker in quarantine");
            }
            if let Fact::WorkerDraining { worker }
            | Fact::WorkerQuarantined { worker, .. }
            | Fact::WorkerForgotten { worker } = &fact
            {
                leavers.extend(self.waiters.take_worker(worker));
            }
            if let Err(e) = self.state.apply(fact) {
                self.contradicts(&e);
                return Err(Refusal::Internal(e.to_string()));
            }
        }
        for touch in touches {
            self.state.touch(touch);
        }
        faults::pass(Point::ApplyAfter);
        taught.iter().for_each(|search| self.teach(search));
        leavers.into_iter().for_each(|waiter| self.answer(waiter));
        Ok(answer.unwrap_or(Answer::Accepted))
    }

    /// Adds up another part of a search that is added up anew.
    fn add_up_some(&mut self) {
        let Some(search) = self.state.behind.first().cloned().filter(|_| self.broken.is_none()) else { return };
        match self.state.add_up_some(&search) {
            Ok(false) => {}
            Ok(true) => {
                self.teach(&search);
                self.news.push(Change { search, evaluation: None });
                self.dirty = true;
            }
            Err(e) => self.contradicts(&e),
        }
    }

    /// Memory and disk do not fit together: a bug. A restart shows what is stored.
    fn contradicts(&mut self, problem: &Inconsistent) {
        tracing::error!(error = %problem, "a decision contradicts the state");
        self.break_down(StoreError::Failed(format!("internal contradiction: {problem}; restart the coordinator")));
    }

    /// Hands on what the search's adviser is to hear.
    fn teach(&mut self, id: &SearchId) {
        let Some(search) = self.state.searches.get_mut(id) else {
            self.advisers.dismiss(id);
            return;
        };
        if search.is_behind() {
            return;
        }
        let Some((_, breeder)) = &mut search.bound else { return };
        let lessons = breeder.lessons();
        if search.phase.is_final() {
            self.advisers.dismiss(id);
        } else if !lessons.is_empty() {
            let heard = self.advisers.teach(id, lessons, || breeder.adviser());
            self.heard(id, heard);
        }
    }

    fn heard(&mut self, id: &SearchId, heard: Heard) {
        let bound = self.state.searches.get_mut(id).and_then(|search| search.bound.as_mut());
        let Some((_, breeder)) = bound else { return };
        match heard {
            Heard::Nothing => return,
            Heard::Advice(advice) => breeder.give(advice),
            Heard::Mute => breeder.go_unadvised(),
        }
        // Whoever waited for advice need not wait any more.
        self.dirty = true;
    }

    fn look_at_clock(&mut self) {
        let (now, began) = (self.settings.clock.now(), moment());
        self.hurried = false;
        while let Some(waiter) = self.waiters.take_impatient(now) {
            self.answer(waiter);
            if self.is_over(began, SERVING) {
                self.hurried = true;
                break;
            }
        }
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.look_at_room();
        self.background(&Command::Tick);
        // A candidate's back-off may have passed.
        self.dirty |= self.waiters.len() > 0;
        if now.since(self.tidied) >= TIDY {
            self.tidied = now;
            self.background(&Command::Tidy);
        }
        // Last: who comes back is to be heard before a clock that stood still ends any lease.
        self.look_at_store(now);
    }

    fn look_at_room(&mut self) {
        let room = self.settings.store.room();
        let scarce = room.filter(Room::is_scarce);
        match (self.scarce, scarce) {
            (None, Some(room)) => tracing::error!("nothing new is begun: {}", Refusal::Full(room)),
            (Some(_), None) => tracing::info!("the store's disk has room again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.scarce = scarce;
        self.meters.room(room);
    }

    /// Decides nothing more before the store is open again.
    fn break_down(&mut self, error: StoreError) {
        self.meters.broken.store(true, Relaxed);
        self.broken = Some(error);
    }

    fn background(&mut self, command: &Command) {
        if let Err(e) = self.carry_out(None, command)
            && self.broken.is_none()
            && !matches!(e, Refusal::Full(_))
        {
            tracing::warn!(error = %e, "background work was not carried out");
        }
    }

    /// A worker asks for work: it gets some at once, or waits in line behind those that declared the same.
    fn receive(&mut self, waiter: Waiter) {
        let class = self.state.workers.get(&waiter.worker).filter(|worker| !worker.draining).map(|w| w.class.clone());
        match class {
            Some(class) => {
                self.waiters.push(class, waiter);
                self.dirty = true;
            }
            None => self.answer(waiter),
        }
    }

    /// Answers a worker now, with work or without.
    fn answer(&mut self, waiter: Waiter) {
        if !waiter.reply.is_closed() {
            let result = self.carry_out(None, &Command::Acquire { worker: waiter.worker });
            self.outbox.push((waiter.reply, result));
        }
    }

    /// Gives waiting workers what there is, first come first served in every class, and the classes in turn. At least one
    /// is served, whatever time it is.
    fn serve_waiters(&mut self) {
        let began = moment();
        while let Some(class) = self.unserved.pop_front() {
            let Some((place, worker)) = self.waiters.first(&class) else { continue };
            let result = self.carry_out(None, &Command::Acquire { worker });
            if !matches!(&result, Ok(Answer::Work { offer: None, draining: false, .. })) {
                if let Some(waiter) = self.waiters.take(&class, place) {
                    self.outbox.push((waiter.reply, result));
                }
                // It goes on until its time is over; the next one begins after it.
                self.unserved.push_front(class.clone());
            }
            self.served = Some(class);
            if self.is_over(began, SERVING) {
                self.unserved.rotate_left(usize::from(self.unserved.front() == self.served.as_ref()));
                return;
            }
        }
    }

    /// Removes some records of a deleted search. Those of a small one are gone before its deletion is answered.
    fn clear_some(&mut self) {
        self.clearing = false;
        let Some(search) = self.state.deleted.first().cloned().filter(|_| self.broken.is_none()) else { return };
        if self.scarce.is_some_and(|room| room.is_used_up()) {
            return;
        }
        match self.settings.store.clear(&search) {
            Ok(Cleared::Later) => {}
            Ok(Cleared::Some) => (self.unsynced, self.clearing) = (true, true),
            Ok(Cleared::All) => {
                // There may be another.
                self.clearing = true;
                self.background(&Command::Clear { search });
            }
            Err(e) => self.break_down(e),
        }
    }

    /// Makes everything committed durable, then answers.
    fn flush(&mut self) {
        if std::mem::take(&mut self.unsynced)
            && let Err(e) = self.sync()
        {
            tracing::error!(error = %e, "the store cannot be flushed: nothing more is decided until it is open again");
            for (_, result) in &mut self.outbox {
                *result = Err(Refusal::Store(e.clone()));
            }
            self.break_down(e);
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
        let began = Instant::now();
        let synced = self.settings.store.sync();
        self.meters.flushes.record(began.elapsed());
        synced
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long the engine works; decides nothing but when to answer")]
fn moment() -> Instant {
    Instant::now()
}

fn news(fact: &Fact) -> Option<Change> {
    match fact {
        Fact::Evaluated { search, evaluation, .. } => {
            Some(Change { search: search.clone(), evaluation: Some(evaluation.clone()) })
        }
        Fact::SearchCreated { search, .. }
        | Fact::SearchBound { search, .. }
        | Fact::SearchMoved { search, .. }
        | Fact::SearchExtended { search, .. }
        | Fact::Disowned { search, .. }
        | Fact::SearchDeleted { search } => Some(Change { search: search.clone(), evaluation: None }),
        Fact::LeaseMoved { search, state, .. } if !state.is_open() => {
            Some(Change { search: search.clone(), evaluation: None })
        }
        Fact::LeaseMoved { .. }
        | Fact::CandidateCreated { .. }
        | Fact::WorkerRegistered { .. }
        | Fact::WorkerDraining { .. }
        | Fact::WorkerQuarantined { .. }
        | Fact::WorkerForgotten { .. }
        | Fact::SearchCleared { .. }
        | Fact::RequestAnswered { .. }
        | Fact::RequestForgotten { .. } => None,
    }
}
