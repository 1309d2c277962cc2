//! DPM-Solver++ multistep (Lu et al., arXiv 2211.01095): diffusers' `DPMSolverMultistepScheduler`.
//!
//! Deterministic, orders 1 to 3, data prediction. Coefficients are computed in f64, from noise levels rounded to f32
//! where diffusers rounds them, so latents agree with diffusers to f32 precision.

use candle_core::Tensor;

use super::Sampler;
use super::betas::{BetaSchedule, Prediction, read_signals};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;

/// How timesteps are chosen from the training schedule (arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// The settings in `scheduler_config.json`.
#[derive(Debug, Clone)]
pub struct DpmSolverConfig {
    sigmas: Vec<f64>,
    order: usize,
    prediction: Prediction,
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    karras: bool,
    round_karras: bool,
    final_zero: bool,
    lambda_min_clipped: f64,
    spacing: Spacing,
    steps_offset: i64,
    /// Timesteps chosen by the caller.
    chosen: Option<Vec<u32>>,
}

/// Highest order of the solver.
const MAX_ORDER: usize = 3;

impl DpmSolverConfig {
    /// Overrides the order and the timesteps where given. Fails unless timesteps are valid and strictly decreasing.
    pub fn with(mut self, order: Option<usize>, timesteps: Option<Vec<u32>>) -> Result<Self> {
        let refused = |message: String| Err(ModelError::Input(message));
        if let Some(order) = order {
            if order == 0 || order > MAX_ORDER {
                return refused(format!("the solver's order must be 1 to {MAX_ORDER}, got {order}"));
            }
            self.order = order;
        }
        if let Some(timesteps) = timesteps {
            let known = self.sigmas.len();
            if self.karras {
                return refused("timesteps cannot be given to a sampler whose config sets use_karras_sigmas".into());
            }
            if timesteps.is_empty() || timesteps.iter().any(|&t| t as usize >= known) {
                return refused(format!("timesteps {timesteps:?} must be one or more numbers below {known}"));
            }
            if !timesteps.is_sorted_by(|a, b| a > b) {
                return refused(format!("timesteps {timesteps:?} must decrease, noisiest first"));
            }
            self.chosen = Some(timesteps);
        }
        Ok(self)
    }

    /// Reads a config. Fails, naming the field, if a setting is not implemented.
    pub fn read(config: &Config) -> Result<Self> {
        fields::check(config, "DPMSolverMultistepScheduler")?;
        let order = config.size_or("solver_order", 2)?;
        if order > MAX_ORDER {
            return Err(config.unsupported("solver_order", order, "1, 2, 3"));
        }
        let (schedule, signals) = read_signals(config)?;
        // diffusers computes in f32.
        let sigma = |signal: f64| f64::from(((1.0 - signal as f32) / signal as f32).sqrt());
        Ok(Self {
            sigmas: signals.into_iter().map(sigma).collect(),
            order,
            prediction: Prediction::read(config)?,
            heun: config.choice("solver_type", "midpoint", &["midpoint", "heun"])? == "heun",
            lower_order_final: config.flag_or("lower_order_final", true)?,
            euler_at_final: config.flag_or("euler_at_final", false)?,
            karras: config.flag_or("use_karras_sigmas", false)?,
            round_karras: schedule != BetaSchedule::SquaredCos,
            final_zero: config.choice("final_sigmas_type", "zero", &["zero", "sigma_min"])? == "zero",
            lambda_min_clipped: config.number_or("lambda_min_clipped", f64::NEG_INFINITY)?,
            spacing: match config.choice("timestep_spacing", "linspace", &["linspace", "leading", "trailing"])? {
                "linspace" => Spacing::Linspace,
                "leading" => Spacing::Leading,
                _ => Spacing::Trailing,
            },
            steps_offset: config.integer_or("steps_offset", 0)?,
            chosen: None,
        })
    }

