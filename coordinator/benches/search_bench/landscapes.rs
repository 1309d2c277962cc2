//! Synthetic landscapes of 60 steps × 28 slots: a schedule's computed share and an error in `[0, 1]`, both minimized.
//! `steps` also has schedules of fewer steps.
//!
//! They show the sizes of effects between strategies and do not predict those of a real model. The weights of `pair`
//! and `age` are drawn by numpy (`../data/make_weights.py`), those of the others by this project's streams; the others
//! are designed to differ from these two and from each other. This project's schedules always compute step 0, so the
//! smallest share is 1/60. There are no forecasts.

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
/// The error function of a landscape.
enum Kind {
    /// Nearly additive in the cells; pairs of neighboring cached slots cost extra.
    Pair { cell: Vec<f64>, neighbour: Vec<f64> },
    /// Grows with each slot's age, couples the slots of a step as a norm, compounds over the steps.
    Age { powers: Vec<f64>, step_weight: Vec<f64> },
    /// In each third of the run, a slot's output may reach a tolerated age at no cost; beyond it costs a fixed price.
    /// The error is rounded down to multiples of 1/40.
    Plateau { tolerance: Vec<usize>, price: Vec<f64> },
    /// Additive over slots and steps in the square root of the age; measured with noise.
    Noise { slot: Vec<f64>, step: Vec<f64> },
    /// Slots in hidden groups: the error of a group grows with the cube of the number of its cached slots.
    Coupled { group: Vec<usize>, weight: Vec<f64> },
    /// Four slots and one range of steps matter; all others hardly do.
    Critical { slot: Vec<f64>, step: Vec<f64> },
    /// Smooth in relative time: cached outputs add an error quadratic in their age, and fewer steps one quadratic in
    /// the step's length; late steps matter less. The best schedules combine fewer steps and caching.
    Steps { slot: Vec<f64> },
    /// Regular schedules are penalized: for refreshing many slots together and for equal gaps.
    Misleading { slot: Vec<f64> },
}

/// A landscape.
pub(crate) struct Landscape {
    /// The name in tables.
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

/// `n` positive weights whose logarithms have a triangular distribution over `±spread`.
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

    /// The measured values for `truth` in evaluation number `index`, with the landscape's noise.
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

/// Calls `at` for every step with the ages of all slots' outputs.
fn ages(bits: &[u8], mut at: impl FnMut(usize, &[usize; SLOTS])) {
    let mut age = [0usize; SLOTS];
    for (step, row) in bits.chunks_exact(SLOTS).enumerate() {
        for (age, bit) in age.iter_mut().zip(row) {
            *age = if *bit == 1 { 0 } else { *age + 1 };
        }
        at(step, &age);
    }
}

/// An error by age, a penalty for two consecutive gaps of equal length, and one for refreshing many slots at once.
fn misleading(bits: &[u8], slot: &[f64]) -> f64 {
    let mut sum = 0.0;
    ages(bits, |step, age| {
        sum += (0..SLOTS).map(|s| slot[s] * 0.3 * (age[s] as f64).powf(0.8)).sum::<f64>();
        let cached = (0..SLOTS).filter(|&s| age[s] > 0).count() as f64 / SLOTS as f64;
        // Convex in the share of cached slots, so caching evenly over the steps costs least.
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
