//! ECAD's genetic algorithm with its published settings, for comparison: generational NSGA-II, population 72,
//! four-point crossover with probability 0.9, and bit flips that reach one individual in twenty (and there each bit
//! with probability 1 / bits). Shares nothing with this project's search but dominance and random streams.

use evocache_domain::pareto::{Point, Score, crowding_distance, non_dominated_sort};
use evocache_domain::rng::Stream;

use super::landscapes::{CELLS, SLOTS, STEPS};

/// ECAD's population.
pub(crate) const POPULATION: usize = 72;
const CROSSOVER: f64 = 0.9;
const MUTATION: f64 = 0.05;

type Bits = Vec<u8>;

/// Runs the algorithm; `evaluate` gives (share, error), or `None` when the budget is spent.
pub(crate) fn run(heuristic: bool, seed: u64, mut evaluate: impl FnMut(&[u8]) -> Option<(f64, f64)>) {
    let mut stream = Stream::new(seed, "ecad", 0);
    let mut genomes = if heuristic { heuristics(&mut stream) } else { at_random(&mut stream) };
    let mut scores = Vec::new();
    for genome in &genomes {
        let Some(point) = evaluate(genome) else { return };
        scores.push(score(point));
    }
    let (mut rank, mut crowd) = places(&scores);
    loop {
        let mut children: Vec<Bits> = Vec::new();
        while children.len() < POPULATION {
            let mut pick = || {
                let (a, b) = (stream.below(POPULATION), stream.below(POPULATION));
                if (rank[a], -crowd[a]) <= (rank[b], -crowd[b]) { a } else { b }
            };
            let (mut a, mut b) = (genomes[pick()].clone(), genomes[pick()].clone());
            if stream.chance(CROSSOVER) {
                let mut cuts = [0; 4].map(|_| stream.below(CELLS));
                cuts.sort_unstable();
                for piece in [cuts[0]..cuts[1], cuts[2]..cuts[3]] {
                    a[piece.clone()].swap_with_slice(&mut b[piece]);
                }
            }
            for mut child in [a, b] {
                if stream.chance(MUTATION) {
                    child.iter_mut().for_each(|bit| *bit ^= u8::from(stream.chance(1.0 / CELLS as f64)));
                }
                // As in the original, duplicates are discarded, except for a few in case all are duplicates.
                let copy = genomes.contains(&child) || children.contains(&child);
                if children.len() < POPULATION && (!copy || stream.chance(0.05)) {
                    children.push(child);
                }
            }
        }
        for child in children {
            let Some(point) = evaluate(&child) else { return };
            scores.push(score(point));
            genomes.push(child);
        }
        survive(&mut genomes, &mut scores);
        (rank, crowd) = places(&scores);
    }
}

fn score((share, error): (f64, f64)) -> Score {
    let point = Point::from([share, error]);
    Score { values: point, violation: 0.0, losses: point }
}

/// Front and crowding distance of each score.
fn places(scores: &[Score]) -> (Vec<usize>, Vec<f64>) {
    let (mut rank, mut crowd) = (vec![0; scores.len()], vec![0.0; scores.len()]);
    for (level, front) in non_dominated_sort(scores).iter().enumerate() {
        let points: Vec<Point> = front.iter().map(|&i| scores[i].values).collect();
        for (&i, distance) in front.iter().zip(crowding_distance(&points)) {
            (rank[i], crowd[i]) = (level, distance);
        }
    }
    (rank, crowd)
}

fn survive(genomes: &mut Vec<Bits>, scores: &mut Vec<Score>) {
    let (rank, crowd) = places(scores);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| rank[a].cmp(&rank[b]).then(crowd[b].total_cmp(&crowd[a])));
    order.truncate(POPULATION);
    *genomes = order.iter().map(|&i| std::mem::take(&mut genomes[i])).collect();
    *scores = order.iter().map(|&i| scores[i]).collect();
}

fn at_random(stream: &mut Stream) -> Vec<Bits> {
    (0..POPULATION).map(|_| (0..CELLS).map(|_| u8::from(stream.chance(0.5))).collect()).collect()
}

/// A population like ECAD's published ones: FORA-like with several phases, T-GATE-like (half the slots are no longer
/// computed from some step on), and evenly spaced computed steps.
fn heuristics(stream: &mut Stream) -> Vec<Bits> {
    let grid = |on: &dyn Fn(usize, usize) -> bool| -> Bits {
        (0..CELLS).map(|i| u8::from(i < SLOTS || on(i / SLOTS, i % SLOTS))).collect()
    };
    let mut all = Vec::new();
    for every in 1..=8 {
        all.extend((0..every.min(3)).map(|phase| grid(&|t, _| t % every == phase)));
    }
    for gate in [10, 20, 30, 40] {
        for every in [2, 3, 5] {
            let half = stream.below(2);
            all.push(grid(&|t, s| if s % 2 == half { t < gate } else { t >= gate || t % every == 0 }));
        }
    }
    let left = POPULATION - all.len();
    for count in 1..=left {
        let computed = count * STEPS / (left + 1);
        all.push(grid(&|t, _| (t + 1) * computed / STEPS > t * computed / STEPS));
    }
    all
}
