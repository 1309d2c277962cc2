//! Hypervolume: the volume up to a reference point that a set of points dominates. Exact, for one to four objectives.
//!
//! - Two: a sweep over the staircase, O(n log n).
//! - Three: a sweep along the third objective over a growing staircase whose area is updated, O(n log n) plus the cost
//!   of moving its steps.
//! - Four: slices along the fourth objective, each a three-dimensional volume, O(n² log n).
//!
//! Points that are not better than the reference in every objective are ignored. Never approximates or samples.

use std::cmp::Ordering;

use super::pareto::Point;

/// The volume that `points` dominate up to `reference`; zero unless `reference` has one to four objectives. Independent
/// of the order of the points.
pub fn hypervolume(points: &[Point], reference: &[f64]) -> f64 {
    let mut inside: Vec<&[f64]> = points
        .iter()
        .map(|p| &p[..])
        .filter(|p| p.len() == reference.len() && p.iter().zip(reference).all(|(p, r)| p < r))
        .collect();
    // Sorted by the last objective first: the axis of the sweep with three and four objectives.
    inside.sort_by(|a, b| {
        let unequal = a.iter().rev().zip(b.iter().rev()).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        unequal.unwrap_or(Ordering::Equal)
    });
    match *reference {
        [x] => inside.first().map_or(0.0, |p| x - p[0]),
        // Sorted by the second objective: used as the staircase's x, every point is appended.
        [x, y] => staircase(inside.iter().map(|p| (p[1], p[0])), (y, x)).area(),
        [x, y, z] => volume(&inside, (x, y), z),
        [x, y, z, w] => slices(
            &inside,
            |p| p[3],
            w,
            |below| {
                let mut below = below.to_vec();
                below.sort_by(|a, b| a[2].total_cmp(&b[2]));
                volume(&below, (x, y), z)
            },
        ),
        _ => 0.0,
    }
}

fn staircase(points: impl Iterator<Item = (f64, f64)>, reference: (f64, f64)) -> Staircase {
    let mut stairs = Staircase::new(reference);
    for (x, y) in points {
        stairs.insert(x, y);
    }
    stairs
}

/// Three objectives, `points` sorted by the third.
fn volume(points: &[&[f64]], reference: (f64, f64), z: f64) -> f64 {
    let mut stairs = Staircase::new(reference);
    let mut sum = 0.0;
    for (i, p) in points.iter().enumerate() {
        stairs.insert(p[0], p[1]);
        let next = points.get(i + 1).map_or(z, |q| q[2]);
        if next > p[2] {
            sum += stairs.area() * (next - p[2]);
        }
    }
    sum
}

/// Sum of slices along `axis`, by which `points` are sorted: the volume that the points up to each one dominate, times
/// the depth to the next point.
fn slices(points: &[&[f64]], axis: impl Fn(&[f64]) -> f64, end: f64, measure: impl Fn(&[&[f64]]) -> f64) -> f64 {
    let mut sum = 0.0;
    for (i, p) in points.iter().enumerate() {
        let depth = points.get(i + 1).map_or(end, |q| axis(q)) - axis(p);
        if depth > 0.0 {
            sum += measure(&points[..=i]) * depth;
        }
    }
    sum
}

/// The front of a set of points in the plane and the area that it dominates, updated with every point.
#[derive(Debug, Clone, PartialEq)]
pub struct Staircase {
    reference: (f64, f64),
    /// x ascending, y descending.
    steps: Vec<(f64, f64)>,
    area: f64,
}

impl Staircase {
    /// An empty staircase.
    pub fn new(reference: (f64, f64)) -> Self {
        Self { reference, steps: Vec::new(), area: 0.0 }
    }

    /// The staircase of losses with the reference (1, 1), from points sorted by x. Dominated points are skipped at no
    /// cost.
    pub fn of_sorted(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (mut stairs, mut lowest) = (Self::new((1.0, 1.0)), f64::INFINITY);
        for (x, y) in points {
            if y < lowest {
                stairs.insert(x, y);
                lowest = y;
            }
        }
        stairs
    }

    /// The area dominated so far.
    pub fn area(&self) -> f64 {
        self.area
    }

    /// The area that a point would add: its hypervolume contribution.
    pub fn gain(&self, x: f64, y: f64) -> f64 {
        self.place(x, y).map_or(0.0, |(_, _, gain)| gain)
    }

    /// Adds a point and returns the area that it added.
    pub fn insert(&mut self, x: f64, y: f64) -> f64 {
        let Some((from, to, gain)) = self.place(x, y) else { return 0.0 };
        self.steps.splice(from..to, [(x, y)]);
        self.area += gain;
        gain
    }

    /// The range of steps that the point replaces, and the area it adds; `None` if it is dominated or outside.
    fn place(&self, x: f64, y: f64) -> Option<(usize, usize, f64)> {
        if !(x < self.reference.0 && y < self.reference.1) {
            return None;
        }
        // Steps before `from` have a smaller or equal x; the last of them is the lowest.
        let mut from = self.steps.partition_point(|s| s.0 <= x);
        let mut roof = self.reference.1;
        if let Some(&(before_x, before_y)) = from.checked_sub(1).map(|i| &self.steps[i]) {
            if before_y <= y {
                return None;
            }
            if before_x < x {
                roof = before_y;
            } else {
                // The same x and a higher y: replaced too, and the step before it is the roof.
                from -= 1;
                roof = from.checked_sub(1).map_or(roof, |i| self.steps[i].1);
            }
        }
        let (mut to, mut left, mut gain) = (from, x, 0.0);
        while let Some(&(step_x, step_y)) = self.steps.get(to).filter(|s| s.1 >= y) {
            gain += (step_x - left) * (roof - y);
            (left, roof) = (step_x, step_y);
            to += 1;
        }
        let right = self.steps.get(to).map_or(self.reference.0, |s| s.0);
        gain += (right - left) * (roof - y);
        Some((from, to, gain))
    }
}

#[cfg(test)]
#[path = "hypervolume_tests.rs"]
mod tests;
