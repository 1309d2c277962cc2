//! A specification file as written: the shape of its TOML.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evocache_proto::domain::{Grid, Placement};
use evocache_proto::text::without_mark;
use serde::{Deserialize, Deserializer};

use crate::cli::kit::exit::Failure;
use crate::cli::kit::units::{parse_bytes, parse_duration};

/// A specification file, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecFile {
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) seed: u64,
    #[serde(default)]
    pub(super) allow_forecast: bool,
    #[serde(default)]
    pub(super) allow_guidance_decisions: bool,
    #[serde(default)]
    pub(super) import: Vec<PathBuf>,
    #[serde(default)]
    pub(super) start_from: Vec<String>,
    pub(super) prompts_file: Option<PathBuf>,
    pub(super) prompts: Option<usize>,
    pub(super) first_seed: Option<u64>,
    pub(super) model: ModelSection,
    pub(super) sampling: SamplingSection,
    #[serde(default)]
    pub(super) measurement: MeasurementSection,
    #[serde(default)]
    pub(super) objective: Vec<ObjectiveSection>,
    #[serde(default)]
    pub(super) budget: BudgetSection,
    #[serde(default)]
    pub(super) algorithm: AlgorithmSection,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) placement: PlacementSection,
    #[serde(default)]
    pub(super) prompt: Vec<PromptSection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelSection {
    pub(super) name: String,
    pub(super) fingerprint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SamplingSection {
    pub(super) steps: Vec<u32>,
    pub(super) guidance_scale: f64,
    pub(super) height: Option<u32>,
    pub(super) width: Option<u32>,
    #[serde(default)]
    pub(super) negative_prompt: String,
    #[serde(default)]
    pub(super) grid: Vec<GridSection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GridSection {
    pub(super) steps: u32,
    pub(super) solver_order: Option<u32>,
    #[serde(default)]
    pub(super) timesteps: Vec<u32>,
    #[serde(default)]
    pub(super) sigmas: Vec<f64>,
}

impl GridSection {
    pub(super) fn grid(self) -> Grid {
        let Self { steps, solver_order, timesteps, sigmas } = self;
        Grid { steps, solver_order, timesteps, sigmas }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MeasurementSection {
    pub(super) batch: u32,
    pub(super) warmup: u32,
    pub(super) repeats: u32,
    pub(super) thumbnails: u32,
}

impl Default for MeasurementSection {
    fn default() -> Self {
        Self { batch: 4, warmup: 1, repeats: 3, thumbnails: 4 }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectiveSection {
    pub(super) metric: String,
    pub(super) direction: Option<DirectionWord>,
    pub(super) bound: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DirectionWord {
    Minimize,
    Maximize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetSection {
    pub(super) evaluations: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) wall_time: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(super) device_time: Option<Duration>,
    pub(super) stagnation: Option<u64>,
}

/// A value with a unit, or a bare number; the parser decides whether it accepts one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a number with a unit, in quotes, such as \"30m\" or \"40GiB\"")]
enum Quantity {
    Text(String),
    Whole(u64),
    Number(f64),
}

impl Quantity {
    fn parse<'de, T, D: Deserializer<'de>>(from: D, parser: fn(&str) -> Result<T, String>) -> Result<T, D::Error> {
        let text = match Self::deserialize(from)? {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
        };
        parser(&text).map_err(serde::de::Error::custom)
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Quantity::parse(from, parse_duration).map(Some)
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StrategyWord {
    SteadyState,
    Nsga2,
    Imported,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlgorithmSection {
    pub(super) strategy: Option<StrategyWord>,
    pub(super) population: Option<u32>,
    pub(super) crossover: Option<f64>,
    pub(super) seeds: Option<bool>,
    pub(super) remeasure: Option<bool>,
    #[serde(default)]
    pub(super) rungs: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlacementSection {
    #[serde(default)]
    pub(super) priority: i32,
    pub(super) weight: Option<u32>,
    #[serde(default)]
    pub(super) device: String,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) memory: u64,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

impl PlacementSection {
    pub(super) fn placement(self) -> Placement {
        let Self { priority, weight, device, memory, labels } = self;
        Placement { priority, weight: weight.unwrap_or(1), device, memory_bytes: memory, labels }
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Quantity::parse(from, parse_bytes)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromptSection {
    pub(super) text: String,
    pub(super) seed: Option<u64>,
}

impl SpecFile {
    /// Parses the text of a file; `path` is for error messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(without_mark(text)).map_err(|e| {
            let message = e.to_string();
            let failure = Failure::usage(format!("{}: {}", path.display(), message.trim_end()));
            match message.contains("missing field") {
                true => failure.hint("deploy/examples/emoji.toml explains every field"),
                false => failure,
            }
        })
    }

    /// The same search for another model, with that model's prompts and the sampling of its folder.
    #[must_use]
    pub fn for_model(mut self, name: String, prompts_file: PathBuf) -> Self {
        if name != self.model.name {
            // Step counts with a grid of their own are for the model that the grid was made for.
            let on_grids: Vec<u32> = self.sampling.grid.drain(..).map(|grid| grid.steps).collect();
            self.sampling.steps.retain(|steps| !on_grids.contains(steps));
        }
        self.model = ModelSection { name, fingerprint: None };
        self.prompts_file = Some(prompts_file);
        self.labels.clear();
        self
    }

    /// The same search with the budget and the seed of the command line, if given.
    #[must_use]
    pub fn with(mut self, budget: Option<u64>, seed: Option<u64>) -> Self {
        self.budget.evaluations = budget.or(self.budget.evaluations);
        self.seed = seed.unwrap_or(self.seed);
        self
    }
}
