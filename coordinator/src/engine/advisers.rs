//! Where the models of the error think: one thread per search, so that the engine never waits for them; or here, for
//! simulations that must not depend on when threads run.
//!
//! A thread begins with the first lessons of a search and ends with it. Each has a number, so that what a dismissed one says
//! late is not taken for the word of the one that came after it. One that panics is told of and leaves its
//! search without advice. Absent: what models do, which is the domain's, and when they are asked.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use evocache_proto::domain::SearchId;
use tokio::sync::mpsc;

use super::handle::Message;
use evocache_domain::search::{Advice, Adviser, Lesson};

/// Where models think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// On a thread for each search.
    #[default]
    Aside,
    /// Where the engine runs, which waits.
    Here,
}

/// What came of lessons that were handed on.
pub(super) enum Heard {
    /// An answer comes later, or there is none.
    Nothing,
    /// At once.
    Advice(Advice),
    /// There will be none for this search any more.
    Mute,
}

/// The advisers of all searches that run.
pub(super) struct Advisers {
    thinking: Thinking,
    /// To the engine itself.
    queue: mpsc::Sender<Message>,
    here: BTreeMap<SearchId, Adviser>,
    aside: BTreeMap<SearchId, Thread>,
    /// Threads begun so far.
    begun: u64,
}

/// An adviser that thinks aside.
struct Thread {
    number: u64,
    lessons: Sender<Vec<Lesson>>,
}

impl Advisers {
    pub(super) fn new(thinking: Thinking, queue: mpsc::Sender<Message>) -> Self {
        Self { thinking, queue, here: BTreeMap::new(), aside: BTreeMap::new(), begun: 0 }
    }

    /// Hands lessons on. `new` makes the search's adviser, if it has none yet.
    pub(super) fn teach(
        &mut self,
        search: &SearchId,
        lessons: Vec<Lesson>,
        new: impl FnOnce() -> Option<Adviser>,
    ) -> Heard {
        match self.thinking {
            Thinking::Here => {
                if !self.here.contains_key(search) {
                    let Some(adviser) = new() else { return Heard::Mute };
                    self.here.insert(search.clone(), adviser);
                }
                let Some(adviser) = self.here.get_mut(search) else { return Heard::Mute };
                let answers = lessons.into_iter().filter_map(|lesson| adviser.hear(lesson));
                answers.last().map_or(Heard::Nothing, Heard::Advice)
            }
            Thinking::Aside => {
                if !self.aside.contains_key(search) {
                    let Some(adviser) = new() else { return Heard::Mute };
                    self.begun += 1;
                    let number = self.begun;
                    match start(adviser, search.clone(), number, self.queue.clone()) {
                        Ok(lessons) => drop(self.aside.insert(search.clone(), Thread { number, lessons })),
                        Err(error) => {
                            tracing::error!(%search, %error, "no thread for the models: the search goes on without");
                            return Heard::Mute;
                        }
                    }
                }
                // A thread that has ended has told the engine so.
                let sent = self.aside.get(search).map(|thread| thread.lessons.send(lessons));
                if let Some(Ok(())) = sent { Heard::Nothing } else { Heard::Mute }
            }
        }
    }

    /// Whether the search's adviser is the one with this number, and not one that came after it.
    pub(super) fn is_current(&self, search: &SearchId, number: u64) -> bool {
        self.aside.get(search).is_some_and(|thread| thread.number == number)
    }

    /// The search needs none any more.
    pub(super) fn dismiss(&mut self, search: &SearchId) {
        self.here.remove(search);
        // The thread ends when there is nothing more to come.
        self.aside.remove(search);
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
        let advised = |advice| Message::Advised { search: search.clone(), adviser: number, advice };
        let advise = AssertUnwindSafe(|| listen(adviser, &inbox, &queue, &advised));
        if catch_unwind(advise).is_err() {
            tracing::error!(%search, "the models failed: the search goes on without");
            // If the engine is gone, nobody waits.
            let _ = queue.blocking_send(advised(None));
        }
    })?;
    Ok(lessons)
}

fn listen(
    mut adviser: Adviser,
    inbox: &Receiver<Vec<Lesson>>,
    queue: &mpsc::Sender<Message>,
    advised: &dyn Fn(Option<Advice>) -> Message,
) {
    for lesson in inbox.iter().flatten() {
        let Some(advice) = adviser.hear(lesson) else { continue };
        if queue.blocking_send(advised(Some(advice))).is_err() {
            return;
        }
    }
}
