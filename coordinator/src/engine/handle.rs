//! How the rest of the program talks to the engine. Cheap to clone.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::command::{Answer, Command, Request};
use super::meters::Meters;
use super::refusal::Refusal;
use super::state::State;
use crate::ports::{BackupError, Progress, Store, StoreError};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::search::Plan;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{CandidateId, SearchId, WorkerId};

/// Something about a search changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The search.
    pub search: SearchId,
    /// The new evaluation, if that is what changed.
    pub evaluation: Option<Arc<Evaluation>>,
}

pub(super) type Reply = oneshot::Sender<Result<Answer, Refusal>>;
pub(super) type Look = Box<dyn FnOnce(&State, Timestamp) + Send>;

pub(super) enum Message {
    Do {
        request: Option<Request>,
        command: Box<Command>,
        reply: Reply,
    },
    Wait {
        worker: WorkerId,
        wait: Duration,
        reply: Reply,
    },
    Look(Look),
    /// A planner's answer; `None` if it has failed.
    Plan {
        search: SearchId,
        /// The planner's number.
        planner: u64,
        plan: Option<Plan>,
    },
    Stop,
}

/// Sends commands and questions to the engine's thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) queue: mpsc::Sender<Message>,
    pub(super) changes: broadcast::Sender<Change>,
    /// Weak: the store closes with the engine, not with the last connection.
    pub(super) store: Weak<dyn Store>,
    pub(super) meters: Arc<Meters>,
}

impl Handle {
    /// Carries out a command and returns when its effect is on disk. With a `request`, repeating it is harmless.
    pub async fn command(&self, request: Option<Request>, command: Command) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Do { request, command: Box::new(command), reply })?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// Asks for work for a worker; waits at most `wait` for some.
    pub async fn acquire(&self, worker: WorkerId, wait: Duration) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wait { worker, wait, reply })?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// Asks a question about the state. It runs on the engine's thread: keep it short.
    pub async fn query<T, F>(&self, question: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&State, Timestamp) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let look = Box::new(move |state: &State, now| {
            // Fails if the caller has gone away.
            let _ = reply.send(question(state, now));
        });
        self.send(Message::Look(look))?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// All changes of all searches from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The thumbnails that came with an evaluation. Reads the disk.
    pub fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, Refusal> {
        let store = self.store.upgrade().ok_or(Refusal::Stopping)?;
        Ok(store.thumbnails(search, candidate)?)
    }

    /// Writes a backup of what is stored at this moment. Blocks: it reads the disk and waits for `out`.
    pub fn back_up(&self, out: &mut dyn std::io::Write, progress: &mut Progress<'_>) -> Result<(), BackupError> {
        let closed = || StoreError::Failed("it is closed because the coordinator is stopping".into());
        self.store.upgrade().ok_or_else(closed)?.back_up(out, progress)
    }

    /// The engine's counters.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Whether the engine's thread is running. The store closes when it ends, however it ends.
    pub fn is_running(&self) -> bool {
        self.store.strong_count() > 0
    }

    /// Makes the engine stop after what is queued.
    pub fn stop(&self) {
        self.meters.queued.fetch_add(1, Relaxed);
        // A closed queue means that the engine has stopped. A full one gets shorter soon.
        while let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Stop) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&self, message: Message) -> Result<(), Refusal> {
        // Counted first, because the engine may take the message before `try_send` returns.
        self.meters.queued.fetch_add(1, Relaxed);
        self.queue.try_send(message).map_err(|e| {
            self.meters.queued.fetch_sub(1, Relaxed);
            match e {
                TrySendError::Full(_) => Refusal::Busy,
                TrySendError::Closed(_) => Refusal::Stopping,
            }
        })
    }
}
