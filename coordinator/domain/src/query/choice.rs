//! Chooses from the front of latency ratio and quality.

use std::cmp::Ordering;

use evocache_proto::domain::{CandidateId, Preference};

/// A schedule on the two axes of the choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) id: CandidateId,
    pub(super) latency_ratio: f64,
    /// The quality, negated if it is maximized: less is better.
    pub(super) loss: f64,
    pub(super) cache_bytes: u64,
    /// How far the schedule misses the conditions; 0 if it meets all.
    pub(super) excess: f64,
}

impl Candidate {
    /// Fastest first. Ties go to the better quality, then to less cache memory, then to the older candidate.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let tie = self.latency_ratio.total_cmp(&other.latency_ratio).then(self.loss.total_cmp(&other.loss));
        tie.then(self.cache_bytes.cmp(&other.cache_bytes)).then(self.id.cmp(&other.id))
    }
}

/// The preferred candidate among those that meet all conditions and that no other such candidate dominates.
pub(super) fn choose(candidates: &[Candidate], preference: Preference) -> Option<CandidateId> {
    let mut front: Vec<&Candidate> = candidates.iter().filter(|c| c.excess <= 0.0).collect();
    front.sort_by(|a, b| a.order(b));
    let mut least = f64::INFINITY;
    front.retain(|c| {
        let joins = c.loss < least;
        least = least.min(c.loss);
        joins
    });
    let chosen = match preference {
        Preference::Fastest => front.first(),
        Preference::BestQuality => front.last(),
        Preference::Knee => knee(&front),
    };
    chosen.map(|c| c.id)
}

/// `front` is sorted by latency, so quality improves along it.
fn knee<'a>(front: &'a [&'a Candidate]) -> Option<&'a &'a Candidate> {
    let (first, last) = (front.first()?, front.last()?);
    let (width, height) = (last.latency_ratio - first.latency_ratio, first.loss - last.loss);
    if front.len() < 3 {
        // Two ends lie on the line between them. The slower one gives up the least quality.
        return front.last();
    }
    // In the unit square the line runs from (0, 1) to (1, 0); the distance from it is (1 - x - y) / sqrt(2).
    let below = |c: &Candidate| 1.0 - (c.latency_ratio - first.latency_ratio) / width - (c.loss - last.loss) / height;
    front.iter().rev().max_by(|a, b| below(a).total_cmp(&below(b)))
}
