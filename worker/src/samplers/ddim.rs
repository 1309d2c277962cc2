//! Deterministic DDIM (Song et al., arXiv 2010.02502; eta = 0): diffusers' `DDIMScheduler`, as in DiT's pipeline.

use candle_core::Tensor;

use super::Sampler;
use super::betas::{Prediction, read_signals};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// The settings in `scheduler_config.json`.
#[derive(Debug, Clone)]
pub struct DdimConfig {
    /// Share of the signal, `ᾱ`, at every training timestep.
    signals: Vec<f64>,
    final_signal: f64,
    prediction: Prediction,
    /// Bound on the absolute value of predicted clean latents; `None` if they are not clipped.
    clip: Option<f64>,
    spacing: Spacing,
    steps_offset: usize,
}

impl DdimConfig {
    /// Reads a config. Fails, naming the field, if a setting is not implemented.
    pub fn read(config: &Config) -> Result<Self> {
        fields::check(config, "DDIMScheduler")?;
        let (_, signals) = read_signals(config)?;
        let offset = config.integer_or("steps_offset", 0)?;
        let steps_offset = usize::try_from(offset)
            .map_err(|_| config.wrong("steps_offset", "an integer of at least 0", offset.to_string()))?;
        let range = config.number_or("clip_sample_range", 1.0)?;
        Ok(Self {
            final_signal: if config.flag_or("set_alpha_to_one", true)? { 1.0 } else { signals[0] },
            signals,
            prediction: Prediction::read(config)?,
            clip: config.flag_or("clip_sample", true)?.then_some(range),
            spacing: match config.choice("timestep_spacing", "leading", &["leading", "trailing", "linspace"])? {
                "leading" => Spacing::Leading,
                "trailing" => Spacing::Trailing,
                _ => Spacing::Linspace,
            },
            steps_offset,
        })
    }

    /// Training timesteps of a run of `steps` steps, noisiest first.
    fn timesteps(&self, steps: usize) -> Vec<usize> {
        let known = self.signals.len();
        match self.spacing {
            Spacing::Linspace => {
                let step = (known - 1) as f64 / (steps.max(2) - 1) as f64;
                (0..steps).rev().map(|i| (i as f64 * step).round_ties_even() as usize).collect()
            }
            Spacing::Leading => (0..steps).rev().map(|i| i * (known / steps) + self.steps_offset).collect(),
            Spacing::Trailing => {
                let ratio = known as f64 / steps as f64;
                (0..steps)
                    .map(|i| (known as f64 - i as f64 * ratio).round_ties_even() as usize)
                    .map(|t| t.saturating_sub(1))
                    .collect()
            }
        }
    }
}

/// One run of DDIM.
pub struct Ddim {
    config: DdimConfig,
    timesteps: Vec<f64>,
    /// `ᾱ` before and after each step.
    signals: Vec<(f64, f64)>,
}

