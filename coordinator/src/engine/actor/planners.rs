//! Runs the planners, which fit error models: one thread per search, so that the engine never blocks on model fitting;
//! or on the engine's thread, for simulations that must not depend on when threads run.
//!
//! A planner's thread starts with the first inputs of its search and ends with the search. Threads are numbered, so
//! that a late plan of a dismissed planner is not taken for its successor's. If a planner panics, the panic is logged
//! and the search continues without plans. Does not know how plans are made: that is the domain's
//! `search/error_models/`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use evocache_proto::domain::SearchId;
use tokio::sync::mpsc;

use crate::engine::handle::Message;
use evocache_domain::search::{Plan, Planner, PlannerInput};

/// Where error models are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelFitting {
    /// On a thread for each search.
    #[default]
    Background,
    /// On the engine's thread, which blocks meanwhile.
    Inline,
}

/// The outcome of submitting inputs to a planner.
pub(super) enum Submitted {
    /// The plan arrives later as a message, or the inputs did not request one.
    Pending,
    /// The plan, computed inline.
    Plan(Plan),
    /// The search has no planner and will not get one.
    NoPlanner,
}

/// The planners of all running searches.
pub(super) struct Planners {
    fitting: ModelFitting,
    /// The engine's own queue, for plans.
    queue: mpsc::Sender<Message>,
    inline: BTreeMap<SearchId, Planner>,
    threads: BTreeMap<SearchId, Thread>,
    /// Number of threads started so far.
    started: u64,
}

/// A planner on its own thread.
struct Thread {
    number: u64,
    inputs: Sender<Vec<PlannerInput>>,
}

impl Planners {
    pub(super) fn new(fitting: ModelFitting, queue: mpsc::Sender<Message>) -> Self {
        Self { fitting, queue, inline: BTreeMap::new(), threads: BTreeMap::new(), started: 0 }
    }

    /// Submits inputs to the search's planner. `new` makes it for the first inputs.
    pub(super) fn submit(
        &mut self,
        search: &SearchId,
        inputs: Vec<PlannerInput>,
        new: impl FnOnce() -> Option<Planner>,
    ) -> Submitted {
        match self.fitting {
            ModelFitting::Inline => {
                if !self.inline.contains_key(search) {
                    let Some(planner) = new() else { return Submitted::NoPlanner };
                    self.inline.insert(search.clone(), planner);
                }
                let Some(planner) = self.inline.get_mut(search) else { return Submitted::NoPlanner };
                let answers = inputs.into_iter().filter_map(|input| planner.process(input));
                answers.last().map_or(Submitted::Pending, Submitted::Plan)
            }
            ModelFitting::Background => {
                if !self.threads.contains_key(search) {
                    let Some(planner) = new() else { return Submitted::NoPlanner };
                    self.started += 1;
                    let number = self.started;
                    match start(planner, search.clone(), number, self.queue.clone()) {
                        Ok(inputs) => drop(self.threads.insert(search.clone(), Thread { number, inputs })),
                        Err(error) => {
                            tracing::error!(%search, %error, "cannot start a thread for the error model: the search goes on without one");
                            return Submitted::NoPlanner;
                        }
                    }
                }
                // A send fails if the thread has panicked, which it has reported.
                let sent = self.threads.get(search).map(|thread| thread.inputs.send(inputs));
                if let Some(Ok(())) = sent { Submitted::Pending } else { Submitted::NoPlanner }
            }
        }
    }

    /// Whether the search's planner is still the one with this number.
    pub(super) fn is_current(&self, search: &SearchId, number: u64) -> bool {
        self.threads.get(search).is_some_and(|thread| thread.number == number)
    }

    /// Drops the search's planner.
    pub(super) fn dismiss(&mut self, search: &SearchId) {
        self.inline.remove(search);
        // The thread ends when its channel closes.
        self.threads.remove(search);
    }
}

fn start(
    planner: Planner,
    search: SearchId,
    number: u64,
    queue: mpsc::Sender<Message>,
) -> std::io::Result<Sender<Vec<PlannerInput>>> {
    let (inputs, inbox) = channel();
    std::thread::Builder::new().name("planner".into()).spawn(move || {
        let message = |plan| Message::Plan { search: search.clone(), planner: number, plan };
        let serve_plans = AssertUnwindSafe(|| listen(planner, &inbox, &queue, &message));
        if catch_unwind(serve_plans).is_err() {
            tracing::error!(%search, "the error model failed: the search goes on without it");
            // Fails if the engine has ended.
            let _ = queue.blocking_send(message(None));
        }
    })?;
    Ok(inputs)
}

fn listen(
    mut planner: Planner,
    inbox: &Receiver<Vec<PlannerInput>>,
    queue: &mpsc::Sender<Message>,
    message: &dyn Fn(Option<Plan>) -> Message,
) {
    for input in inbox.iter().flatten() {
        let Some(plan) = planner.process(input) else { continue };
        if queue.blocking_send(message(Some(plan))).is_err() {
            return;
        }
    }
}
