//! The specification file of a search: TOML in, a checked [`SearchSpec`] out.
//!
//! Files that it names (prompts, schedules) are relative to it. Every error names the file and the field, and says
//! what would be right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evocache_proto::domain::{
    Algorithm, Budget, Direction, Grid, Imported, MeasurementPlan, ModelRef, Objective, Placement, Prompt, Sampling,
    SearchId, SearchSpec, SpecDraft, Strategy, builtin_direction,
};
use evocache_proto::formats;
use evocache_proto::text::without_mark;
use serde::{Deserialize, Deserializer};

use super::exit::Failure;
use super::prompts;
use super::units::{parse_bytes, parse_duration};

/// A specification file, as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecFile {
    id: Option<String>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    allow_forecast: bool,
    #[serde(default)]
    import: Vec<PathBuf>,
    #[serde(default)]
    start_from: Vec<String>,
    prompts_file: Option<PathBuf>,
    prompts: Option<usize>,
    first_seed: Option<u64>,
    model: ModelSection,
    sampling: SamplingSection,
    #[serde(default)]
    measurement: MeasurementSection,
    #[serde(default)]
    objective: Vec<ObjectiveSection>,
    #[serde(default)]
    budget: BudgetSection,
    #[serde(default)]
    algorithm: AlgorithmSection,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    placement: PlacementSection,
    #[serde(default)]
    prompt: Vec<PromptSection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSection {
    name: String,
    fingerprint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SamplingSection {
    steps: Vec<u32>,
    guidance_scale: f64,
    height: Option<u32>,
    width: Option<u32>,
    #[serde(default)]
    negative_prompt: String,
    #[serde(default)]
    grid: Vec<GridSection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GridSection {
    steps: u32,
    solver_order: Option<u32>,
    #[serde(default)]
    timesteps: Vec<u32>,
    #[serde(default)]
    sigmas: Vec<f64>,
}

impl GridSection {
    fn grid(self) -> Grid {
        let Self { steps, solver_order, timesteps, sigmas } = self;
        Grid { steps, solver_order, timesteps, sigmas }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MeasurementSection {
    batch: u32,
    warmup: u32,
    repeats: u32,
    thumbnails: u32,
}

impl Default for MeasurementSection {
    fn default() -> Self {
        Self { batch: 4, warmup: 1, repeats: 3, thumbnails: 4 }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectiveSection {
    metric: String,
    direction: Option<DirectionWord>,
    bound: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DirectionWord {
    Minimize,
    Maximize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetSection {
    evaluations: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    wall_time: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    device_time: Option<Duration>,
    stagnation: Option<u64>,
}

/// A value with a unit, or without one where it is written as a number; the parser says whether that is enough.
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
enum StrategyWord {
    SteadyState,
    Nsga2,
    Imported,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlgorithmSection {
    strategy: Option<StrategyWord>,
    population: Option<u32>,
    crossover: Option<f64>,
    seeds: Option<bool>,
    remeasure: Option<bool>,
    #[serde(default)]
    rungs: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementSection {
    #[serde(default)]
    priority: i32,
    weight: Option<u32>,
    #[serde(default)]
    device: String,
    #[serde(default, deserialize_with = "bytes")]
    memory: u64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl PlacementSection {
    fn placement(self) -> Placement {
        let Self { priority, weight, device, memory, labels } = self;
        Placement { priority, weight: weight.unwrap_or(1), device, memory_bytes: memory, labels }
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Quantity::parse(from, parse_bytes)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptSection {
    text: String,
    seed: Option<u64>,
}

/// What a file asks for.
#[derive(Debug, Clone)]
pub struct Specification {
    /// The id that the file gives the search.
    pub id: Option<SearchId>,
    /// The search.
    pub spec: SearchSpec,
    /// Searches with whose fronts it begins.
    pub start_from: Vec<SearchId>,
    /// What people should know of it.
    pub told: Vec<String>,
}

/// Reads and checks a specification file.
pub fn load(path: &Path) -> Result<Specification, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::file("read the specification", path, &e)
            .hint("deploy/examples holds specifications to start from")
            .exit(super::exit::Exit::Usage)
    })?;
    SpecFile::parse(&text, path)?.resolve(path)
}

impl SpecFile {
    /// Reads the text of a file; `path` is for error messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(without_mark(text)).map_err(|e| {
            let told = e.to_string();
            let failure = Failure::usage(format!("{}: {}", path.display(), told.trim_end()));
            match told.contains("missing field") {
                true => failure.hint("deploy/examples/emoji.toml explains every field"),
                false => failure,
            }
        })
    }

    /// The same search for another model, with that model's prompts, sampling as its folder says.
    #[must_use]
    pub fn for_model(mut self, name: String, prompts_file: PathBuf) -> Self {
        if name != self.model.name {
            let told: Vec<u32> = self.sampling.grid.drain(..).map(|grid| grid.steps).collect();
            self.sampling.steps.retain(|steps| !told.contains(steps));
        }
        self.model = ModelSection { name, fingerprint: None };
        self.prompts_file = Some(prompts_file);
        self.labels.clear();
        self
    }

    /// The same search with what the command line says.
    #[must_use]
    pub fn with(mut self, budget: Option<u64>, seed: Option<u64>) -> Self {
        self.budget.evaluations = budget.or(self.budget.evaluations);
        self.seed = seed.unwrap_or(self.seed);
        self
    }

    /// Reads the files that it names and checks everything. Relative names are relative to the folder of `path`.
    pub fn resolve(self, path: &Path) -> Result<Specification, Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let wrong = |field: &str, problem: &dyn std::fmt::Display| {
            Failure::usage(format!("{}: {field}: {problem}", path.display()))
        };
        let id = self.id.clone().map(SearchId::new).transpose().map_err(|e| wrong("id", &e))?;
        let other = |(i, name): (usize, &String)| {
            SearchId::new(name.clone()).map_err(|e| wrong(&format!("start_from[{i}]"), &e))
        };
        let start_from = self.start_from.iter().enumerate().map(other).collect::<Result<_, _>>()?;
        let (imported, told) = self.imports(folder, &wrong)?;
        let draft = SpecDraft {
            prompts: self.prompts(folder, &wrong)?,
            imported,
            objectives: self.objectives(&wrong)?,
            algorithm: self.algorithm(),
            model: ModelRef { name: self.model.name, fingerprint: self.model.fingerprint },
            sampling: Sampling {
                steps: self.sampling.steps,
                guidance_scale: self.sampling.guidance_scale,
                height: self.sampling.height,
                width: self.sampling.width,
                negative_prompt: self.sampling.negative_prompt,
                grids: self.sampling.grid.into_iter().map(GridSection::grid).collect(),
            },
            forecast: self.allow_forecast,
            plan: MeasurementPlan {
                batch: self.measurement.batch,
                warmup: self.measurement.warmup,
                repeats: self.measurement.repeats,
                thumbnails: self.measurement.thumbnails,
            },
            budget: Budget {
                evaluations: self.budget.evaluations,
                wall_time: self.budget.wall_time,
                device_time: self.budget.device_time,
                stagnation: self.budget.stagnation,
            },
            seed: self.seed,
            labels: self.labels,
            placement: self.placement.placement(),
        };
        let spec = draft.validate().map_err(|e| {
            let told = e.0.told().iter().map(|v| format!("\n  {}: {}", file_field(&v.field), v.problem));
            let more = (e.0.untold() > 0).then(|| format!("\n  and {} more", e.0.untold()));
            let lines: String = told.chain(more).collect();
            Failure::usage(format!("{} is no valid specification:{lines}", path.display()))
                .hint("deploy/examples/emoji.toml explains every field")
        })?;
        Ok(Specification { id, spec, start_from, told })
    }

    fn prompts(&self, folder: &Path, wrong: &Wrong<'_>) -> Result<Vec<Prompt>, Failure> {
        let Some(file) = &self.prompts_file else {
            for (field, given) in [("prompts", self.prompts.is_some()), ("first_seed", self.first_seed.is_some())] {
                if given {
                    return Err(wrong(field, &"is for prompts_file; [[prompt]] tables give text and seed themselves"));
                }
            }
            let inline = self.prompt.iter().enumerate();
            return Ok(inline
                .map(|(i, p)| Prompt { text: p.text.clone(), seed: p.seed.unwrap_or(i as u64) })
                .collect());
        };
        if !self.prompt.is_empty() {
            return Err(wrong("prompts_file", &"give prompts_file or [[prompt]] tables, not both"));
        }
        prompts::read(&folder.join(file), self.prompts, self.first_seed.unwrap_or(0))
            .map_err(|(field, problem)| wrong(field, &problem))
    }

    /// Whether the search has this setting too.
    fn has(&self, setting: &str, value: &str) -> bool {
        let sampling = &self.sampling;
        let ours = match setting {
            "height" => sampling.height.map(f64::from),
            "width" => sampling.width.map(f64::from),
            "guidance_scale" => Some(sampling.guidance_scale),
            _ => None,
        };
        ours.is_some() && ours == value.parse().ok()
    }

    /// The schedules, and what they were made with that the search does not have.
    fn imports(&self, folder: &Path, wrong: &Wrong<'_>) -> Result<(Vec<Imported>, Vec<String>), Failure> {
        let mut made_with: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let import = |(i, name): (usize, &PathBuf)| {
            let field = format!("import[{i}]");
            let file = folder.join(name);
            let text =
                std::fs::read_to_string(&file).map_err(|e| wrong(&field, &Failure::file("read", &file, &e).message))?;
            let read = formats::read_whole(&text).map_err(|e| wrong(&field, &format!("'{}': {e}", file.display())))?;
            for (setting, value) in read.made_with.into_iter().filter(|(setting, value)| !self.has(setting, value)) {
                made_with.entry((setting, value)).or_default().push(name.display().to_string());
            }
            let grids = &self.sampling.grid;
            let here = grids.iter().find(|grid| grid.steps == read.schedule.steps()).cloned().map(GridSection::grid);
            if read.grid != here {
                let grid = if read.grid.is_some() { "a grid of its own" } else { "the folder's grid" };
                let setting = ("sampling".to_owned(), format!("on {grid}"));
                made_with.entry(setting).or_default().push(name.display().to_string());
            }
            Ok(Imported { name: name.display().to_string(), schedule: read.schedule })
        };
        let imported = self.import.iter().enumerate().map(import).collect::<Result<_, Failure>>()?;
        let told = made_with.into_iter().map(|((setting, value), files)| {
            let others = match files.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} other{}", if n == 1 { "" } else { "s" }),
            };
            let first = files.first().map_or("", String::as_str);
            format!("import: '{first}'{others}: made with {setting} {value}, and measured as this search samples")
        });
        Ok((imported, told.collect()))
    }

    fn objectives(&self, wrong: &Wrong<'_>) -> Result<Vec<Objective>, Failure> {
        let objective = |(i, o): (usize, &ObjectiveSection)| {
            let given = o.direction.map(|word| match word {
                DirectionWord::Minimize => Direction::Minimize,
                DirectionWord::Maximize => Direction::Maximize,
            });
            let direction = given.or_else(|| builtin_direction(&o.metric)).ok_or_else(|| {
                let problem = format!("'{}' is a metric of the workers: say \"minimize\" or \"maximize\"", o.metric);
                wrong(&format!("objective[{i}].direction"), &problem)
            })?;
            Ok(Objective { metric: o.metric.clone(), direction, bound: o.bound })
        };
        self.objective.iter().enumerate().map(objective).collect()
    }

    fn algorithm(&self) -> Algorithm {
        let default = Algorithm::default();
        Algorithm {
            strategy: match self.algorithm.strategy {
                None => default.strategy,
                Some(StrategyWord::SteadyState) => Strategy::SteadyState,
                Some(StrategyWord::Nsga2) => Strategy::Nsga2,
                Some(StrategyWord::Imported) => Strategy::Imported,
            },
            population: self.algorithm.population.unwrap_or(default.population),
            crossover: self.algorithm.crossover.unwrap_or(default.crossover),
            seeds: self.algorithm.seeds.unwrap_or(default.seeds),
            remeasure: self.algorithm.remeasure.unwrap_or(default.remeasure),
            rungs: self.algorithm.rungs.clone(),
        }
    }
}

type Wrong<'a> = dyn Fn(&str, &dyn std::fmt::Display) -> Failure + 'a;

/// The name that a field has in the file: tables of a list are in the singular there.
fn file_field(field: &str) -> String {
    for (contract, file) in [
        ("objectives", "objective"),
        ("prompts[", "prompt["),
        ("imported", "import"),
        ("sampling.grids", "sampling.grid"),
    ] {
        if let Some(rest) = field.strip_prefix(contract) {
            return format!("{file}{rest}");
        }
    }
    field.to_owned()
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
