//! Starts and stops the engine: opens it on a store, gives it a thread, reports its panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{broadcast, mpsc, watch};

use super::parts::Actor;
use super::replay::recover;
use super::settings::{EngineError, Settings};
use crate::engine::handle::Handle;
use crate::engine::meters::Meters;

/// The most calls that may wait to be decided; further ones are refused as busy.
const QUEUE: usize = 16 * 1024;
/// Changes that a watcher may lag behind before it misses some.
const CHANGES: usize = 1024;

/// The engine panicked. Everything it answered is on disk. The process must end, so that a supervisor starts it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub struct EnginePanic(pub String);

/// A running engine.
pub struct Engine {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Holds the panic after one; closed when the thread has ended.
    panicked: watch::Receiver<Option<EnginePanic>>,
}

/// Recovers the state from the store. The engine works once [`Work::run`] is polled.
pub fn open(settings: Settings) -> Result<(Handle, Work), EngineError> {
    let now = settings.clock.now();
    let state = recover(settings.store.as_ref(), now, &settings.policy)?;
    let (queue, inbox) = mpsc::channel(QUEUE);
    let (changes, _) = broadcast::channel(CHANGES);
    let meters = Arc::new(Meters::default());
    let store = Arc::downgrade(&settings.store);
    let actor = Actor::new(settings, state, now, (queue.clone(), inbox), changes.clone(), meters.clone());
    Ok((Handle { queue, changes, store, meters }, Work(actor)))
}

/// The engine's work, to be run on any runtime with a timer. Blocks while it writes to the disk.
pub struct Work(Actor);

impl Work {
    /// Runs until it is told to [stop](Handle::stop) and has done what was queued before.
    pub async fn run(self) {
        self.0.run().await;
    }
}

impl Engine {
    /// Recovers the state from the store and starts a thread.
    pub fn start(settings: Settings) -> Result<Self, EngineError> {
        let (handle, work) = open(settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (tell, panicked) = watch::channel(None);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            // Unwind safe: a panic drops the actor with its state, and the store closes.
            let worked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work.run())));
            if let Err(panic) = worked {
                let panic = EnginePanic(text(panic.as_ref()));
                tracing::error!("{panic}");
                tell.send_replace(Some(panic));
            }
        })?;
        Ok(Self { handle, thread, panicked })
    }

    /// Waits for a panic; never returns if there is none.
    pub async fn panicked(&self) -> EnginePanic {
        let mut panicked = self.panicked.clone();
        let panic = panicked.wait_for(Option::is_some).await.ok().and_then(|panic| panic.clone());
        match panic {
            Some(panic) => panic,
            // It was told to stop, and has.
            None => std::future::pending().await,
        }
    }

    /// A handle to send commands and questions with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether the engine has panicked and decides nothing any more.
    pub fn has_panicked(&self) -> bool {
        self.panicked.borrow().is_some()
    }

    /// Ends the thread after what is queued, and blocks until then. Returns an earlier panic.
    pub fn stop(self) -> Result<(), EnginePanic> {
        self.handle.stop();
        // Cannot fail: panics are caught inside the thread.
        let _ = self.thread.join();
        self.panicked.borrow().clone().map_or(Ok(()), Err)
    }
}

/// The message of a panic.
fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}
