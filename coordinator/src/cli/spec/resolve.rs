//! From a specification file as written to a checked search: reads the files that it names, fills in defaults, validates.

use std::path::Path;

use evocache_proto::domain::{
    Algorithm, Budget, Direction, MeasurementPlan, ModelRef, Objective, Prompt, Sampling, SearchId, SearchSpec,
    SpecDraft, Strategy, builtin_direction,
};

use super::file::{DirectionWord, GridSection, ObjectiveSection, SpecFile, StrategyWord};
use super::imports::imports;
use super::prompts;
use super::wrong::{Wrong, file_field};
use crate::cli::kit::exit::{Exit, Failure};

/// A checked specification.
#[derive(Debug, Clone)]
pub struct Specification {
    /// The id of the search, if the file gives one.
    pub id: Option<SearchId>,
    /// The search.
    pub spec: SearchSpec,
    /// Searches from whose fronts it starts.
    pub start_from: Vec<SearchId>,
    /// Warnings about the file.
    pub warnings: Vec<String>,
}

/// Reads and checks a specification file.
pub fn load(path: &Path) -> Result<Specification, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::file("read the specification", path, &e)
            .hint("deploy/examples holds specifications to start from")
            .exit(Exit::Usage)
    })?;
    SpecFile::parse(&text, path)?.resolve(path)
}

impl SpecFile {
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
        let (imported, warnings) = imports(&self, folder, &wrong)?;
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
            guidance_decisions: self.allow_guidance_decisions,
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
            let first = e.0.told().iter().map(|v| format!("\n  {}: {}", file_field(&v.field), v.problem));
            let more = (e.0.untold() > 0).then(|| format!("\n  and {} more", e.0.untold()));
            let lines: String = first.chain(more).collect();
            Failure::usage(format!("{} is not a valid specification:{lines}", path.display()))
                .hint("deploy/examples/emoji.toml explains every field")
        })?;
        Ok(Specification { id, spec, start_from, warnings })
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

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
