//! The parts of the actor, and what all its steps need. Each step is a file of its own above this one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc};

use super::line::Line;
use super::planners::{ModelFitting, Planners};
use super::settings::Settings;
use super::store_state::{Event, StoreState};
use crate::engine::command::Answer;
use crate::engine::handle::{Change, Message, Reply};
use crate::engine::meters::Meters;
use crate::engine::refusal::Refusal;
use crate::engine::state::{Inconsistent, State};
use crate::ports::StoreError;
use evocache_domain::time::Timestamp;

pub(super) struct Actor {
    pub(super) state: State,
    pub(super) settings: Settings,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) planners: Planners,
    pub(super) line: Line,
    pub(super) store_state: StoreState,
    /// Answers that wait for the flush.
    pub(super) answers: Vec<(Reply, Result<Answer, Refusal>)>,
    /// Changes to tell watchers after the flush.
    pub(super) news: Vec<Change>,
    pub(super) watchers: broadcast::Sender<Change>,
    pub(super) meters: Arc<Meters>,
    /// The store has more records of a deleted search, and nothing keeps the engine from removing them.
    pub(super) clearing: bool,
    /// When the clock was last looked at, old things forgotten, and the store tried again.
    pub(super) ticked: Timestamp,
    pub(super) tidied: Timestamp,
    pub(super) tried: Timestamp,
}

impl Actor {
    pub(super) fn new(
        settings: Settings,
        state: State,
        now: Timestamp,
        (queue, inbox): (mpsc::Sender<Message>, mpsc::Receiver<Message>),
        watchers: broadcast::Sender<Change>,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            planners: Planners::new(settings.fitting, queue),
            state,
            settings,
            inbox,
            line: Line::default(),
            store_state: StoreState::new(),
            answers: vec![],
            news: vec![],
            watchers,
            meters,
            clearing: false,
            ticked: now,
            tidied: now,
            tried: now,
        }
    }

    /// Changes the state of the store.
    pub(super) fn store_changed(&mut self, event: Event) {
        self.store_state.step(event);
        self.meters.broken.store(!self.store_state.is_usable(), Relaxed);
    }

    /// A fact does not fit the state, which is a bug. Nothing more is decided; a restart recovers from what is stored.
    pub(super) fn contradicted(&mut self, problem: &Inconsistent) {
        tracing::error!(error = %problem, "a decision contradicts the state");
        let problem = format!("internal contradiction: {problem}; restart the coordinator");
        self.store_changed(Event::Failed(StoreError::Failed(problem)));
    }

    /// Whether work that began at `began` has taken its time. Never in simulations, where everything depends on the commands
    /// alone.
    pub(super) fn is_over(&self, began: Instant, time: Duration) -> bool {
        self.settings.fitting == ModelFitting::Background && began.elapsed() > time
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long the engine works; decides nothing but when to answer")]
pub(super) fn moment() -> Instant {
    Instant::now()
}
