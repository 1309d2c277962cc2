//! The noise levels that a model was trained with, rounded as diffusers rounds them.

use super::dpm_solver::BetaSchedule;

/// Values between `start` and `end`, both included, as `torch.linspace` gives them in f32.
fn linspace(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count.max(2) - 1) as f32;
    (0..count)
        .map(
            |i| {
                if i < count / 2 { step.mul_add(i as f32, start) } else { step.mul_add(-((count - i - 1) as f32), end) }
            },
        )
        .collect()
}

/// Noise over signal, `sqrt((1 - ᾱ) / ᾱ)`, for every training timestep.
pub(super) fn training_sigmas(schedule: BetaSchedule, start: f64, end: f64, count: usize) -> Vec<f64> {
    let betas: Vec<f32> = match schedule {
        BetaSchedule::Linear => linspace(start as f32, end as f32, count),
        BetaSchedule::ScaledLinear => {
            linspace(start.sqrt() as f32, end.sqrt() as f32, count).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredCos => {
            let signal = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
            let at = |i: usize| i as f64 / count as f64;
            (0..count).map(|i| (1.0 - signal(at(i + 1)) / signal(at(i))).min(0.999) as f32).collect()
        }
    };
    // torch multiplies f32 values up in f64 and rounds each result.
    let mut product = 1f64;
    betas
        .into_iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            let signal = product as f32;
            f64::from(((1.0 - signal) / signal).sqrt())
        })
        .collect()
}
