//! Which schedules are measured once more, and when.
//!
//! Members of the front are there because their measurements were good, and some measurements are good by luck. While
//! the noise is hardly known, and then as long as a member's latency is uncertain, every eighth candidate is a member of
//! the front measured again, the one with the fewest measurements first. Near the end of the budget all members that
//! are still uncertain are, as far as a tenth of the budget goes. However certain, members are measured
//! again by others until it is known of their worker that others measure the same. Absent: the statistics
//! (`latency.rs`), and who is to be believed (`../trust.rs`).

use evocache_proto::domain::CandidateId;

use super::knowledge::Knowledge;
use super::repeats::Repeats;
use crate::rng::Stream;

/// One of so many candidates may be a repeated measurement.
const SHARE: u64 = 8;
/// The noise is known by so many repeated measurements.
const ENOUGH: usize = 4;
/// Relative deviation beyond which a member of the front is uncertain: in between, and at the end.
const UNCERTAIN: f64 = 0.015;
const UNCERTAIN_AT_THE_END: f64 = 0.0075;
/// Nothing is measured more often.
const MOST: u32 = 24;
/// At most this part of the budget is kept for the end.
const KEPT: u64 = 10;
/// So many members of a large front are looked at.
const LOOKED_AT: usize = 64;

/// Who measured a candidate is the caller's to know.
#[derive(Clone, Copy)]
pub struct Witness<'a> {
    /// Whether it was only ever measured by the worker that asks: what is measured again is best measured elsewhere.
    pub alone: &'a dyn Fn(CandidateId) -> bool,
    /// Whether it was measured by one of whom nobody knows yet that others measure the same: another worker is to see.
    pub unproven: &'a dyn Fn(CandidateId) -> bool,
}

impl Witness<'_> {
    /// There is one worker only.
    pub const ONLY_WORKER: Self = Self { alone: &|_| false, unproven: &|_| false };
}

/// A member of the front to measure again while the search goes on.
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

/// A member of the front to measure again before the budget is spent: `left` evaluations of `budget`. The parts of a large
/// front are looked at in turn.
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

/// Of candidates that are uncertain or unproven the one with the fewest measurements; of several, one that another worker
/// has measured.
fn first_due(
    candidates: impl Iterator<Item = CandidateId>,
    uncertain: f64,
    knowledge: &Knowledge,
    repeats: &Repeats,
    witness: Witness<'_>,
) -> Option<CandidateId> {
    // Fronts are large, and what makes a candidate due takes longer to tell than whether it would be the first.
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
