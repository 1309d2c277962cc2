//! Euler's method for flow matching (Lipman et al., arXiv 2210.02747; shifts of Esser et al., arXiv 2403.03206):
//! diffusers' `FlowMatchEulerDiscreteScheduler` with the options that FLUX and SD3 use.
//!
//! Not implemented: Karras, exponential and beta spacings, inverted sigmas, stochastic steps.

use candle_core::Tensor;

use super::Sampler;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;

/// The sigmas of a run before they are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowSigmas {
    /// 1, 1 - 1/n, …, 1/n, as FLUX's pipeline passes them to its scheduler.
    Even,
    /// Evenly spaced from the largest to the smallest training sigma: the scheduler's default.
    Trained,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shift {
    /// The same factor for every image size.
    Static(f64),
    /// Stronger for larger images: the factor (its logarithm if `exponential`) is linear in the number of image tokens.
    Dynamic { base_tokens: f64, max_tokens: f64, base_shift: f64, max_shift: f64, exponential: bool },
}

/// The settings in `scheduler_config.json`.
#[derive(Debug, Clone)]
pub struct FlowMatchConfig {
    train_timesteps: usize,
    shift: Shift,
    /// The last sigma, if the sigmas are stretched to end there.
    terminal: Option<f64>,
    sigmas: FlowSigmas,
    /// Sigmas chosen by the caller, before they are shifted.
    chosen: Option<Vec<f64>>,
}

impl FlowMatchConfig {
    /// Overrides the sigmas where given. Fails unless they decrease strictly within (0, 1].
    pub fn with(self, sigmas: Option<Vec<f64>>) -> Result<Self> {
        if let Some(sigmas) = &sigmas {
            let wrong = |what: &str| Err(ModelError::Input(format!("sigmas {sigmas:?} must {what}")));
            if sigmas.is_empty() || sigmas.iter().any(|&sigma| !(sigma > 0.0 && sigma <= 1.0)) {
                return wrong("be one or more numbers above 0 and at most 1");
            }
            if !sigmas.is_sorted_by(|a, b| a > b) {
                return wrong("decrease, noisiest first");
            }
        }
        Ok(Self { chosen: sigmas, ..self })
    }

    /// Reads a config. Fails, naming the field, if a setting is not implemented.
    pub fn read(config: &Config, sigmas: FlowSigmas) -> Result<Self> {
        fields::check(config, "FlowMatchEulerDiscreteScheduler")?;
        let shift = if config.flag_or("use_dynamic_shifting", false)? {
            let kind = config.choice("time_shift_type", "exponential", &["exponential", "linear"])?;
            let base = config.size_or("base_image_seq_len", 256)?;
            let max = config.size_or("max_image_seq_len", 4096)?;
            if max <= base {
                let expected = format!("more than base_image_seq_len = {base}");
                return Err(config.wrong("max_image_seq_len", expected, max.to_string()));
            }
            Shift::Dynamic {
                base_tokens: base as f64,
                max_tokens: max as f64,
                base_shift: config.number_or("base_shift", 0.5)?,
                max_shift: config.number_or("max_shift", 1.15)?,
                exponential: kind == "exponential",
            }
        } else {
            let shift = config.number_or("shift", 1.0)?;
            if !(shift > 0.0 && shift.is_finite()) {
                return Err(config.wrong("shift", "a positive number", shift.to_string()));
            }
            Shift::Static(shift)
        };
        let terminal = config.number_opt("shift_terminal")?.filter(|&end| end != 0.0);
        if let Some(end) = terminal.filter(|end| !(0.0..1.0).contains(end)) {
            return Err(config.wrong("shift_terminal", "a number between 0 and 1", end.to_string()));
        }
        Ok(Self {
            train_timesteps: config.size_or("num_train_timesteps", 1000)?,
            shift,
            terminal,
            sigmas,
            chosen: None,
        })
    }

    /// A sigma shifted toward noise.
    fn shifted(&self, sigma: f64, image_tokens: usize) -> f64 {
        match self.shift {
            Shift::Static(shift) => shift * sigma / (1.0 + (shift - 1.0) * sigma),
            Shift::Dynamic { base_tokens, max_tokens, base_shift, max_shift, exponential } => {
                let slope = (max_shift - base_shift) / (max_tokens - base_tokens);
                let mu = base_shift + slope * (image_tokens as f64 - base_tokens);
                let strength = if exponential { mu.exp() } else { mu };
                strength / (strength + (1.0 / sigma - 1.0))
            }
        }
    }

