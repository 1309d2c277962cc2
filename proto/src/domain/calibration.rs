//! How candidates are measured: the prompts, the sampling setup and the measurement plan of a search.

/// One image to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What to draw.
    pub text: String,
    /// Seed of the initial noise, as in `torch.Generator("cpu").manual_seed(seed)`.
    pub seed: u64,
}

/// The sampling setup, the same for every candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Step counts that candidates may have, largest first; the largest is the uncached baseline's.
    pub steps: Vec<u32>,
    /// Classifier-free guidance scale; 1 or less means without.
    pub guidance_scale: f64,
    /// Pixels; `None`: the model's native height.
    pub height: Option<u32>,
    /// Pixels; `None`: the model's native width.
    pub width: Option<u32>,
    /// What not to draw.
    pub negative_prompt: String,
}

impl Sampling {
    /// The uncached baseline's step count.
    pub fn baseline_steps(&self) -> u32 {
        self.steps.iter().copied().max().unwrap_or(1)
    }
}

/// How a candidate's latency is measured, and how many pictures are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasurementPlan {
    /// Images generated together.
    pub batch: u32,
    /// Untimed batches before the first timed one of each evaluation.
    pub warmup: u32,
    /// Timed uncached batches interleaved with the candidate's own.
    pub repeats: u32,
    /// Pictures of the first prompts returned with each evaluation, as PNG.
    pub thumbnails: u32,
}

/// Everything a worker needs to evaluate candidates of one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The images to generate for each candidate, in this order.
    pub prompts: Vec<Prompt>,
    /// The sampling setup.
    pub sampling: Sampling,
    /// How to measure.
    pub plan: MeasurementPlan,
}
