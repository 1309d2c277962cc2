//! The breeder's side of planning: an adviser fits error models outside of the breeder and answers with a plan.

use super::advice::{Advice, Advised, Lesson};
use super::breeder::Breeder;
use super::model::Adviser;

impl Breeder {
    /// A new adviser for this search; `None` if the search has nothing to model.
    pub fn adviser(&self) -> Option<Adviser> {
        self.advised.as_ref().and_then(|_| Adviser::new(&self.spec, &self.space))
    }

    /// What the adviser has to hear since the last call.
    pub fn lessons(&mut self) -> Vec<Lesson> {
        self.advised.as_mut().map_or_else(Vec::new, Advised::lessons)
    }

    /// Takes the adviser's answer. An answer that was not asked for changes nothing.
    pub fn give(&mut self, advice: Advice) {
        if let Some(advised) = &mut self.advised {
            advised.give(advice);
        }
    }

    /// The adviser is new and has to hear all lessons again, as after a replay.
    pub fn resume(&mut self) {
        let open = self.ledger.open();
        if let Some(advised) = &mut self.advised {
            advised.resume(open);
        }
    }

    /// Replaces another breeder whose adviser may still answer.
    pub fn succeed(&mut self, other: &Self) {
        self.resume();
        if let (Some(mine), Some(theirs)) = (&mut self.advised, &other.advised) {
            mine.ignore_answers_to(theirs);
        }
    }

    /// Goes on without plans.
    pub fn go_unadvised(&mut self) {
        self.advised = None;
    }

    /// Whether nothing can be proposed until the adviser has answered.
    pub fn is_thinking(&self) -> bool {
        self.advised.as_ref().is_some_and(Advised::is_awaited)
    }

    /// Lets an adviser hear all lessons here and now, and takes its answers.
    pub fn think(&mut self, adviser: &mut Option<Adviser>) {
        for lesson in self.lessons() {
            if let Some(advice) = adviser.as_mut().and_then(|adviser| adviser.hear(lesson)) {
                self.give(advice);
            }
        }
    }
}
