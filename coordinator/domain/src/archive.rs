//! The unbounded archive of non-dominated candidates: the front.
//!
//! The front of a search over thousands of decisions is larger than a population, so it is kept separately. The set
//! does not depend on the order of insertion: of candidates with equal objective vectors, the one with the smallest id
//! is kept. Members are sorted by violation, then lexicographically by value, so that with two objectives an insertion
//! is a binary search. Knows nothing of schedules: a member is an id and a score.

use std::cmp::Ordering;

use evocache_proto::domain::CandidateId;

use super::hypervolume::hypervolume;
use super::pareto::{Point, Score};

/// A candidate with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    /// The candidate.
    pub candidate: CandidateId,
    /// Its score.
    pub score: Score,
}

/// The outcome of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The candidate became a member and displaced this many others.
    Joined(usize),
    /// A member dominates it, or equals it and has the smaller id.
    Dominated,
}

/// Sorted members. Boxed, because an insertion into a front of thousands moves half of them.
type Members = Vec<Box<Member>>;

/// All candidates that no other inserted candidate dominates (constrained dominance).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archive {
    members: Members,
}

fn order(a: &Score, b: &Score) -> Ordering {
    a.violation.total_cmp(&b.violation).then_with(|| a.values.lexicographic(&b.values))
}

impl Archive {
    /// An archive without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// The archive of all of these, as if each had been inserted.
    pub fn of(mut candidates: Vec<Member>) -> Self {
        candidates.sort_unstable_by(|a, b| order(&a.score, &b.score).then(a.candidate.cmp(&b.candidate)));
        let mut archive = Self::new();
        for Member { candidate, score } in candidates {
            archive.insert(candidate, score);
        }
        archive
    }

    /// Whether a member dominates or equals this score.
    pub fn covers(&self, score: &Score) -> bool {
        let at = self.members.partition_point(|m| order(&m.score, score).is_le());
        let two = score.is_feasible() && score.values.len() == 2;
        let before = if two { at.saturating_sub(1) } else { 0 };
        self.members[before..at].iter().any(|m| m.score.dominates(score) || m.score.values == score.values)
    }

    /// The members, sorted by violation, then by value from the first objective on.
    pub fn members(&self) -> &[Box<Member>] {
        &self.members
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Inserts a candidate unless it is dominated, and removes the members that it dominates.
    pub fn insert(&mut self, candidate: CandidateId, score: Score) -> Inserted {
        let at = match self.members.binary_search_by(|m| order(&m.score, &score)) {
            Ok(equal) => {
                let member = &mut self.members[equal];
                if member.candidate <= candidate {
                    return Inserted::Dominated;
                }
                **member = Member { candidate, score };
                return Inserted::Joined(1);
            }
            Err(at) => at,
        };
        // Dominating members sort earlier, dominated ones later. In a sorted front with two objectives, only the
        // preceding neighbor can dominate, and the dominated members follow contiguously.
        let two = score.is_feasible() && score.values.len() == 2;
        let before = if two { at.saturating_sub(1) } else { 0 };
        if self.members[before..at].iter().any(|m| m.score.dominates(&score)) {
            return Inserted::Dominated;
        }
        let old = self.members.len();
        if two {
            let dominated = self.members[at..].iter().take_while(|m| score.dominates(&m.score)).count();
            self.members.drain(at..at + dominated);
        } else {
            let mut position = 0;
            self.members.retain(|m| {
                position += 1;
                position <= at || !score.dominates(&m.score)
            });
        }
        let removed = old - self.members.len();
        self.members.insert(at, Box::new(Member { candidate, score }));
        Inserted::Joined(removed)
    }

    /// The hypervolume of the members' losses with the reference point 1, in `[0, 1]`. Only feasible members count;
    /// losses below 0 count as 0.
    pub fn hypervolume(&self) -> f64 {
        let loss = |m: &Member| m.score.losses.iter().map(|loss| loss.max(0.0)).collect::<Point>();
        let losses: Vec<_> = self.members.iter().filter(|m| m.score.is_feasible()).map(|m| loss(m)).collect();
        let ones = [1.0; super::pareto::MAX_OBJECTIVES];
        losses.first().map_or(0.0, |first| hypervolume(&losses, &ones[..first.len()]))
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
