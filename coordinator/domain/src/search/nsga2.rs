//! ECAD's generational NSGA-II, for comparison: tournaments by front and crowding distance, four-point crossover, and
//! bit flips that affect one individual in twenty, where each bit flips with probability 1 / bits.
//!
//! A generation is bred once the previous one has all its results, so workers wait for the slowest. The first
//! generation consists of the seeds and random schedules. Does not share operators, credit or models with the steady
//! state.

use std::collections::BTreeMap;

use evocache_proto::domain::{CandidateId, Decision};

use super::genome::{Genome, Space};
use super::resample::resample;
use crate::archive::Member;
use crate::pareto::{Point, Score, crowding_distance, non_dominated_sort};
use crate::rng::Stream;

/// Probability that an individual mutates at all.
const MUTATION: f64 = 0.05;
/// Number of cuts of a crossover, which exchanges every other piece.
const CUTS: usize = 4;

/// A member of the parent generation.
#[derive(Debug, Clone, PartialEq)]
struct Parent {
    member: Member,
    front: usize,
    crowding: f64,
}

/// The generations of one search. Candidate 0 is not among them; generation `g` is candidates `1 + g n` to `n + g n`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Generations {
    size: usize,
    /// Results of unfinished generations; `None` for a failure.
    results: BTreeMap<CandidateId, Option<Score>>,
    /// Number of finished generations.
    finished: u64,
    parents: Vec<Parent>,
}

impl Generations {
    pub(super) fn new(size: usize) -> Self {
        Self { size, results: BTreeMap::new(), finished: 0, parents: Vec::new() }
    }

    fn first(&self) -> u64 {
        1 + self.finished * self.size as u64
    }

    /// Takes a result, or `None` for a failure. Results of later generations are kept until their turn.
    pub(super) fn tell(&mut self, candidate: CandidateId, score: Option<Score>) {
        if candidate.0 < self.first() {
            return;
        }
        self.results.insert(candidate, score);
        loop {
            let first = self.first();
            let next = first + self.size as u64;
            if (first..next).any(|id| !self.results.contains_key(&CandidateId(id))) {
                return;
            }
            let later = self.results.split_off(&CandidateId(next));
            let born = std::mem::replace(&mut self.results, later);
            let born = born.into_iter().filter_map(|(candidate, score)| Some(Member { candidate, score: score? }));
            let all: Vec<Member> = self.parents.iter().map(|p| p.member).chain(born).collect();
            self.parents = survivors(&all, self.size);
            self.finished += 1;
        }
    }

    /// Whether this candidate can be bred: `None` in the first generation, which is not bred; `Some(false)` while the
    /// generation before is unfinished.
    pub(super) fn breeds(&self, candidate: CandidateId) -> Option<bool> {
        let generation = candidate.0.saturating_sub(1) / self.size as u64;
        (generation > 0).then_some(generation <= self.finished && !self.parents.is_empty())
    }

    /// The winner of a binary tournament.
    pub(super) fn parent(&self, stream: &mut Stream) -> Option<CandidateId> {
        let mut draw = || self.parents.get(stream.below(self.parents.len()));
        let (a, b) = (draw()?, draw()?);
        let order = a.front.cmp(&b.front).then(b.crowding.total_cmp(&a.crowding));
        Some(if order.is_le() { a } else { b }.member.candidate)
    }
}

/// The best `size` members front by front; of the last front, the least crowded.
fn survivors(all: &[Member], size: usize) -> Vec<Parent> {
    let scores: Vec<Score> = all.iter().map(|m| m.score).collect();
    let mut parents: Vec<Parent> = Vec::with_capacity(size);
    for (front, indices) in non_dominated_sort(&scores).into_iter().enumerate() {
        let points: Vec<Point> = indices.iter().map(|&i| scores[i].values).collect();
        let crowding = crowding_distance(&points);
        let mut members: Vec<Parent> =
            indices.iter().zip(crowding).map(|(&i, crowding)| Parent { member: all[i], front, crowding }).collect();
        members.sort_by(|a, b| b.crowding.total_cmp(&a.crowding).then(a.member.candidate.cmp(&b.member.candidate)));
        let room = size - parents.len();
        parents.extend(members.into_iter().take(room));
    }
    parents
}

/// A child of `a` and, for a crossover, of `b`; and the operators that made it.
pub(super) fn child(
    space: &Space,
    mut a: Genome,
    b: Option<Genome>,
    stream: &mut Stream,
) -> (Genome, Vec<&'static str>) {
    let (steps, slots) = (a.steps(), a.slots());
    let cells = steps * slots;
    if let Some(b) = &b {
        let b = resample(space, b, u32::try_from(steps).unwrap_or(u32::MAX));
        let mut cuts = [0; CUTS].map(|_| stream.below(cells));
        cuts.sort_unstable();
        a.take(&b, |step, slot| {
            let at = step * slots + slot;
            (cuts[0]..cuts[1]).contains(&at) || (cuts[2]..cuts[3]).contains(&at)
        });
    }
    let mutates = stream.chance(MUTATION);
    if mutates {
        for step in 1..steps {
            for slot in 0..slots {
                if stream.chance(1.0 / cells as f64) {
                    let flipped = if a.computes(step, slot) { space.cached(stream) } else { Decision::Compute };
                    a.set(step, slot, flipped);
                }
            }
        }
    }
    let operators = match (b.is_some(), mutates) {
        (true, true) => vec!["four-point", "flip"],
        (true, false) => vec!["four-point"],
        (false, _) => vec!["flip"],
    };
    (a, operators)
}

#[cfg(test)]
#[path = "nsga2_tests.rs"]
mod tests;
