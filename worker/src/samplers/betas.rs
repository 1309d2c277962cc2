//! The noise schedule that a model was trained with, rounded as in diffusers.

use crate::files::config::Config;
use crate::files::error::Result;

/// Most training timesteps accepted; each takes a value in memory.
const MAX_TIMESTEPS: usize = 1_000_000;

/// How noise grows over the training timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BetaSchedule {
    /// Betas grow linearly with the timestep.
    Linear,
    /// Square roots of the betas grow linearly.
    ScaledLinear,
    /// The signal falls as a squared cosine of the timestep (arXiv 2102.09672).
    SquaredCos,
}

/// The quantity that a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise in the latents.
    Noise,
    /// The clean latents.
    Sample,
    /// `alpha · noise - sigma · sample` (arXiv 2202.00512).
    Velocity,
}

impl Prediction {
    pub(super) fn read(config: &Config) -> Result<Self> {
        Ok(match config.choice("prediction_type", "epsilon", &["epsilon", "sample", "v_prediction"])? {
            "epsilon" => Self::Noise,
            "sample" => Self::Sample,
            _ => Self::Velocity,
        })
    }
}

/// Reads the betas of a scheduler's config. Returns their schedule and the remaining share of the signal, `ᾱ`, at every
/// training timestep.
pub(super) fn read_signals(config: &Config) -> Result<(BetaSchedule, Vec<f64>)> {
    let schedule = match config.choice("beta_schedule", "linear", &["linear", "scaled_linear", "squaredcos_cap_v2"])? {
        "linear" => BetaSchedule::Linear,
        "scaled_linear" => BetaSchedule::ScaledLinear,
        _ => BetaSchedule::SquaredCos,
    };
    let (start, end) = (config.number_or("beta_start", 1e-4)?, config.number_or("beta_end", 0.02)?);
    for (field, beta) in [("beta_start", start), ("beta_end", end)] {
        if !(beta > 0.0 && beta < 1.0) {
            return Err(config.wrong(field, "a number between 0 and 1", beta.to_string()));
        }
    }
    let count = config.size_or("num_train_timesteps", 1000)?;
    if count > MAX_TIMESTEPS {
        return Err(config.wrong("num_train_timesteps", format!("at most {MAX_TIMESTEPS}"), count.to_string()));
    }
    Ok((schedule, signals(schedule, start, end, count)))
}

/// `torch.linspace(start, end, count)` in f32.
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

fn signals(schedule: BetaSchedule, start: f64, end: f64, count: usize) -> Vec<f64> {
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
    // torch accumulates the product in f64 and rounds each result to f32.
    let mut product = 1f64;
    betas
        .into_iter()
        .map(|beta| {
            product *= f64::from(1.0 - beta);
            f64::from(product as f32)
        })
        .collect()
}