    /// The shifted sigmas of a run, noisiest first, without the final zero.
    fn run_sigmas(&self, steps: usize, image_tokens: usize) -> Vec<f64> {
        let even = |start: f64, end: f64| {
            let step = (end - start) / (steps.max(2) - 1) as f64;
            (0..steps).map(move |i| start + i as f64 * step)
        };
        let begun: Vec<f64> = match (&self.chosen, self.sigmas) {
            (Some(chosen), _) => chosen.iter().map(|&sigma| f64::from(sigma as f32)).collect(),
            (None, FlowSigmas::Even) => even(1.0, 1.0 / steps as f64).collect(),
            (None, FlowSigmas::Trained) => {
                let smallest = 1.0 / self.train_timesteps as f64;
                // With a static shift the training sigmas are already shifted, and those of a run are shifted again.
                let smallest = match self.shift {
                    Shift::Static(_) => self.shifted(smallest, image_tokens),
                    Shift::Dynamic { .. } => smallest,
                };
                even(1.0, smallest).collect()
            }
        };
        let mut sigmas: Vec<f64> = begun.into_iter().map(|sigma| self.shifted(sigma, image_tokens)).collect();
        if let (Some(end), Some(&last)) = (self.terminal, sigmas.last()) {
            let factor = (1.0 - last) / (1.0 - end);
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / factor);
        }
        sigmas
    }
}

/// One run of Euler's method.
pub struct FlowMatch {
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
}

impl FlowMatch {
    /// Starts a run of `steps` steps over images of `image_tokens` tokens.
    pub fn new(config: &FlowMatchConfig, steps: u32, image_tokens: usize) -> Result<Self> {
        let (steps, known) = (steps as usize, config.train_timesteps);
        if steps == 0 || steps >= known {
            return Err(ModelError::Input(format!("{steps} steps cannot be picked from {known} training timesteps")));
        }
        if let Some(chosen) = config.chosen.as_ref().filter(|chosen| chosen.len() != steps) {
            return Err(ModelError::Input(format!("{} sigmas were given for {steps} steps", chosen.len())));
        }
        // diffusers keeps both in f32.
        let mut sigmas: Vec<f64> =
            config.run_sigmas(steps, image_tokens).into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        if sigmas.iter().any(|sigma| !sigma.is_finite() || *sigma < 0.0) {
            return Err(ModelError::Input(format!(
                "the sampler's shift gives no noise level for {steps} steps over {image_tokens} image tokens"
            )));
        }
        let timesteps = sigmas.iter().map(|&sigma| f64::from(sigma as f32 * known as f32)).collect();
        sigmas.push(0.0);
        Ok(Self { timesteps, sigmas })
    }
}