impl Ddim {
    /// Starts a run of `steps` steps.
    pub fn new(config: &DdimConfig, steps: u32) -> Result<Self> {
        let (steps, known) = (steps as usize, config.signals.len());
        if steps == 0 || steps > known {
            return Err(ModelError::Input(format!("{steps} steps cannot be picked from {known} training timesteps")));
        }
        let timesteps = config.timesteps(steps);
        if let Some(t) = timesteps.iter().find(|&&t| t >= known) {
            return Err(ModelError::Input(format!("the sampler's timestep {t} is beyond the last of {known}")));
        }
        // As in diffusers, the next timestep is lower by known / steps, whatever the spacing.
        let next = |t: usize| t.checked_sub(known / steps).map_or(config.final_signal, |t| config.signals[t]);
        Ok(Self {
            signals: timesteps.iter().map(|&t| (config.signals[t], next(t))).collect(),
            timesteps: timesteps.into_iter().map(|t| t as f64).collect(),
            config: config.clone(),
        })
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_scale(&self) -> f64 {
        1.0
    }

    fn step(&mut self, index: usize, output: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let Some(&(from, to)) = self.signals.get(index) else {
            return Err(ModelError::Input(format!("step {index} is beyond the last of {}", self.timesteps.len())));
        };
        let (alpha, sigma) = (from.sqrt(), (1.0 - from).sqrt());
        let (clean, noise) = match self.config.prediction {
            Prediction::Noise => (((latents - (output * sigma)?)? / alpha)?, output.clone()),
            Prediction::Sample => (output.clone(), ((latents - (output * alpha)?)? / sigma)?),
            Prediction::Velocity => {
                (((latents * alpha)? - (output * sigma)?)?, ((output * alpha)? + (latents * sigma)?)?)
            }
        };
        // As in diffusers, clipping does not change the predicted noise.
        let clean = match self.config.clip {
            Some(range) => clean.clamp(-range, range)?,
            None => clean,
        };
        Ok(((clean * to.sqrt())? + (noise * (1.0 - to).sqrt())?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;

    fn read(text: &str) -> Result<DdimConfig> {
        DdimConfig::read(&Config::parse(Path::new("scheduler_config.json"), text)?)
    }

    /// Config, steps, timesteps, and latents after every step, from diffusers 0.42.1 with initial latents (1, -0.5) and
    /// model output `0.5 x - 0.2 cos i` at step i.
    type Case = (&'static str, u32, &'static [f64], &'static [[f64; 2]]);

    const CASES: &[Case] = &[
        (
            r#"{"clip_sample": false}"#,
            6,
            &[830.0, 664.0, 498.0, 332.0, 166.0, 0.0],
            &[
                [2.750936, -0.6233324],
                [5.170024, -0.9490696],
                [7.445405, -1.475578],
                [8.40245, -1.843812],
                [7.243507, -1.680939],
                [7.208215, -1.67205],
            ],
        ),
        (
            r#"{}"#,
            5,
            &[800.0, 600.0, 400.0, 200.0, 0.0],
            &[
                [0.4560384, -0.6041084],
                [0.5476927, -0.8082566],
                [0.6273824, -0.9982696],
                [0.4092434, -1.002962],
                [0.4059099, -0.9993038],
            ],
        ),
        (
            r#"{"clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#,
            4,
            &[751.0, 501.0, 251.0, 1.0],
            &[[1.829388, -0.5224918], [2.248138, -0.5367036], [1.947182, -0.5325425], [1.933789, -0.5319413]],
        ),
        (
            r#"{"clip_sample": false, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}"#,
            5,
            &[999.0, 799.0, 599.0, 399.0, 199.0],
            &[
                [0.9896241, -0.4849742],
                [0.9349893, -0.4385374],
                [0.7336993, -0.3797888],
                [0.3817915, -0.3389664],
                [0.1221402, -0.2525475],
            ],
        ),
        (
            r#"{"clip_sample": false, "timestep_spacing": "linspace", "prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}"#,
            4,
            &[999.0, 666.0, 333.0, 0.0],
            &[[1.038991, -0.6334316], [0.9156696, -0.6343378], [0.6615447, -0.352845], [0.5287708, 0.021576]],
        ),
        (
            r#"{"clip_sample_range": 2.5}"#,
            7,
            &[852.0, 710.0, 568.0, 426.0, 284.0, 142.0, 0.0],
            &[
                [0.49204, -0.6025242],
                [0.6182723, -0.8845246],
                [0.8371069, -1.316395],
                [0.9155217, -1.837041],
                [0.9038745, -2.043465],
                [0.8168202, -1.757496],
                [0.814697, -1.746875],
            ],
        ),
    ];

    #[test]
    fn timesteps_and_latents_are_those_of_diffusers() -> Result<()> {
        for &(text, steps, timesteps, wanted) in CASES {
            let mut sampler = Ddim::new(&read(text)?, steps)?;
            assert_eq!(sampler.timesteps(), timesteps, "{text}, {steps} steps");
            let mut x = Tensor::new(&[1f32, -0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
            for (i, wanted) in wanted.iter().enumerate() {
                let output = x.affine(0.5, -0.2 * (i as f64).cos())?;
                x = sampler.step(i, &output, &x)?;
                for (a, b) in x.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
                    let error = (f64::from(*a) - b).abs();
                    assert!(error < 1e-5 * b.abs().max(1.0), "{text}, step {i} of {steps}: {a} is not {b}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_flag_that_is_null_is_not_set() {
        let config = read(r#"{"clip_sample": null, "set_alpha_to_one": null}"#).unwrap();
        assert!(config.clip.is_none() && config.final_signal < 1.0);
        assert!(read("{}").unwrap().clip.is_some());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let error = |text: &str, steps| Ddim::new(&read(text).unwrap(), steps).err().unwrap().to_string();
        assert!(error("{}", 0).contains("0 steps cannot be picked"));
        assert!(error("{}", 1001).contains("1001 steps cannot be picked from 1000"));
        assert!(error(r#"{"steps_offset": 2}"#, 1000).contains("timestep 1001 is beyond the last of 1000"));
        assert!(read(r#"{"thresholding": true}"#).unwrap_err().to_string().contains("'thresholding'"));
        assert!(read(r#"{"steps_offset": -1}"#).unwrap_err().to_string().contains("'steps_offset'"));
    }
}
