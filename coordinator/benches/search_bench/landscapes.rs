//! Synthetic landscapes of 60 steps × 28 slots: a schedule's computed share and an error in `[0, 1]`, both minimised.
//! `steps` has schedules of fewer steps too.
//!
//! They show the sizes of effects between strategies; they predict no model. `pair` and `age` have weights drawn by
//! numpy (`../data/make_weights.py`); the others have weights from this project's own streams and are made to be
//! unlike those two and each other. A schedule of ours always computes step 0, so the smallest share is 1/60.
//! Absent: forecasts, and anything that a real model does.

use evocache_domain::rng::Stream;

/// Steps of every landscape; the largest step count of `steps`.
pub(crate) const STEPS: usize = 60;
/// All step counts of `steps`.
const FEWER: [u32; 5] = [60, 45, 30, 20, 15];
/// Slots of every landscape.
pub(crate) const SLOTS: usize = 28;
/// Decisions of a schedule.
pub(crate) const CELLS: usize = STEPS * SLOTS;

const WEIGHTS: &str = include_str!("../data/weights.txt");
/// What a landscape is made of.
enum Kind {
    /// Nearly additive in the cells; neighbouring slots that are both cached cost extra.
    Pair { cell: Vec<f64>, neighbour: Vec<f64> },
    /// Grows with each slot's age, couples the slots of a step as a norm, compounds over the steps.
    Age { powers: Vec<f64>, step_weight: Vec<f64> },
    /// Each slot may be this old at each third of the run for nothing; beyond that a fixed price. Rounded down.
    Plateau { tolerance: Vec<usize>, price: Vec<f64> },
    /// Additive over slots and steps with the root of the age; measured with noise.
    Noise { slot: Vec<f64>, step: Vec<f64> },
    /// Slots in hidden groups: what a group costs grows with the cube of how many of it are cached at once.
    Coupled { group: Vec<usize>, weight: Vec<f64> },
    /// Four slots and one stretch of steps matter, all else hardly.
    Critical { slot: Vec<f64>, step: Vec<f64> },
    /// Smooth in relative time: what is cached errs with the square of its age, and a step count by what a step is longer
    /// than one of 60; late steps matter less. Neither alone is best: few steps err much, and so does caching for long.
    Steps { slot: Vec<f64> },
    /// Regular schedules resonate: slots refreshed together and equal gaps are what is wrong with them.
    Misleading { slot: Vec<f64> },
}

/// A landscape.
pub(crate) struct Landscape {
    /// Its name in tables.
    pub(crate) name: &'static str,
    kind: Kind,
    /// Standard deviations of the logarithm of measured share and error.
    noise: (f64, f64),
}

/// All names, in the order of tables.
pub(crate) const NAMES: [&str; 8] = ["pair", "age", "plateau", "noise", "coupled", "critical", "misleading", "steps"];

fn read(name: &str) -> Vec<f64> {
    let header = format!("# {name} ");
    let lines = WEIGHTS.lines().skip_while(|line| !line.starts_with(&header)).skip(1);
    lines.take_while(|line| !line.starts_with('#')).filter_map(|line| line.parse().ok()).collect()
}

/// `n` positive weights whose logarithm is spread evenly enough over `±spread`.
fn draw(purpose: &str, n: usize, spread: f64) -> Vec<f64> {
    let mut stream = Stream::new(2026, purpose, 0);
    (0..n).map(|_| (spread * (stream.unit() + stream.unit() - 1.0)).exp()).collect()
}

