//! Runs the advisers, which fit error models: one thread per search, so that the engine never blocks on model fitting; or on
//! the engine's thread, for simulations that must not depend on when threads run.
//!
//! An adviser's thread starts with the first lessons of its search and ends with the search. Threads are numbered, so that late
//! advice from a dismissed one is not taken for its successor's. If an adviser panics, the panic is logged and the search goes on
//! without advice. What advisers compute is in the domain.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use evocache_proto::domain::SearchId;
use tokio::sync::mpsc;

use crate::engine::handle::Message;
use evocache_domain::search::{Advice, Adviser, Lesson};

/// Where error models are fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelFitting {
    /// On a thread for each search.
    #[default]
    Background,
    /// On the engine's thread, which blocks meanwhile.
    Inline,
}

/// What comes of lessons that were handed to an adviser.
pub(super) enum Taught {
    /// Advice arrives later as a message, or these lessons yield none.
    Later,
    /// Advice at once.
    Advice(Advice),
    /// The search has no adviser and will not get one.
    NoAdviser,
}

/// The advisers of all running searches.
pub(super) struct Advisers {
    fitting: ModelFitting,
    /// The engine's own queue, for advice.
    queue: mpsc::Sender<Message>,
    inline: BTreeMap<SearchId, Adviser>,
    threads: BTreeMap<SearchId, Thread>,
    /// Number of threads started so far.
    started: u64,
}

/// An adviser on its own thread.
struct Thread {
    number: u64,
    lessons: Sender<Vec<Lesson>>,
}

impl Advisers {
    pub(super) fn new(fitting: ModelFitting, queue: mpsc::Sender<Message>) -> Self {
        Self { fitting, queue, inline: BTreeMap::new(), threads: BTreeMap::new(), started: 0 }
    }

    /// Hands lessons to the search's adviser. `new` makes one if there is none yet.
    pub(super) fn teach(
        &mut self,
        search: &SearchId,
        lessons: Vec<Lesson>,
        new: impl FnOnce() -> Option<Adviser>,
    ) -> Taught {
        match self.fitting {
            ModelFitting::Inline => {
                if !self.inline.contains_key(search) {
                    let Some(adviser) = new() else { return Taught::NoAdviser };
                    self.inline.insert(search.clone(), adviser);
                }
                let Some(adviser) = self.inline.get_mut(search) else { return Taught::NoAdviser };
                let answers = lessons.into_iter().filter_map(|lesson| adviser.hear(lesson));
                answers.last().map_or(Taught::Later, Taught::Advice)
            }
            ModelFitting::Background => {
                if !self.threads.contains_key(search) {
                    let Some(adviser) = new() else { return Taught::NoAdviser };
                    self.started += 1;
                    let number = self.started;
                    match start(adviser, search.clone(), number, self.queue.clone()) {
                        Ok(lessons) => drop(self.threads.insert(search.clone(), Thread { number, lessons })),
                        Err(error) => {
                            tracing::error!(%search, %error, "cannot start a thread for the error model: the search goes on without one");
                            return Taught::NoAdviser;
                        }
                    }
                }
                // A send fails if the thread has panicked, which it has reported.
                let sent = self.threads.get(search).map(|thread| thread.lessons.send(lessons));
                if let Some(Ok(())) = sent { Taught::Later } else { Taught::NoAdviser }
            }
        }
    }

    /// Whether the search's adviser is still the one with this number.
    pub(super) fn is_current(&self, search: &SearchId, number: u64) -> bool {
        self.threads.get(search).is_some_and(|thread| thread.number == number)
    }

    /// The search needs its adviser no more.
    pub(super) fn dismiss(&mut self, search: &SearchId) {
        self.inline.remove(search);
        // The thread ends when its channel closes.
        self.threads.remove(search);
    }
}

fn start(
    adviser: Adviser,
    search: SearchId,
    number: u64,
    queue: mpsc::Sender<Message>,
) -> std::io::Result<Sender<Vec<Lesson>>> {
    let (lessons, inbox) = channel();
    std::thread::Builder::new().name("adviser".into()).spawn(move || {
        let message = |advice| Message::Advice { search: search.clone(), adviser: number, advice };
        let advise = AssertUnwindSafe(|| listen(adviser, &inbox, &queue, &message));
        if catch_unwind(advise).is_err() {
            tracing::error!(%search, "the error model failed: the search goes on without it");
            // Fails if the engine has ended.
            let _ = queue.blocking_send(message(None));
        }
    })?;
    Ok(lessons)
}

fn listen(
    mut adviser: Adviser,
    inbox: &Receiver<Vec<Lesson>>,
    queue: &mpsc::Sender<Message>,
    message: &dyn Fn(Option<Advice>) -> Message,
) {
    for lesson in inbox.iter().flatten() {
        let Some(advice) = adviser.hear(lesson) else { continue };
        if queue.blocking_send(message(Some(advice))).is_err() {
            return;
        }
    }
}
