//! Pauses, resumes, stops and deletes a search.

use evocache_proto::domain::SearchId;

use super::ending::end;
use crate::engine::command::{Answer, Move};
use crate::engine::decision::{Context, Decision, find};
use crate::engine::refusal::Refusal;
use crate::engine::state::State;
use crate::ports::{Fact, Phase};

pub(in crate::engine) fn change(
    state: &State,
    search: &SearchId,
    to: Move,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let search = find(state, search)?;
    let done = Decision::answer(Answer::Search(search.id.clone()));
    let refuse = |problem: &str| Err(Refusal::Phase { search: search.id.clone(), problem: problem.to_owned() });
    let moved = |phase: Phase, reason: &str| Fact::SearchMoved {
        search: search.id.clone(),
        phase,
        reason: reason.to_owned(),
        at: context.now,
    };
    match (to, search.phase) {
        (Move::Pause, Phase::Pending | Phase::Running) => Ok(done.fact(moved(Phase::Paused, "paused"))),
        (Move::Pause, Phase::Paused) => Ok(done),
        (Move::Resume, Phase::Paused) => Ok(done.fact(moved(search.active_phase(), ""))),
        (Move::Resume, Phase::Pending | Phase::Running) => Ok(done),
        (Move::Stop, Phase::Pending | Phase::Running | Phase::Paused) => {
            Ok(end(search, Phase::Stopped, "stopped", done, context))
        }
        (Move::Stop, Phase::Completed | Phase::Stopped | Phase::Failed) => Ok(done),
        (Move::Pause, Phase::Completed | Phase::Stopped | Phase::Failed) => refuse("has ended"),
        (Move::Resume, Phase::Completed) => refuse("has completed; to go on, raise its budget: `evocache extend`"),
        (Move::Resume, Phase::Stopped | Phase::Failed) => refuse("has ended for good; launch another one"),
        (Move::Delete, Phase::Completed | Phase::Stopped | Phase::Failed) => {
            Ok(done.fact(Fact::SearchDeleted { search: search.id.clone() }))
        }
        (Move::Delete, Phase::Pending | Phase::Running | Phase::Paused) => {
            refuse("has not ended; stop it before deleting it")
        }
    }
}
