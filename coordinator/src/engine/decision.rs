//! What every decision has: what it may look at, and what it results in.

use evocache_proto::domain::SearchId;

use super::command::Answer;
use super::refusal::Refusal;
use super::state::{Search, State, Touch};
use crate::ports::{Fact, IdSource, Room};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;

/// What a command does once it is committed.
#[derive(Debug, Default)]
pub struct Decision {
    /// To commit in one transaction and then apply, in this order.
    pub facts: Vec<Fact>,
    /// To apply without storing.
    pub touches: Vec<Touch>,
    /// The answer, sent when the facts are durable.
    pub answer: Option<Answer>,
}

impl Decision {
    pub(super) fn answer(answer: Answer) -> Self {
        Self { facts: vec![], touches: vec![], answer: Some(answer) }
    }

    pub(super) fn fact(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    pub(super) fn touch(mut self, touch: Touch) -> Self {
        self.touches.push(touch);
        self
    }
}

/// What a decision may look at besides the state.
pub struct Context<'a> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// How long leases last and how often a candidate is tried.
    pub policy: &'a RetryPolicy,
    /// Makes ids.
    pub ids: &'a dyn IdSource,
    /// The store's room, if it is scarce: then no search is created and no lease granted.
    pub scarce: Option<Room>,
}

/// The search with this id.
pub(super) fn find<'a>(state: &'a State, id: &SearchId) -> Result<&'a Search, Refusal> {
    state.searches.get(id).ok_or_else(|| Refusal::NoSearch(id.clone()))
}
