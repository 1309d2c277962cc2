//! Points, scores, Pareto dominance, non-dominated sorting and crowding distance.
//!
//! All values are minimized; `objective` negates those that a search maximizes. Knows nothing of what the values mean.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// The largest number of objectives of a search; the smallest is two.
pub const MAX_OBJECTIVES: usize = 4;

/// An objective vector of up to [`MAX_OBJECTIVES`] finite numbers, all minimized. Does not allocate, because a search
/// holds tens of thousands.
#[derive(Clone, Copy, PartialEq)]
pub struct Point {
    values: [f64; MAX_OBJECTIVES],
    len: u8,
}

impl Point {
    /// Compares lexicographically: the deterministic order of archives and lists.
    pub fn lexicographic(&self, other: &Self) -> Ordering {
        let unequal = self.iter().zip(other.iter()).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        unequal.unwrap_or_else(|| self.len.cmp(&other.len))
    }
}

impl FromIterator<f64> for Point {
    /// Takes the first [`MAX_OBJECTIVES`] values; a validated specification has no more. Negative zero becomes zero, so
    /// that equal numbers compare equal in the total order too.
    fn from_iter<I: IntoIterator<Item = f64>>(iter: I) -> Self {
        let mut point = Self { values: [0.0; MAX_OBJECTIVES], len: 0 };
        for (to, value) in point.values.iter_mut().zip(iter) {
            *to = value + 0.0;
            point.len += 1;
        }
        point
    }
}

impl<const N: usize> From<[f64; N]> for Point {
    fn from(values: [f64; N]) -> Self {
        values.into_iter().collect()
    }
}

impl Deref for Point {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        &self.values[..usize::from(self.len)]
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The score of one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The objectives in their own units, negated where the search maximizes.
    pub values: Point,
    /// Sum of the excesses over the bounds, each relative to its bound; zero if the candidate is feasible.
    pub violation: f64,
    /// Each objective as a loss: 0 at its ideal, 1 at its reference. Hypervolume is computed from losses.
    pub losses: Point,
}

impl Score {
    /// Whether all bounds are kept.
    pub fn is_feasible(&self) -> bool {
        self.violation <= 0.0
    }

    /// Constrained dominance: a feasible candidate dominates an infeasible one; of two infeasible ones the one that
    /// violates less dominates; of two feasible ones, Pareto dominance decides.
    pub fn dominates(&self, other: &Self) -> bool {
        match (self.is_feasible(), other.is_feasible()) {
            (true, false) => true,
            (false, true) => false,
            (false, false) => self.violation < other.violation,
            (true, true) => dominates(&self.values, &other.values),
        }
    }
}

/// Pareto dominance: `a` is nowhere worse and somewhere better. Irreflexive, asymmetric, transitive.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a <= b) && a.iter().zip(b).any(|(a, b)| a < b)
}

/// The fronts of `scores`, best first, each as ascending indices: front 0 is the non-dominated set, front k is
/// dominated by members of earlier fronts only. Quadratic; meant for populations, not for archives.
pub fn non_dominated_sort(scores: &[Score]) -> Vec<Vec<usize>> {
    let mut dominators: Vec<usize> =
        scores.iter().map(|s| scores.iter().filter(|other| other.dominates(s)).count()).collect();
    let mut left: Vec<usize> = (0..scores.len()).collect();
    let mut fronts = Vec::new();
    while !left.is_empty() {
        let (front, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|&&i| dominators[i] == 0);
        for &i in &rest {
            dominators[i] -= front.iter().filter(|&&j| scores[j].dominates(&scores[i])).count();
        }
        fronts.push(front);
        left = rest;
    }
    fronts
}

/// Crowding distance within one front: for each objective, the gap between a point's two neighbors as a share of the
/// front's range, summed. The ends of every objective are at infinity; larger means less crowded. Among equal values
/// the order of `points` decides the neighbors, so that distances are deterministic.
pub fn crowding_distance(points: &[Point]) -> Vec<f64> {
    let mut distance = vec![0.0f64; points.len()];
    let objectives = points.first().map_or(0, |p| p.len());
    let mut order: Vec<usize> = (0..points.len()).collect();
    for k in 0..objectives {
        let axis: Vec<f64> = points.iter().map(|p| p[k]).collect();
        order.sort_by(|&a, &b| axis[a].total_cmp(&axis[b]).then(a.cmp(&b)));
        let (Some(&first), Some(&last)) = (order.first(), order.last()) else { continue };
        let range = axis[last] - axis[first];
        distance[first] = f64::INFINITY;
        distance[last] = f64::INFINITY;
        if range <= 0.0 {
            continue;
        }
        for window in order.windows(3) {
            distance[window[1]] += (axis[window[2]] - axis[window[0]]) / range;
        }
    }
    distance
}

#[cfg(test)]
#[path = "pareto_tests.rs"]
pub(super) mod tests;
