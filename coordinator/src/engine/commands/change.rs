//! Pauses, resumes, stops and deletes a search.

use evocache_proto::domain::SearchId;

use super::ending::end;
use crate::engine::command::{Answer, Move};
use crate::engine::decision::{Context, Decision, find};
use crate::engine::refusal::Refusal;
use crate::engine::state::State;
use crate::ports::{Fact, SearchState};

pub(in crate::engine) fn change(
    state: &State,
    search: &SearchId,
    to: Move,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let search = find(state, search)?;
    let done = Decision::answer(Answer::Search(search.id.clone()));
    let refuse = |problem: &str| Err(Refusal::State { search: search.id.clone(), problem: problem.to_owned() });
    let moved = |phase: SearchState, reason: &str| Fact::SearchMoved {
        search: search.id.clone(),
        phase,
        reason: reason.to_owned(),
        at: context.now,
    };
    match (to, search.phase) {
        (Move::Pause, SearchState::Pending | SearchState::Running) => {
            Ok(done.fact(moved(SearchState::Paused, "paused")))
        }
        (Move::Pause, SearchState::Paused) => Ok(done),
        (Move::Resume, SearchState::Paused) => Ok(done.fact(moved(search.active_phase(), ""))),
        (Move::Resume, SearchState::Pending | SearchState::Running) => Ok(done),
        (Move::Stop, SearchState::Pending | SearchState::Running | SearchState::Paused) => {
            Ok(end(search, SearchState::Stopped, "stopped", done, context))
        }
        (Move::Stop, SearchState::Completed | SearchState::Stopped | SearchState::Failed) => Ok(done),
        (Move::Pause, SearchState::Completed | SearchState::Stopped | SearchState::Failed) => refuse("has ended"),
        (Move::Resume, SearchState::Completed) => {
            refuse("has completed; to go on, raise its budget: `evocache extend`")
        }
        (Move::Resume, SearchState::Stopped | SearchState::Failed) => refuse("has ended for good; launch another one"),
        (Move::Delete, SearchState::Completed | SearchState::Stopped | SearchState::Failed) => {
            Ok(done.fact(Fact::SearchDeleted { search: search.id.clone() }))
        }
        (Move::Delete, SearchState::Pending | SearchState::Running | SearchState::Paused) => {
            refuse("has not ended; stop it before deleting it")
        }
    }
}
