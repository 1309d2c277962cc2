//! The population: the best candidates so far in non-dominated fronts, updated one candidate at a time.
//!
//! Steady-state NSGA-II survival: a new candidate is inserted, and the most crowded member of the last front is
//! removed. Only the fronts that change are updated: a candidate enters the first front that does not dominate it and
//! pushes the members that it dominates one front down, where these do the same. Knows nothing of schedules.

use crate::archive::Member;
use crate::pareto::{Point, Score, crowding_distance};
use crate::rng::Stream;
use evocache_proto::domain::CandidateId;

#[derive(Debug, Clone, Default, PartialEq)]
struct Front {
    /// Sorted by candidate.
    members: Vec<Member>,
    /// Crowding distance of each member.
    crowding: Vec<f64>,
}

impl Front {
    fn new(mut members: Vec<Member>) -> Self {
        members.sort_by_key(|m| m.candidate);
        let points: Vec<Point> = members.iter().map(|m| m.score.values).collect();
        Self { crowding: crowding_distance(&points), members }
    }

    /// Index of the most crowded member; of equally crowded ones, that of the newest.
    fn most_crowded(&self) -> Option<usize> {
        let key = |i: usize| (self.crowding[i], std::cmp::Reverse(i));
        (0..self.members.len()).min_by(|&a, &b| {
            let ((x, i), (y, j)) = (key(a), key(b));
            x.total_cmp(&y).then(i.cmp(&j))
        })
    }
}

/// The best candidates, front by front.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Population {
    capacity: usize,
    len: usize,
    fronts: Vec<Front>,
}

impl Population {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, len: 0, fronts: Vec::new() }
    }

    /// The same members with new scores and updated fronts.
    pub(super) fn rescored(&self, score: impl Fn(CandidateId) -> Option<Score>) -> Self {
        let mut population = Self::new(self.capacity);
        for member in self.members() {
            let score = score(member.candidate).unwrap_or(member.score);
            population.insert(Member { candidate: member.candidate, score });
        }
        population
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.fronts.iter().flat_map(|front| &front.members)
    }

    pub(super) fn insert(&mut self, member: Member) {
        let beaten = |front: &Front| front.members.iter().any(|m| m.score.dominates(&member.score));
        let mut level = self.fronts.iter().take_while(|front| beaten(front)).count();
        let mut moving = vec![member];
        while !moving.is_empty() {
            let Some(front) = self.fronts.get_mut(level) else {
                self.fronts.push(Front::new(moving));
                break;
            };
            let (pushed, mut kept): (Vec<Member>, Vec<Member>) =
                front.members.drain(..).partition(|m| moving.iter().any(|new| new.score.dominates(&m.score)));
            kept.append(&mut moving);
            *front = Front::new(kept);
            moving = pushed;
            level += 1;
        }
        self.len += 1;
        if self.len > self.capacity {
            self.remove_worst();
        }
    }

    fn remove_worst(&mut self) {
        let Some(last) = self.fronts.last_mut() else { return };
        if let Some(worst) = last.most_crowded() {
            last.members.remove(worst);
            self.len -= 1;
        }
        if last.members.is_empty() {
            self.fronts.pop();
        } else {
            *last = Front::new(std::mem::take(&mut last.members));
        }
    }

    /// The better of two uniformly drawn members: by front, then by crowding distance, then the older one.
    pub(super) fn tournament(&self, stream: &mut Stream) -> Option<CandidateId> {
        let a = self.place(stream.below(self.len))?;
        let b = self.place(stream.below(self.len))?;
        let order = a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2));
        Some(if order.is_le() { a.2 } else { b.2 })
    }

    /// A uniformly drawn member.
    pub(super) fn any(&self, stream: &mut Stream) -> Option<CandidateId> {
        self.place(stream.below(self.len)).map(|place| place.2)
    }

    /// Front, crowding distance and id of the n-th member.
    fn place(&self, mut n: usize) -> Option<(usize, f64, CandidateId)> {
        for (rank, front) in self.fronts.iter().enumerate() {
            match front.members.get(n) {
                Some(member) => return Some((rank, front.crowding[n], member.candidate)),
                None => n -= front.members.len(),
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "population_tests.rs"]
mod tests;