    /// Training timesteps of a run of `steps` steps, noisiest first.
    fn timesteps(&self, steps: usize) -> Vec<i64> {
        if let Some(chosen) = &self.chosen {
            return chosen.iter().map(|&t| i64::from(t)).collect();
        }
        // The noisiest timesteps, whose lambda = -ln(sigma) is below lambda_min_clipped, are not used.
        let clipped = self.sigmas.iter().rev().take_while(|sigma| -sigma.ln() < self.lambda_min_clipped).count();
        let last = self.sigmas.len() - clipped;
        match self.spacing {
            Spacing::Linspace => {
                let step = (last - 1) as f64 / steps as f64;
                (1..=steps).rev().map(|i| (i as f64 * step).round_ties_even() as i64).collect()
            }
            Spacing::Leading => {
                let ratio = last / (steps + 1);
                (1..=steps).rev().map(|i| (i * ratio) as i64 + self.steps_offset).collect()
            }
            Spacing::Trailing => {
                let ratio = self.sigmas.len() as f64 / steps as f64;
                (0..steps)
                    .map(|i| last as f64 - i as f64 * ratio)
                    .take_while(|&t| t > 0.0)
                    .map(|t| t.round_ties_even() as i64 - 1)
                    .collect()
            }
        }
    }

    /// The fractional training timestep of a noise level, interpolated linearly in the logarithm of the level.
    fn timestep_of(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        let above = self.sigmas.iter().take_while(|s| s.ln() <= log).count();
        let low = above.saturating_sub(1).min(self.sigmas.len() - 2);
        let (a, b) = (self.sigmas[low].ln(), self.sigmas[low + 1].ln());
        low as f64 + ((a - log) / (a - b)).clamp(0.0, 1.0)
    }

    /// The noise levels of Karras et al. (arXiv 2206.00364, equation 5, rho = 7).
    fn karras_sigmas(&self, steps: usize) -> Vec<f64> {
        let root = |sigma: f64| sigma.powf(1.0 / 7.0);
        let (max, min) = (root(self.sigmas[self.sigmas.len() - 1]), root(self.sigmas[0]));
        (0..steps).map(|i| (max + i as f64 / (steps.max(2) - 1) as f64 * (min - max)).powi(7)).collect()
    }
}

/// Signal scale `alpha` and noise scale `sigma` of a noise level, and `lambda = ln(alpha / sigma)`.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl Level {
    fn new(sigma: f64) -> Self {
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { alpha, sigma: sigma * alpha, lambda: -sigma.ln() }
    }
}

/// One run of the solver.
pub struct DpmSolver {
    config: DpmSolverConfig,
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    /// Predictions of the clean latents, the newest last.
    history: Vec<Tensor>,
}

impl DpmSolver {
    /// Starts a run of `steps` steps.
    pub fn new(config: &DpmSolverConfig, steps: u32) -> Result<Self> {
        let steps = steps as usize;
        let known = config.sigmas.len();
        if steps == 0 || steps >= known || known < 3 {
            return Err(ModelError::Input(format!("{steps} steps cannot be picked from {known} training timesteps")));
        }
        let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = if config.karras {
            let sigmas = config.karras_sigmas(steps);
            let timestep = |&sigma: &f64| {
                let t = config.timestep_of(sigma);
                // diffusers converts timesteps to integers either way.
                if config.round_karras { t.round_ties_even() } else { t.trunc() }
            };
            (sigmas.iter().map(timestep).collect(), sigmas)
        } else {
            let timesteps = config.timesteps(steps);
            let at = |&t: &i64| config.sigmas[t.clamp(0, known as i64 - 1) as usize];
            (timesteps.iter().map(|&t| t as f64).collect(), timesteps.iter().map(at).collect())
        };
        if timesteps.len() != steps && config.chosen.is_some() {
            return Err(ModelError::Input(format!("{} timesteps were given for {steps} steps", timesteps.len())));
        }
        if timesteps.len() != steps {
            return Err(ModelError::Input(format!(
                "the timestep spacing gives {} steps, not {steps}",
                timesteps.len()
            )));
        }
        sigmas.push(if config.final_zero { 0.0 } else { config.sigmas[0] });
        let levels = sigmas.into_iter().map(|sigma| Level::new(f64::from(sigma as f32))).collect();
        Ok(Self { config: config.clone(), timesteps, levels, history: Vec::new() })
    }

