//! Raises the budget of a search, and resumes a search that has completed.
//!
//! A search that has completed goes on with everything it has: candidates that its end cancelled are reopened, and results
//! of workers that were quarantined since are excluded. A search that was stopped or has failed has ended for good. What a
//! budget changes in a breeder, the breeder decides.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::time::Duration;

use evocache_proto::domain::{Budget, CandidateId, SearchId, WorkerId};

use super::ending::nothing_left;
use super::lease::{moved, quarantine};
use crate::engine::command::Answer;
use crate::engine::decision::{Context, Decision, find};
use crate::engine::refusal::Refusal;
use crate::engine::state::{Search, State};
use crate::ports::{Fact, SearchState};
use evocache_domain::lease::{self, Event, Transition};
use evocache_domain::time::Timestamp;

pub(in crate::engine) fn extend(
    state: &State,
    search: &SearchId,
    raised: &Budget,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let search = find(state, search)?;
    let (id, now) = (&search.id, context.now);
    match search.phase {
        SearchState::Pending | SearchState::Running | SearchState::Paused | SearchState::Completed => {}
        SearchState::Stopped => return Err(ended(search, "was stopped for good")),
        SearchState::Failed => return Err(ended(search, "has failed, and a larger budget does not help")),
    }
    let refuse = |problem| Refusal::Budget { search: id.clone(), problem };
    let budget = raise(search, raised, now).map_err(refuse)?;
    search.spec.with_budget(budget).map_err(|e| Refusal::Specification(e.to_string()))?;
    let rested = search.rested.saturating_add(search.ended.map_or(Duration::ZERO, |ended| now.since(ended)));
    let mut settled = search.settled.clone();
    if search.phase == SearchState::Completed {
        settled.push(search.evaluations.len() as u64);
    }
    let extended = Fact::SearchExtended { search: id.clone(), budget, rested, settled };
    let decision = Decision::answer(Answer::Search(id.clone())).fact(extended);
    if search.phase != SearchState::Completed {
        return Ok(decision);
    }
    let decision = reopen(search, exclude(state, search, decision), context);
    let reopened = decision.facts.iter().any(|fact| matches!(fact, Fact::LeaseMoved { .. }));
    if !reopened && nothing_left(search) {
        return Err(refuse("there is no schedule left to try, whatever its budget".to_owned()));
    }
    let phase = search.active_phase();
    Ok(decision.fact(Fact::SearchMoved { search: id.clone(), phase, reason: String::new(), at: now }))
}

/// Refuses to extend a search that has ended for good.
fn ended(search: &Search, how: &str) -> Refusal {
    let id = &search.id;
    let instead = if search.evaluations.is_empty() {
        "launch another one".to_owned()
    } else {
        format!("launch one that starts from its front: `evocache launch SPEC.toml --start-from {id}`")
    };
    Refusal::State { search: id.clone(), problem: format!("{how}; {instead}") }
}

/// Excludes the results of workers that were quarantined after the search had ended.
fn exclude(state: &State, search: &Search, decision: Decision) -> Decision {
    let workers: BTreeSet<&WorkerId> = search.evaluations.iter().map(|evaluation| &evaluation.worker).collect();
    let wrong = workers.into_iter().filter(|w| quarantine(state, w).is_some() && !search.excluded.contains(w));
    let fact = |worker: &WorkerId| Fact::WorkerExcluded { search: search.id.clone(), worker: worker.clone() };
    wrong.fold(decision, |decision, worker| decision.fact(fact(worker)))
}

/// Returns the candidates that the search's end cancelled to the queue.
fn reopen(search: &Search, decision: Decision, context: &Context<'_>) -> Decision {
    (0..).zip(&search.candidates).fold(decision, |decision, (number, candidate)| {
        match lease::step(&candidate.lease, &Event::Reopen, context.now, context.policy) {
            Ok(Transition::To(next)) => decision.fact(moved(search, CandidateId(number), candidate, next)),
            Ok(Transition::Unchanged) | Err(_) => decision,
        }
    })
}

/// The present budget with these limits raised, or why it cannot be.
fn raise(search: &Search, raised: &Budget, now: Timestamp) -> Result<Budget, String> {
    let present = &search.spec.budget;
    let given = [
        ("evaluations", present.evaluations.is_none(), raised.evaluations.is_some()),
        ("wall_time", present.wall_time.is_none(), raised.wall_time.is_some()),
        ("device_time", present.device_time.is_none(), raised.device_time.is_some()),
        ("stagnation", present.stagnation.is_none(), raised.stagnation.is_some()),
    ];
    // First, because the other checks ask for a larger number.
    if let Some((field, ..)) = given.into_iter().find(|&(_, is_missing, is_raised)| is_missing && is_raised) {
        return Err(format!("its budget has no {field} to raise: leave it out"));
    }
    let count = |n: Option<u64>| n.map(|n| n as f64);
    limit("evaluations", search.spent(), count(present.evaluations), count(raised.evaluations))?;
    limit("of wall time", Span(search.wall_time(now)), present.wall_time.map(Span), raised.wall_time.map(Span))?;
    limit(
        "of device time",
        Span(search.totals.device_time),
        present.device_time.map(Span),
        raised.device_time.map(Span),
    )?;
    limit("evaluations without growth", search.stagnant(), present.stagnation, raised.stagnation)?;
    Ok(Budget {
        evaluations: raised.evaluations.or(present.evaluations),
        wall_time: raised.wall_time.or(present.wall_time),
        device_time: raised.device_time.or(present.device_time),
        stagnation: raised.stagnation.or(present.stagnation),
    })
}

/// Checks one limit: a raised one must exceed the present one and what is used; one that stays must not be used up.
fn limit<T: PartialOrd + Display>(name: &str, used: T, present: Option<T>, raised: Option<T>) -> Result<(), String> {
    match (present, raised) {
        (Some(present), None) if used >= present => {
            Err(format!("its {present} {name} are used up ({used}): raise that limit too"))
        }
        (_, None) | (None, Some(_)) => Ok(()),
        (Some(present), Some(raised)) if raised <= present => {
            Err(format!("{raised} {name} are no more than the {present} it already has: name a larger limit"))
        }
        (Some(_), Some(raised)) if used >= raised => {
            Err(format!("{raised} {name} are used up already ({used}): name a larger limit"))
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

/// A duration in an error text.
#[derive(PartialEq, PartialOrd)]
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
