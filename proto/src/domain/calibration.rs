//! How candidates are measured: the prompts, the sampling setup and the measurement plan of a search.

/// One image to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text of what to draw.
    pub text: String,
    /// Seed of the initial noise, used as `torch.Generator("cpu").manual_seed(seed)`.
    pub seed: u64,
}

/// The sampling setup, the same for every candidate of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Step counts that candidates may have, in descending order. The uncached run has the first.
    pub steps: Vec<u32>,
    /// Classifier-free guidance scale; 1 or less is no guidance.
    pub guidance_scale: f64,
    /// Height in pixels; `None`: the model's native height.
    pub height: Option<u32>,
    /// Width in pixels; `None`: the model's native width.
    pub width: Option<u32>,
    /// The text of what not to draw.
    pub negative_prompt: String,
    /// How runs of some step counts sample, where this differs from the model folder; at most one per step count.
    pub grids: Vec<Grid>,
}

/// How runs with one step count sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grid {
    /// The step count.
    pub steps: u32,
    /// DPM-Solver++: the solver's order, that is, model outputs that a step uses; `None`: as in the model folder.
    pub solver_order: Option<u32>,
    /// DPM-Solver++: the training timestep of each step, strictly decreasing; empty: as in the model folder.
    pub timesteps: Vec<u32>,
    /// Flow matching: the noise level of each step before the shift, strictly decreasing; empty: evenly spaced.
    pub sigmas: Vec<f64>,
}

impl Grid {
    /// What is wrong with the grid, if anything. Does not check that the search has its step count.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { steps, solver_order, timesteps, sigmas } = self;
        let (given, levels) = (timesteps.len(), sigmas.len());
        let fits = |n: usize| n == 0 || n == *steps as usize;
        if solver_order.is_none() && given == 0 && levels == 0 {
            return Some("give solver_order, timesteps or sigmas".into());
        }
        if solver_order.is_some_and(|order| !(1..=3).contains(&order)) {
            return Some("solver_order must be 1, 2 or 3".into());
        }
        if levels > 0 && (given > 0 || solver_order.is_some()) {
            return Some("sigmas (flow matching) exclude timesteps and solver_order".into());
        }
        if !fits(given) || !fits(levels) {
            return Some(format!("{} values for {steps} steps", given.max(levels)));
        }
        if !timesteps.is_sorted_by(|a, b| a > b) || timesteps.first().is_some_and(|&first| first >= MAX_TIMESTEP) {
            return Some(format!("timesteps must decrease strictly and be below {MAX_TIMESTEP}"));
        }
        let is_level = |sigma: &f64| *sigma > 0.0 && *sigma <= 1.0;
        if !sigmas.iter().all(is_level) || !sigmas.is_sorted_by(|a, b| a > b) {
            return Some("sigmas must decrease strictly and be above 0 and at most 1".into());
        }
        None
    }
}

/// For instance `solver order 1, timesteps 999,732,478,243,50`.
impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn joined<T: ToString>(name: &str, values: &[T]) -> Option<String> {
            let values: Vec<String> = values.iter().map(T::to_string).collect();
            (!values.is_empty()).then(|| format!("{name} {}", values.join(",")))
        }
        let order = self.solver_order.map(|order| format!("solver order {order}"));
        let told = [order, joined("timesteps", &self.timesteps), joined("sigmas", &self.sigmas)];
        f.write_str(&told.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Timesteps are below this; no model is trained with as many.
const MAX_TIMESTEP: u32 = 100_000;

impl Sampling {
    /// The grid for a step count; `None`: runs sample as in the model folder.
    pub fn grid(&self, steps: u32) -> Option<&Grid> {
        self.grids.iter().find(|grid| grid.steps == steps)
    }

    /// The step count of the uncached run.
    pub fn baseline_steps(&self) -> u32 {
        self.steps.iter().copied().max().unwrap_or(1)
    }
}

/// How a candidate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasurementPlan {
    /// Images generated together.
    pub batch: u32,
    /// Untimed batches before the first timed one of each evaluation.
    pub warmup: u32,
    /// Timed uncached batches interleaved with the candidate's own.
    pub repeats: u32,
    /// Pictures returned with each evaluation, those of the first prompts, as PNG.
    pub thumbnails: u32,
}

/// What a worker needs to evaluate candidates of one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The images to generate for each candidate, in this order.
    pub prompts: Vec<Prompt>,
    /// The sampling setup.
    pub sampling: Sampling,
    /// How to measure.
    pub plan: MeasurementPlan,
}