    /// The clean latents that the model's output predicts.
    fn clean(&self, index: usize, output: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let Level { alpha, sigma, .. } = self.levels[index];
        Ok(match self.config.prediction {
            Prediction::Noise => ((latents - (output * sigma)?)? / alpha)?,
            Prediction::Sample => output.clone(),
            Prediction::Velocity => ((latents * alpha)? - (output * sigma)?)?,
        })
    }

    /// The order of a step: it grows with the history, and drops in the last steps if the config says so.
    fn order(&self, index: usize) -> usize {
        let (c, steps) = (&self.config, self.timesteps.len());
        let short = c.lower_order_final && steps < 15;
        let last = index + 1 == steps && (c.euler_at_final || short || c.final_zero);
        let second_last = index + 2 == steps && short;
        let limit = if last {
            1
        } else if second_last {
            2
        } else {
            3
        };
        c.order.min(index + 1).min(limit)
    }
}

impl Sampler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_scale(&self) -> f64 {
        1.0
    }

    fn step(&mut self, index: usize, output: &Tensor, latents: &Tensor) -> Result<Tensor> {
        if index >= self.timesteps.len() {
            return Err(ModelError::Input(format!("step {index} is beyond the last of {}", self.timesteps.len())));
        }
        let clean = self.clean(index, output, latents)?;
        self.history.push(clean);
        if self.history.len() > self.config.order {
            self.history.remove(0);
        }
        let order = self.order(index).min(self.history.len());
        let (to, from) = (self.levels[index + 1], self.levels[index]);
        let newest = |i: usize| &self.history[self.history.len() - 1 - i];
        // As in the paper, h is the step in lambda; e = exp(-h) - 1 is -1 if the last level has no noise.
        let h = to.lambda - from.lambda;
        let e = (-h).exp_m1();
        let base = ((latents * (to.sigma / from.sigma))? - (newest(0) * (to.alpha * e))?)?;
        if order == 1 {
            return Ok(base);
        }
        let h0 = from.lambda - self.levels[index - 1].lambda;
        let r0 = h0 / h;
        let first = ((newest(0) - newest(1))? * (1.0 / r0))?;
        let slope = to.alpha * (e / h + 1.0);
        if order == 2 {
            let factor = if self.config.heun { slope } else { -0.5 * to.alpha * e };
            return Ok((base + (first * factor)?)?);
        }
        let h1 = self.levels[index - 1].lambda - self.levels[index - 2].lambda;
        let r1 = h1 / h;
        let before = ((newest(1) - newest(2))? * (1.0 / r1))?;
        let change = (&first - before)?;
        let d1 = (first + (&change * (r0 / (r0 + r1)))?)?;
        let d2 = (change * (1.0 / (r0 + r1)))?;
        let curve = to.alpha * ((e + h) / (h * h) - 0.5);
        Ok(((base + (d1 * slope)?)? - (d2 * curve)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;

    fn read(text: &str) -> Result<DpmSolverConfig> {
        DpmSolverConfig::read(&Config::parse(Path::new("scheduler_config.json"), text)?)
    }

    /// Config, steps, first three and last two timesteps, and both latents after the middle and the last step, from
    /// diffusers 0.42.1 with initial latents (1, -0.5) and model output `0.5 x - 0.2 cos i` at step i.
    type Case = (&'static str, u32, [i64; 5], [f64; 4]);

    const CASES: &[Case] = &[
        ("{}", 20, [999, 949, 899, 100, 50], [7.583193, -3.579499, 9.164471, -4.140629]),
        ("{}", 7, [999, 856, 714, 285, 143], [10.226656, -3.148443, 10.790668, -3.189468]),
        (r#"{"solver_order": 1}"#, 12, [999, 916, 832, 166, 83], [12.47243, -3.83357, 14.236151, -4.428997]),
        (r#"{"solver_order": 3}"#, 20, [999, 949, 899, 100, 50], [7.852911, -3.455005, 9.645559, -4.010341]),
        (r#"{"solver_order": 3}"#, 9, [999, 888, 777, 222, 111], [9.435966, -3.052112, 11.173815, -3.276547]),
        (r#"{"solver_type": "heun"}"#, 20, [999, 949, 899, 100, 50], [7.447682, -3.570431, 8.996584, -4.120135]),
        (
            r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading",
                "steps_offset": 1}"#,
            15,
            [931, 869, 807, 125, 63],
            [2.436858, -1.082491, 2.315132, -1.024305],
        ),
        (
            r#"{"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "prediction_type": "v_prediction"}"#,
            10,
            [995, 896, 796, 199, 100],
            [0.601374, -0.310715, 0.435961, -0.237099],
        ),
        (
            r#"{"timestep_spacing": "trailing", "prediction_type": "v_prediction"}"#,
            13,
            [999, 922, 845, 153, 76],
            [0.864391, -0.395725, 0.472854, -0.204886],
        ),
        (r#"{"use_karras_sigmas": true}"#, 18, [999, 967, 933, 5, 0], [7.110885, -3.626708, 8.222449, -4.084044]),
        (
            r#"{"euler_at_final": true, "final_sigmas_type": "sigma_min"}"#,
            16,
            [999, 937, 874, 125, 62],
            [8.060959, -3.484863, 9.269182, -4.096573],
        ),
        (
            r#"{"final_sigmas_type": "sigma_min", "lower_order_final": false}"#,
            11,
            [999, 908, 817, 182, 91],
            [8.168804, -3.317116, 9.334869, -3.900731],
        ),
        (r#"{"prediction_type": "sample"}"#, 8, [999, 874, 749, 250, 125], [1.204995, -0.496837, 0.229525, -0.440366]),
    ];

    #[test]
    fn timesteps_and_latents_are_those_of_diffusers() -> Result<()> {
        for &(text, steps, timesteps, wanted) in CASES {
            let mut solver = DpmSolver::new(&read(text)?, steps)?;
            let found = solver.timesteps().to_vec();
            let n = found.len();
            let ends = [found[0], found[1], found[2], found[n - 2], found[n - 1]];
            assert_eq!(ends, timesteps.map(|t| t as f64), "{text}, {steps} steps");
            let mut x = Tensor::new(&[1f32, -0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
            let mut seen = vec![];
            for i in 0..n {
                let output = x.affine(0.5, -0.2 * (i as f64).cos())?;
                x = solver.step(i, &output, &x)?;
                if i == n / 2 || i + 1 == n {
                    seen.extend(x.flatten_all()?.to_vec1::<f32>()?);
                }
            }
            for (a, b) in seen.iter().zip(wanted) {
                assert!((f64::from(*a) - b).abs() < 1e-5 * b.abs().max(1.0), "{text}, {steps} steps: {a} is not {b}");
            }
        }
        Ok(())
    }

    /// Config, order, timesteps, and latents after every step, as above with `set_timesteps(timesteps=…)`.
    type Chosen = (&'static str, usize, &'static [u32], &'static [[f64; 2]]);

    const CHOSEN: &[Chosen] = &[
        (
            r#"{}"#,
            1,
            &[999, 732, 478, 243, 50],
            &[
                [7.543099, -0.9665265],
                [21.87341, -2.343103],
                [34.41179, -3.830683],
                [33.31527, -3.870442],
                [30.87246, -3.612328],
            ],
        ),
        (
            r#"{}"#,
            1,
            &[999, 784, 577, 381, 199, 50],
            &[
                [5.162723, -0.7969798],
                [13.61472, -1.706616],
                [23.76385, -3.134565],
                [29.52375, -4.101118],
                [27.84896, -3.948136],
                [25.83618, -3.651383],
            ],
        ),
        (
            r#"{}"#,
            2,
            &[999, 732, 478, 243, 50],
            &[
                [7.543099, -0.9665265],
                [17.52835, -2.160537],
                [21.83691, -3.192284],
                [15.64738, -2.782978],
                [14.48785, -2.60385],
            ],
        ),
        (
            r#"{}"#,
            3,
            &[999, 700, 420, 250, 120, 40, 7],
            &[
                [9.430828, -1.10084],
                [22.31736, -2.506246],
                [26.0448, -3.139739],
                [25.93587, -3.232214],
                [25.79255, -3.115758],
                [25.41667, -2.988565],
                [24.97255, -2.928432],
            ],
        ),
        (
            r#"{"solver_type": "heun", "lower_order_final": false, "final_sigmas_type": "sigma_min"}"#,
            2,
            &[990, 600, 300, 100],
            &[[16.38986, -1.594], [31.57324, -3.003342], [26.81485, -2.871553], [10.02345, -1.799614]],
        ),
        (r#"{}"#, 2, &[500], &[[2.552361, -0.2432901]]),
    ];

    #[test]
    fn a_chosen_order_and_grid_are_those_of_diffusers() -> Result<()> {
        for &(text, order, timesteps, wanted) in CHOSEN {
            let config = read(text)?.with(Some(order), Some(timesteps.into()))?;
            let mut solver = DpmSolver::new(&config, timesteps.len() as u32)?;
            assert_eq!(solver.timesteps(), timesteps.iter().map(|&t| f64::from(t)).collect::<Vec<_>>());
            let mut x = Tensor::new(&[1f32, -0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
            for (i, wanted) in wanted.iter().enumerate() {
                x = solver.step(i, &x.affine(0.5, -0.2 * (i as f64).cos())?, &x)?;
                for (a, b) in x.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
                    let error = (f64::from(*a) - b).abs();
                    assert!(error < 1e-5 * b.abs().max(1.0), "{text}, order {order}, step {i}: {a} is not {b}");
                }
            }
            let error = DpmSolver::new(&config, timesteps.len() as u32 + 1).err().unwrap().to_string();
            assert!(error.contains("timesteps were given for"), "{error}");
        }
        let refused = |text: &str, order, timesteps: &[u32]| {
            read(text).unwrap().with(order, Some(timesteps.into())).unwrap_err().to_string()
        };
        assert!(refused("{}", Some(4), &[5]).contains("must be 1 to 3, got 4"));
        assert!(refused("{}", None, &[1000, 5]).contains("below 1000"));
        assert!(refused("{}", None, &[]).contains("one or more"));
        assert!(refused("{}", None, &[500, 500]).contains("must decrease"));
        assert!(refused(r#"{"use_karras_sigmas": true}"#, None, &[5]).contains("use_karras_sigmas"));
        Ok(())
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (text, wanted) in [
            (r#"{"algorithm_type": "sde-dpmsolver++"}"#, "'algorithm_type'"),
            (r#"{"use_lu_lambdas": true}"#, "'use_lu_lambdas'"),
            (r#"{"solver_order": 4}"#, "'solver_order'"),
            (r#"{"variance_type": "learned_range"}"#, "'variance_type'"),
            (r#"{"beta_end": 2}"#, "'beta_end'"),
            (r#"{"trained_betas": [0.1]}"#, "'trained_betas'"),
        ] {
            let error = read(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(wanted) && error.contains("scheduler_config.json"), "{text}: '{error}'");
        }
    }
}
