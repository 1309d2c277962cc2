//! Decides whether a search goes on with a larger budget. Pure.
//!
//! One that has completed runs on with all that it has: what was cancelled when it ended is wanted again, and what was
//! found wrong of its workers since counts. One that was stopped or has failed has ended for good. Absent: what a budget
//! changes in a breeder, which is the breeder's to know.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::time::Duration;

use evocache_proto::domain::{Budget, CandidateId, WorkerId};

use super::command::{Answer, Refusal};
use super::decide::{Context, Decision};
use super::evaluate::{moved, nothing_left};
use super::search::Search;
use super::state::State;
use crate::ports::{Fact, Phase};
use evocache_domain::lease::{self, Event, Transition};
use evocache_domain::time::Timestamp;

pub(super) fn extend(
    state: &State,
    search: &Search,
    raised: &Budget,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (id, now) = (&search.id, context.now);
    let ended = |how: &str| {
        let way = if search.evaluations.is_empty() {
            "launch another one".to_owned()
        } else {
            format!("launch one that begins with its front: `evocache launch SPEC.toml --start-from {id}`")
        };
        Err(Refusal::Phase { search: id.clone(), problem: format!("{how}; {way}") })
    };
    match search.phase {
        Phase::Pending | Phase::Running | Phase::Paused | Phase::Completed => {}
        Phase::Stopped => return ended("was stopped for good"),
        Phase::Failed => return ended("has failed, which a larger budget does not mend"),
    }
    let refuse = |problem| Refusal::Budget { search: id.clone(), problem };
    let budget = raise(search, raised, now).map_err(refuse)?;
    search.spec.with_budget(budget).map_err(|e| Refusal::Specification(e.to_string()))?;
    let rested = search.rested.saturating_add(search.ended.map_or(Duration::ZERO, |ended| now.since(ended)));
    let mut settled = search.settled.clone();
    if search.phase == Phase::Completed {
        settled.push(search.evaluations.len() as u64);
    }
    let extended = Fact::SearchExtended { search: id.clone(), budget, rested, settled };
    let decision = Decision::answer(Answer::Search(id.clone())).fact(extended);
    if search.phase != Phase::Completed {
        return Ok(decision);
    }
    let decision = reopen(search, disown(state, search, decision), context);
    let reopened = decision.facts.iter().any(|fact| matches!(fact, Fact::LeaseMoved { .. }));
    if !reopened && nothing_left(search) {
        return Err(refuse("there is no schedule left to try, whatever its budget".to_owned()));
    }
    let phase = if search.bound.is_some() { Phase::Running } else { Phase::Pending };
    Ok(decision.fact(Fact::SearchMoved { search: id.clone(), phase, reason: String::new(), at: now }))
}

/// Whose results were found wrong after the search had ended.
fn disown(state: &State, search: &Search, decision: Decision) -> Decision {
    let workers: BTreeSet<&WorkerId> = search.evaluations.iter().map(|evaluation| &evaluation.worker).collect();
    let wrong = workers.into_iter().filter(|worker| {
        let quarantined = state.workers.get(worker).is_some_and(|worker| worker.quarantine.is_some());
        quarantined && !search.disowned.contains(worker)
    });
    let disowned = |worker: &WorkerId| Fact::Disowned { search: search.id.clone(), worker: worker.clone() };
    wrong.fold(decision, |decision, worker| decision.fact(disowned(worker)))
}

/// Candidates that nobody wanted any more when the search ended.
fn reopen(search: &Search, decision: Decision, context: &Context<'_>) -> Decision {
    (0..).zip(&search.candidates).fold(decision, |decision, (number, candidate)| {
        match lease::step(&candidate.lease, &Event::Reopen, context.now, context.policy) {
            Ok(Transition::To(next)) => decision.fact(moved(search, CandidateId(number), candidate, next)),
            Ok(Transition::Unchanged) | Err(_) => decision,
        }
    })
}

/// The budget with these limits raised.
fn raise(search: &Search, raised: &Budget, now: Timestamp) -> Result<Budget, String> {
    let present = &search.spec.budget;
    let given = [
        ("evaluations", present.evaluations.is_none(), raised.evaluations.is_some()),
        ("wall_time", present.wall_time.is_none(), raised.wall_time.is_some()),
        ("device_time", present.device_time.is_none(), raised.device_time.is_some()),
        ("stagnation", present.stagnation.is_none(), raised.stagnation.is_some()),
    ];
    // Before all others, which ask for more.
    if let Some((field, ..)) = given.into_iter().find(|&(_, is_missing, is_raised)| is_missing && is_raised) {
        return Err(format!("its budget has no {field} that could be raised: leave it out"));
    }
    let count = |n: Option<u64>| n.map(|n| n as f64);
    limit("evaluations", search.spent(), count(present.evaluations), count(raised.evaluations))?;
    limit("of wall time", Span(search.wall_time(now)), present.wall_time.map(Span), raised.wall_time.map(Span))?;
    limit("of device time", Span(search.device_time), present.device_time.map(Span), raised.device_time.map(Span))?;
    limit("evaluations without growth", search.stagnant(), present.stagnation, raised.stagnation)?;
    Ok(Budget {
        evaluations: raised.evaluations.or(present.evaluations),
        wall_time: raised.wall_time.or(present.wall_time),
        device_time: raised.device_time.or(present.device_time),
        stagnation: raised.stagnation.or(present.stagnation),
    })
}

/// Whether the search can go on with one limit: raised beyond the present one and what is used, or, where nobody raises
/// it, not used up.
fn limit<T: PartialOrd + Display>(name: &str, used: T, present: Option<T>, raised: Option<T>) -> Result<(), String> {
    match (present, raised) {
        (Some(present), None) if used >= present => {
            Err(format!("its {present} {name} are used up ({used}): raise that limit too"))
        }
        (_, None) | (None, Some(_)) => Ok(()),
        (Some(present), Some(raised)) if raised <= present => {
            Err(format!("{raised} {name} are no more than the {present} that it has: name a larger limit"))
        }
        (Some(_), Some(raised)) if used >= raised => {
            Err(format!("{raised} {name} are used up already ({used}): name a larger limit"))
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

/// A time for people.
#[derive(PartialEq, PartialOrd)]
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
