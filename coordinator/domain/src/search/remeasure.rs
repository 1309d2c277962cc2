//! Decides which measurements are repeated, and when.
//!
//! Members of the front had good measurements, and some of these were good by luck. So every eighth candidate may
//! repeat the measurement of a front member, the one with the fewest measurements first: any member while the noise is
//! poorly known, later one whose latency is uncertain. Near the end of the budget, all members that are still uncertain
//! are repeated, within a tenth of the budget. Well-known members are repeated too, on other workers, until the worker
//! that measured them is confirmed by others. Does not estimate latencies (`latency.rs`) or judge workers
//! (`../trust.rs`).

use evocache_proto::domain::CandidateId;

use super::knowledge::Knowledge;
use super::repeats::Repeats;
use crate::rng::Stream;

/// One of this many candidates may be a repeat.
const SHARE: u64 = 8;
/// The noise counts as known from this many repeats on.
const ENOUGH: usize = 4;
/// Before the end of the budget, a front member with a larger relative deviation is uncertain.
const UNCERTAIN: f64 = 0.015;
/// The same near the end.
const UNCERTAIN_AT_THE_END: f64 = 0.0075;
/// No schedule is measured more often.
const MOST: u32 = 24;
/// At most one part in this many of the budget is spent on repeats at the end.
const KEPT: u64 = 10;
/// At most this many members of the front are considered at a time.
const LOOKED_AT: usize = 64;

/// What the caller knows of the workers that measured a candidate.
#[derive(Clone, Copy)]
pub struct Witness<'a> {
    /// Whether only the asking worker has measured it; if so, another worker should repeat it.
    pub alone: &'a dyn Fn(CandidateId) -> bool,
    /// Whether it was measured by a worker that others have not confirmed yet; if so, another worker should repeat it.
    pub unproven: &'a dyn Fn(CandidateId) -> bool,
}

impl Witness<'_> {
    /// For a search with a single worker.
    pub const ONLY_WORKER: Self = Self { alone: &|_| false, unproven: &|_| false };
}

/// The front member that candidate `index` should repeat before the end of the budget.
pub(super) fn in_between(
    index: CandidateId,
    knowledge: &Knowledge,
    repeats: &Repeats,
    witness: Witness<'_>,
    stream: &mut Stream,
) -> Option<CandidateId> {
    if index.0 % SHARE != SHARE - 1 {
        return None;
    }
    let noisy = if knowledge.latencies().repeats() < ENOUGH { 0.0 } else { UNCERTAIN };
    let members = knowledge.archive().members();
    let few = members.len() <= LOOKED_AT;
    let looked_at = if few { members.len() } else { LOOKED_AT };
    let chosen = (0..looked_at).map(|i| members[if few { i } else { stream.below(members.len()) }].candidate);
    first_due(chosen, noisy, knowledge, repeats, witness)
}

/// The front member to repeat near the end, when `left` evaluations of `budget` remain. The parts of a large front are
/// considered in turn.
pub(super) fn at_the_end(
    left: u64,
    budget: u64,
    knowledge: &Knowledge,
    repeats: &Repeats,
    witness: Witness<'_>,
) -> Option<CandidateId> {
    let members = knowledge.archive().members();
    if left > (budget / KEPT).min(members.len() as u64) {
        return None;
    }
    let parts = members.len().div_ceil(LOOKED_AT).max(1);
    let part = members.chunks(LOOKED_AT).nth(left as usize % parts).unwrap_or_default();
    first_due(part.iter().map(|m| m.candidate), UNCERTAIN_AT_THE_END, knowledge, repeats, witness)
}

/// Of the candidates that are uncertain or unproven, the one with the fewest measurements; of several, preferably one
/// that another worker has measured.
fn first_due(
    candidates: impl Iterator<Item = CandidateId>,
    uncertain: f64,
    knowledge: &Knowledge,
    repeats: &Repeats,
    witness: Witness<'_>,
) -> Option<CandidateId> {
    // Fronts are large, and comparing keys is cheaper than estimating a deviation, so keys are compared first.
    let mut first: Option<(u32, bool, CandidateId)> = None;
    for c in candidates {
        let count = knowledge.count(c);
        if count >= MOST || first.is_some_and(|(least, ..)| count > least) || repeats.is_under_way(c) {
            continue;
        }
        let key = (count, (witness.alone)(c), c);
        if first.is_none_or(|first| key < first) {
            let uncertain = knowledge.estimate(c).is_some_and(|latency| latency.deviation > uncertain);
            if uncertain || ((witness.unproven)(c) && !key.1) {
                first = Some(key);
            }
        }
    }
    first.map(|(.., candidate)| candidate)
}