impl Landscape {
    /// The landscape of this name.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let name = *NAMES.iter().find(|n| **n == name)?;
        let mut stream = Stream::new(2026, name, 1);
        let kind = match name {
            "pair" => Kind::Pair { cell: read("pair.cell"), neighbour: read("pair.neighbour") },
            "age" => {
                let sensitivity = read("age.sensitivity");
                let power = |a: usize, s: &f64| (s * (a as f64).powf(1.3)).powi(2);
                let powers = (0..=STEPS).flat_map(|a| sensitivity.iter().map(move |s| power(a, s))).collect();
                Kind::Age { powers, step_weight: read("age.step_weight") }
            }
            "plateau" => Kind::Plateau {
                tolerance: (0..3 * SLOTS).map(|_| [0, 1, 1, 2, 3, 6, 12][stream.below(7)]).collect(),
                price: draw("plateau.price", SLOTS, 1.0),
            },
            "noise" => Kind::Noise { slot: draw("noise.slot", SLOTS, 1.5), step: draw("noise.step", STEPS, 1.0) },
            "coupled" => Kind::Coupled {
                group: (0..SLOTS).map(|_| stream.below(6)).collect(),
                weight: draw("coupled.weight", 6 * STEPS, 1.2),
            },
            "critical" => {
                let critical = [3, 11, 12, 22];
                let slot = (0..SLOTS).map(|s| if critical.contains(&s) { 1.0 } else { 0.02 }).collect();
                let step = (0..STEPS).map(|t| if (24..36).contains(&t) { 1.0 } else { 0.15 }).collect();
                Kind::Critical { slot, step }
            }
            "steps" => Kind::Steps { slot: draw("steps.slot", SLOTS, 1.2) },
            _ => Kind::Misleading { slot: draw("misleading.slot", SLOTS, 1.0) },
        };
        Some(Self { name, kind, noise: if name == "noise" { (0.05, 0.10) } else { (0.0, 0.0) } })
    }

    /// The step counts that a schedule may have, largest first.
    pub(crate) fn steps(&self) -> &'static [u32] {
        if matches!(self.kind, Kind::Steps { .. }) { &FEWER } else { &FEWER[..1] }
    }

    /// Share computed and error of `bits`, step-major, 1 = compute.
    pub(crate) fn truth(&self, bits: &[u8]) -> (f64, f64) {
        let computed: usize = bits.iter().map(|&b| usize::from(b)).sum();
        (computed as f64 / CELLS as f64, self.error(bits))
    }

    /// What a worker would report for `truth` in its evaluation number `index`.
    pub(crate) fn measured(&self, truth: (f64, f64), seed: u64, index: u64) -> (f64, f64) {
        if self.noise == (0.0, 0.0) {
            return truth;
        }
        let mut stream = Stream::new(seed, "measurement", index);
        let mut normal = || (0..12).map(|_| stream.unit()).sum::<f64>() - 6.0;
        (truth.0 * (self.noise.0 * normal()).exp(), truth.1 * (self.noise.1 * normal()).exp())
    }

    fn error(&self, bits: &[u8]) -> f64 {
        match &self.kind {
            Kind::Pair { cell, neighbour } => {
                let cached = |i: usize| bits[i] == 0;
                let alone: f64 = (0..CELLS).filter(|&i| cached(i)).map(|i| cell[i]).sum();
                let both: f64 = (0..CELLS - 1).filter(|&i| cached(i) && cached(i + 1)).map(|i| neighbour[i]).sum();
                let all: f64 = cell.iter().sum::<f64>() + neighbour.iter().sum::<f64>();
                (3.0 * (alone + both) / all).tanh()
            }
            Kind::Age { powers, step_weight } => {
                let mut accumulated = 0.0f64;
                ages(bits, |step, age| {
                    let error = (0..SLOTS).map(|s| powers[age[s] * SLOTS + s]).sum::<f64>().sqrt();
                    accumulated = accumulated * (1.0 + 0.02 * (error / 20.0).tanh()) + step_weight[step] * error;
                });
                1.0 - (-accumulated / 2500.0).exp()
            }
            Kind::Plateau { tolerance, price } => {
                let mut sum = 0.0;
                ages(bits, |step, age| {
                    let third = step * 3 / STEPS;
                    sum += (0..SLOTS).filter(|&s| age[s] > tolerance[third * SLOTS + s]).map(|s| price[s]).sum::<f64>();
                });
                let all = price.iter().sum::<f64>() * STEPS as f64;
                (40.0 * (1.0 - (-3.0 * sum / all).exp())).floor() / 40.0
            }
            Kind::Noise { slot, step } => {
                let mut sum = 0.0;
                ages(bits, |t, age| sum += step[t] * (0..SLOTS).map(|s| slot[s] * (age[s] as f64).sqrt()).sum::<f64>());
                1.0 - (-sum / 4500.0).exp()
            }
            Kind::Coupled { group, weight } => {
                let mut sum = 0.0;
                for (step, row) in bits.chunks_exact(SLOTS).enumerate() {
                    let mut cached = [0.0f64; 6];
                    row.iter().zip(group).filter(|(bit, _)| **bit == 0).for_each(|(_, &g)| cached[g] += 1.0);
                    sum += (0..6).map(|g| weight[step * 6 + g] * cached[g].powi(3)).sum::<f64>();
                }
                1.0 - (-sum / 12_000.0).exp()
            }
            Kind::Critical { slot, step } => {
                let mut sum = 0.0;
                ages(bits, |t, age| sum += step[t] * (0..SLOTS).map(|s| slot[s] * age[s] as f64).sum::<f64>());
                1.0 - (-sum / 60.0).exp()
            }
            Kind::Steps { slot } => {
                let longer = STEPS as f64 / (bits.len() / SLOTS) as f64;
                let mut sum = 8.0 * (longer.powi(2) - 1.0);
                ages(bits, |step, age| {
                    let late = 1.5 - step as f64 * longer / STEPS as f64;
                    let aged = |s: usize| slot[s] * (age[s] as f64 * longer).powi(2) / SLOTS as f64;
                    sum += late * longer * (0..SLOTS).map(aged).sum::<f64>();
                });
                1.0 - (-sum / 600.0).exp()
            }
            Kind::Misleading { slot } => misleading(bits, slot),
        }
    }
}

/// Calls back with every step and the age of each slot's output at it.
fn ages(bits: &[u8], mut at: impl FnMut(usize, &[usize; SLOTS])) {
    let mut age = [0usize; SLOTS];
    for (step, row) in bits.chunks_exact(SLOTS).enumerate() {
        for (age, bit) in age.iter_mut().zip(row) {
            *age = if *bit == 1 { 0 } else { *age + 1 };
        }
        at(step, &age);
    }
}

/// A base error by age, a price for two neighbouring gaps of one length, and one for refreshing many slots at once.
fn misleading(bits: &[u8], slot: &[f64]) -> f64 {
    let mut sum = 0.0;
    ages(bits, |step, age| {
        sum += (0..SLOTS).map(|s| slot[s] * 0.3 * (age[s] as f64).powf(0.8)).sum::<f64>();
        let cached = (0..SLOTS).filter(|&s| age[s] > 0).count() as f64 / SLOTS as f64;
        // Spread evenly over the steps, a share of cached slots costs least: the price is convex in it.
        sum += if step > 0 { 30.0 * cached.powi(4) } else { 0.0 };
    });
    for (s, weight) in slot.iter().enumerate() {
        let (mut last, mut before) = (0, 0);
        for step in 1..STEPS {
            if bits[step * SLOTS + s] == 1 {
                let gap = step - last;
                if gap > 1 && gap == before {
                    sum += 3.0 * weight * gap as f64;
                }
                (last, before) = (step, gap);
            }
        }
    }
    1.0 - (-sum / 900.0).exp()
}
