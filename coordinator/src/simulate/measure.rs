//! The measurement that a simulated worker reports. Latency is proportional to what is computed; the error grows with the
//! age of reused outputs, more so in early blocks; each prompt has its own score.

use std::time::Duration;

use evocache_proto::domain::{Decision, Measurement, MetricValues, Schedule};

use super::dice::Dice;
use super::plan::{Plan, QUALITY};

/// Microseconds of one module run.
const MODULE: f64 = 100.0;

/// The measurement of a schedule on the first `prompts` prompts.
pub(super) fn measure(
    schedule: &Schedule,
    prompts: usize,
    span: Duration,
    plan: &Plan,
    dice: &mut Dice,
) -> Measurement {
    let slots = schedule.slots();
    let largest = plan.spec.sampling.baseline_steps();
    let cells = f64::from(largest) * slots as f64;
    let error = error(schedule) + f64::from(largest.saturating_sub(schedule.steps())) / f64::from(largest);
    let fixed = |steps: u32| f64::from(steps) * slots as f64 / 10.0;
    let latency = MODULE * (schedule.computed() as f64 + fixed(schedule.steps()));
    let baseline = MODULE * (cells + fixed(largest));
    let repeats = plan.spec.plan.repeats;
    let mut samples = |latency: f64| -> Vec<f64> { (0..repeats).map(|_| latency * dice.disturbance()).collect() };
    let scores: Vec<f64> = (0..prompts).map(shade).collect();
    Measurement {
        latency_us: samples(latency),
        baseline_latency_us: samples(baseline),
        metrics: vec![MetricValues {
            name: QUALITY.into(),
            values: scores.iter().map(|score| score * (-0.3 * error * score).exp()).collect(),
            baseline_mean: scores.iter().sum::<f64>() / prompts.max(1) as f64,
        }],
        macs: latency as u64 + 1,
        baseline_macs: baseline as u64 + 1,
        peak_cache_bytes: (schedule.cache_hit_rate() * cells) as u64,
        device_time: span.max(Duration::from_millis(1)),
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    }
}

/// Mean age of the outputs used, in steps; early blocks count up to twice.
fn error(schedule: &Schedule) -> f64 {
    let slots = schedule.slots();
    let (mut ages, mut sum) = (vec![0.0; slots], 0.0);
    for step in 0..schedule.steps() {
        for (slot, age) in ages.iter_mut().enumerate() {
            match schedule.decision(step, slot) {
                Decision::Compute => *age = 0.0,
                Decision::Reuse | Decision::Forecast => *age += 1.0,
            }
            sum += *age * (2.0 - slot as f64 / slots as f64);
        }
    }
    sum / (f64::from(schedule.steps()) * slots as f64)
}

/// The uncached score of a prompt, spread evenly over 0.9 to 1.1.
fn shade(prompt: usize) -> f64 {
    0.9 + 0.2 * (prompt as f64 * 0.618_033_988_749_895).fract()
}