impl Sampler for FlowMatch {
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
        Ok((latents + (output * (self.sigmas[index + 1] - self.sigmas[index]))?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;

    fn read(text: &str, sigmas: FlowSigmas) -> Result<FlowMatchConfig> {
        FlowMatchConfig::read(&Config::parse(Path::new("scheduler_config.json"), text)?, sigmas)
    }

    /// Config, whether sigmas are even, steps, image tokens, timesteps, and latents after every step, from diffusers
    /// 0.42.1 with initial latents (1, -0.5) and model output `0.5 x - 0.2 cos i` at step i.
    type Case = (&'static str, bool, u32, usize, &'static [f64], &'static [[f64; 2]]);

    const CASES: &[Case] = &[
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}"#,
            true,
            6,
            4096,
            &[1000.0, 940.4442, 863.3205, 759.5109, 612.2673, 387.1192],
            &[
                [0.9821333, -0.4731999],
                [0.9525944, -0.4466184],
                [0.8945102, -0.4320768],
                [0.7995007, -0.4294205],
                [0.6800643, -0.4105122],
                [0.5703936, -0.3090914],
            ],
        ),
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}"#,
            true,
            5,
            256,
            &[1000.0, 868.3325, 712.0714, 523.6161, 291.8751],
            &[
                [0.9604998, -0.4407496],
                [0.9023411, -0.3894279],
                [0.8016306, -0.3684181],
                [0.6628609, -0.3716137],
                [0.5279681, -0.3555377],
            ],
        ),
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}"#,
            true,
            4,
            1000,
            &[1000.0, 848.714, 651.5677, 383.9834],
            &[[0.9546142, -0.4319213], [0.8818187, -0.3680418], [0.7415673, -0.3410715], [0.5231644, -0.3516167]],
        ),
        (
            r#"{"shift": 1.0}"#,
            true,
            4,
            256,
            &[1000.0, 750.0, 500.0, 250.0],
            &[[0.925, -0.3875], [0.8363901, -0.3120474], [0.7110341, -0.2938488], [0.5726552, -0.3066173]],
        ),
        (
            r#"{"shift": 3.0}"#,
            false,
            6,
            4096,
            &[1000.0, 923.3425, 818.9233, 668.3267, 432.2251, 8.928572],
            &[
                [0.9770027, -0.4655041],
                [0.9372774, -0.4299168],
                [0.8541679, -0.4100788],
                [0.7065849, -0.4084165],
                [0.5017005, -0.3773128],
                [0.4999673, -0.3751219],
            ],
        ),
        (
            r#"{}"#,
            false,
            5,
            64,
            &[1000.0, 750.25, 500.5, 250.75, 1.0],
            &[
                [0.925075, -0.3876125],
                [0.8365444, -0.3122213],
                [0.7112944, -0.2940192],
                [0.5730214, -0.3067537],
                [0.5726041, -0.306731],
            ],
        ),
        (
            r#"{"use_dynamic_shifting": true, "time_shift_type": "linear"}"#,
            false,
            4,
            2000,
            &[1000.0, 614.3173, 285.1006, 0.7953712],
            &[[0.8842952, -0.3264428], [0.7743081, -0.2371323], [0.6405756, -0.2270859], [0.6401634, -0.227153]],
        ),
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "shift_terminal": 0.1}"#,
            true,
            5,
            1024,
            &[1000.0, 844.6071, 653.4805, 412.6932, 100.0],
            &[
                [0.9533821, -0.4300732],
                [0.8829271, -0.3683208],
                [0.7565876, -0.3440179],
                [0.576385, -0.3521446],
                [0.5344929, -0.3476103],
            ],
        ),
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}"#,
            false,
            5,
            1024,
            &[1000.0, 849.4055, 652.9428, 385.8913, 1.875964],
            &[
                [0.9548216, -0.4322325],
                [0.8822581, -0.3685439],
                [0.7422273, -0.3415603],
                [0.5236795, -0.3520126],
                [0.5229431, -0.3519276],
            ],
        ),
    ];

    #[test]
    fn timesteps_and_latents_are_those_of_diffusers() -> Result<()> {
        for &(text, even, steps, tokens, timesteps, wanted) in CASES {
            let sigmas = if even { FlowSigmas::Even } else { FlowSigmas::Trained };
            let mut sampler = FlowMatch::new(&read(text, sigmas)?, steps, tokens)?;
            let what = format!("{text}, {tokens} tokens");
            for (found, wanted) in sampler.timesteps().iter().zip(timesteps) {
                assert!((found - wanted).abs() < 2e-4, "{what}: timestep {found} is not {wanted}");
            }
            let mut x = Tensor::new(&[1f32, -0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
            for (i, wanted) in wanted.iter().enumerate() {
                let output = x.affine(0.5, -0.2 * (i as f64).cos())?;
                x = sampler.step(i, &output, &x)?;
                for (a, b) in x.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
                    let error = (f64::from(*a) - b).abs();
                    assert!(error < 1e-5 * b.abs().max(1.0), "{what}, step {i}: {a} is not {b}");
                }
            }
        }
        Ok(())
    }

    /// Config, image tokens, sigmas, timesteps, and latents after the last step, as above with
    /// `set_timesteps(sigmas=…)`.
    type Chosen = (&'static str, usize, &'static [f64], &'static [f64], [f64; 2]);

    const CHOSEN: &[Chosen] = &[
        (
            r#"{"use_dynamic_shifting": true, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}"#,
            1024,
            &[1.0, 0.8, 0.45, 0.2],
            &[1000.0, 882.4973, 605.7134, 319.4513],
            [0.5367579, -0.3391145],
        ),
        (r#"{"shift": 3.0}"#, 256, &[1.0, 0.6, 0.3], &[1000.0, 818.1818, 562.5], [0.5657136, -0.2891014]),
        (
            r#"{"shift": 1.0, "shift_terminal": 0.1}"#,
            256,
            &[0.95, 0.5, 0.25],
            &[940.0, 400.0, 100.0],
            [0.6991593, -0.1850532],
        ),
    ];

    #[test]
    fn chosen_sigmas_are_shifted_as_in_diffusers() -> Result<()> {
        for &(text, tokens, sigmas, timesteps, wanted) in CHOSEN {
            let config = read(text, FlowSigmas::Even)?.with(Some(sigmas.into()))?;
            let mut sampler = FlowMatch::new(&config, sigmas.len() as u32, tokens)?;
            for (a, b) in sampler.timesteps().iter().zip(timesteps) {
                assert!((a - b).abs() < 2e-4, "{text}: {a} is not {b}");
            }
            let mut x = Tensor::new(&[1f32, -0.5], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
            for i in 0..sigmas.len() {
                x = sampler.step(i, &x.affine(0.5, -0.2 * (i as f64).cos())?, &x)?;
            }
            for (a, b) in x.flatten_all()?.to_vec1::<f32>()?.iter().zip(wanted) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{text}: {a} is not {b}");
            }
            assert!(
                FlowMatch::new(&config, 9, tokens).err().unwrap().to_string().contains("sigmas were given for 9 steps")
            );
        }
        let refused =
            |sigmas: &[f64]| read("{}", FlowSigmas::Even).unwrap().with(Some(sigmas.into())).unwrap_err().to_string();
        for bad in [&[][..], &[1.5], &[0.0], &[f64::NAN], &[0.5, 0.5]] {
            assert!(refused(bad).contains("must"), "{bad:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (text, wanted) in [
            (r#"{"use_karras_sigmas": true}"#, "'use_karras_sigmas'"),
            (r#"{"stochastic_sampling": true}"#, "'stochastic_sampling'"),
            (r#"{"shift": 0}"#, "'shift'"),
            (r#"{"use_dynamic_shifting": true, "max_image_seq_len": 256}"#, "'max_image_seq_len'"),
            (r#"{"use_dynamic_shifting": true, "time_shift_type": "cubic"}"#, "'time_shift_type'"),
            (r#"{"shift_terminal": 1.5}"#, "'shift_terminal'"),
        ] {
            let error = read(text, FlowSigmas::Even).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(wanted) && error.contains("scheduler_config.json"), "{text}: '{error}'");
        }
    }
}
