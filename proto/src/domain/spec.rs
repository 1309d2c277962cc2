//! What a person asks for: the specification of a search.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use super::limits::{
    MAX_DECISIONS, MAX_IMPORTED, MAX_LABELS, MAX_NAME, MAX_OBJECTIVES, MAX_PROMPT_BYTES, MAX_PROMPTS, MAX_RUNGS,
    MAX_SPEC_BYTES, MAX_STEP_COUNTS, MAX_STEPS, MAX_THUMBNAILS, MAX_VALUES,
};
use super::metric::{is_label, is_metric_name};
use super::placement::Placement;
use super::{Direction, Layout, MeasurementPlan, Problems, Prompt, Sampling, Schedule, builtin_direction};

/// The longest time of a budget.
const MAX_TIME: Duration = Duration::from_hours(10 * 366 * 24);

/// Which model a search is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// The name that workers declare.
    pub name: String,
    /// If given, only workers with this fingerprint take part; else the first worker's becomes the search's.
    pub fingerprint: Option<String>,
}

/// Something to make better.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// A built-in metric or one that the workers declare.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// The worst value that is still of use: at most (minimised) or at least (maximised).
    pub bound: Option<f64>,
}

/// When to stop; the first limit reached ends the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Finished evaluations.
    pub evaluations: Option<u64>,
    /// Time since the search got its first worker, pauses included; not the time that it had completed and was not
    /// extended yet.
    pub wall_time: Option<Duration>,
    /// Sum over the workers of the time their devices were busy.
    pub device_time: Option<Duration>,
    /// Evaluations in a row in which the hypervolume grew by less than a thousandth.
    pub stagnation: Option<u64>,
}

/// How candidates are bred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Seeds first, then offspring of the archive by structured crossover and mutation, one at a time.
    SteadyState,
    /// Schedules of random density, for comparison.
    Random,
    /// Generational NSGA-II with ECAD's operators, for comparison.
    Nsga2,
    /// The uncached run and the imported schedules only.
    Imported,
}

/// Settings of the search algorithm.
#[derive(Debug, Clone, PartialEq)]
pub struct Algorithm {
    /// How candidates are bred.
    pub strategy: Strategy,
    /// How many of the best candidates are parents.
    pub population: u32,
    /// Probability that an offspring has two parents.
    pub crossover: f64,
    /// Whether heuristic schedules are evaluated first.
    pub seeds: bool,
    /// Whether members of the front are measured again.
    pub remeasure: bool,
    /// Numbers of prompts that come before all prompts, ascending; empty: all prompts at once.
    pub rungs: Vec<u32>,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self {
            strategy: Strategy::SteadyState,
            population: 48,
            crossover: 0.9,
            seeds: true,
            remeasure: true,
            rungs: vec![],
        }
    }
}

/// A schedule from elsewhere, evaluated among the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Where it comes from, for people.
    pub name: String,
    /// The schedule.
    pub schedule: Schedule,
}

/// The fields of a [`SearchSpec`], not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecDraft {
    /// Which model.
    pub model: ModelRef,
    /// How images are sampled.
    pub sampling: Sampling,
    /// Whether candidates may use `Decision::Forecast`.
    pub forecast: bool,
    /// The images of each evaluation.
    pub prompts: Vec<Prompt>,
    /// How latency is measured.
    pub plan: MeasurementPlan,
    /// Two to four objectives.
    pub objectives: Vec<Objective>,
    /// When to stop.
    pub budget: Budget,
    /// How to breed.
    pub algorithm: Algorithm,
    /// Seed of every random draw of the search.
    pub seed: u64,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Which workers it is for, and what it is worth beside other searches.
    pub placement: Placement,
    /// Schedules from elsewhere.
    pub imported: Vec<Imported>,
}

/// A specification that was checked. Made by [`SpecDraft::validate`] only.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchSpec(SpecDraft);

impl Deref for SearchSpec {
    type Target = SpecDraft;
    fn deref(&self) -> &SpecDraft {
        &self.0
    }
}

impl SearchSpec {
    /// Why a model of this layout is too much for the search, if it is: every candidate decides for each step and slot.
    pub fn fits(&self, layout: &Layout) -> Result<(), String> {
        let (steps, slots) = (self.sampling.baseline_steps() as usize, layout.slots());
        if steps.saturating_mul(slots) > MAX_DECISIONS {
            return Err(format!(
                "the search has up to {steps} steps and the worker's layout {slots} slots: {} decisions, at most \
                 {MAX_DECISIONS}",
                steps.saturating_mul(slots)
            ));
        }
        Ok(())
    }

    /// Why so many metrics are too much for the search, if they are: every result has a value for each prompt of each.
    pub fn fits_metrics(&self, metrics: usize) -> Result<(), String> {
        let (prompts, values) = (self.prompts.len(), self.prompts.len().saturating_mul(metrics));
        if values > MAX_VALUES {
            return Err(format!(
                "the search has {prompts} prompts and the worker {metrics} metrics: {values} values a result, at most \
                 {MAX_VALUES}"
            ));
        }
        Ok(())
    }

    /// The same search with another budget.
    pub fn with_budget(&self, budget: Budget) -> Result<Self, SpecError> {
        SpecDraft { budget, ..self.0.clone() }.validate()
    }

    /// The fields, to make another specification from.
    pub fn into_draft(self) -> SpecDraft {
        self.0
    }
}

/// All that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid search specification: {0}")]
pub struct SpecError(pub Problems);

impl SpecDraft {
    /// The first objective that the workers' metrics give: what "quality" means in this search.
    pub fn quality(&self) -> Option<&Objective> {
        self.objectives.iter().find(|o| builtin_direction(&o.metric).is_none())
    }

    /// Checks every field and names all that are wrong.
    pub fn validate(self) -> Result<SearchSpec, SpecError> {
        let mut wrong = Problems::default();
        self.check_sampling(&mut wrong);
        self.check_measurement(&mut wrong);
        self.check_objectives(&mut wrong);
        self.check_search(&mut wrong);
        if wrong.is_empty() { Ok(SearchSpec(self)) } else { Err(SpecError(wrong)) }
    }

    fn check_sampling(&self, wrong: &mut Problems) {
        let steps = &self.sampling.steps;
        wrong.unless((1..=MAX_STEP_COUNTS).contains(&steps.len()), "sampling.steps", || {
            format!("give 1 to {MAX_STEP_COUNTS} step counts, found {}", steps.len())
        });
        for (i, &count) in steps.iter().enumerate().take(MAX_STEP_COUNTS) {
            let field = format_args!("sampling.steps[{i}]");
            wrong.unless((1..=MAX_STEPS).contains(&count), field, || format!("{count} is not in 1 to {MAX_STEPS}"));
            wrong.unless(
                i == 0 || steps[i - 1] > count,
                field,
                || "step counts go from the largest to the smallest, each once",
            );
        }
        let grids = &self.sampling.grids;
        wrong.at_most("sampling.grids", grids.len(), MAX_STEP_COUNTS);
        for (i, grid) in grids.iter().enumerate().take(MAX_STEP_COUNTS) {
            let field = format_args!("sampling.grids[{i}]");
            wrong.unless(steps.contains(&grid.steps), field, || {
                format!("{} is none of the step counts {steps:?}", grid.steps)
            });
            let is_first = grids[..i].iter().all(|other| other.steps != grid.steps);
            wrong.unless(is_first, field, || format!("{} steps have a grid already", grid.steps));
            let problem = grid.problem();
            wrong.unless(problem.is_none(), field, || problem.as_deref().unwrap_or_default().to_owned());
        }
        let guidance = self.sampling.guidance_scale;
        wrong.unless((0.0..=100.0).contains(&guidance), "sampling.guidance_scale", || {
            format!("{guidance} is not in 0 to 100")
        });
        for (field, pixels) in [("height", self.sampling.height), ("width", self.sampling.width)] {
            let good = pixels.is_none_or(|p| (16..=8192).contains(&p) && p % 8 == 0);
            let field = format_args!("sampling.{field}");
            wrong.unless(good, field, || "must be a multiple of 8 in 16 to 8192 pixels");
        }
        let negative = self.sampling.negative_prompt.len();
        wrong.unless(negative <= MAX_PROMPT_BYTES, "sampling.negative_prompt", || {
            format!("has {negative} bytes, at most {MAX_PROMPT_BYTES}")
        });
    }

    fn check_measurement(&self, wrong: &mut Problems) {
        wrong.unless((1..=MAX_PROMPTS).contains(&self.prompts.len()), "prompts", || {
            format!("give 1 to {MAX_PROMPTS} calibration prompts, found {}", self.prompts.len())
        });
        for (i, prompt) in self.prompts.iter().enumerate().take(MAX_PROMPTS) {
            let good = !prompt.text.trim().is_empty() && prompt.text.len() <= MAX_PROMPT_BYTES;
            let problem = || format!("must have 1 to {MAX_PROMPT_BYTES} bytes");
            wrong.unless(good, format_args!("prompts[{i}].text"), problem);
        }
        for (field, value, range) in [
            ("batch", self.plan.batch, 1..=1024),
            ("warmup", self.plan.warmup, 0..=100),
            ("repeats", self.plan.repeats, 1..=1000),
            ("thumbnails", self.plan.thumbnails, 0..=MAX_THUMBNAILS as u32),
        ] {
            wrong.unless(range.contains(&value), format_args!("measurement.{field}"), || {
                format!("{value} is not in {} to {}", range.start(), range.end())
            });
        }
    }

    fn check_objectives(&self, wrong: &mut Problems) {
        let objectives = &self.objectives;
        wrong.unless((2..=MAX_OBJECTIVES).contains(&objectives.len()), "objectives", || {
            format!("give 2 to {MAX_OBJECTIVES} objectives, found {}", objectives.len())
        });
        let objectives = &objectives[..objectives.len().min(MAX_OBJECTIVES)];
        for (i, objective) in objectives.iter().enumerate() {
            let field = format_args!("objectives[{i}]");
            let name = &objective.metric;
            wrong.unless(is_metric_name(name), field, || format!("'{name}' is no metric name"));
            wrong.unless(objectives[..i].iter().all(|o| &o.metric != name), field, || {
                format!("metric '{name}' is an objective twice")
            });
            let against = builtin_direction(name).is_some_and(|direction| direction != objective.direction);
            wrong.unless(!against, field, || format!("'{name}' is to be optimised the other way"));
            wrong.unless(objective.bound.is_none_or(f64::is_finite), field, || "the bound must be finite");
        }
        let has = |quality: bool| objectives.iter().any(|o| builtin_direction(&o.metric).is_none() == quality);
        wrong.unless(
            has(true) && has(false),
            "objectives",
            || "one objective must be a cost (such as latency_ratio) and one a quality metric of the workers",
        );
    }

    fn check_search(&self, wrong: &mut Problems) {
        let name = &self.model.name;
        wrong.unless((1..=MAX_NAME).contains(&name.chars().count()), "model.name", || {
            format!("must have 1 to {MAX_NAME} characters")
        });
        let fingerprint = self.model.fingerprint.as_ref().map_or(0, |f| f.chars().count());
        wrong.unless(fingerprint <= MAX_NAME, "model.fingerprint", || format!("at most {MAX_NAME} characters"));
        let budget = &self.budget;
        let counts = budget.evaluations.or(budget.stagnation);
        let limited = counts.is_some() || budget.wall_time.is_some() || budget.device_time.is_some();
        wrong.unless(limited, "budget", || "give at least one of evaluations, wall_time, device_time, stagnation");
        wrong.unless(budget.stagnation.is_none_or(|n| n > 0), "budget.stagnation", || "must be positive");
        wrong.unless(
            budget.evaluations.is_none_or(|n| (1..=10_000_000).contains(&n)),
            "budget.evaluations",
            || "must be in 1 to 10000000",
        );
        for (field, time) in [("wall_time", budget.wall_time), ("device_time", budget.device_time)] {
            let field = format_args!("budget.{field}");
            wrong.unless(
                time.is_none_or(|t| !t.is_zero() && t <= MAX_TIME),
                field,
                || "must be positive, and at most ten years",
            );
        }
        wrong.unless(
            (2..=10_000).contains(&self.algorithm.population),
            "algorithm.population",
            || "must be in 2 to 10000",
        );
        wrong.unless((0.0..=1.0).contains(&self.algorithm.crossover), "algorithm.crossover", || "is a probability");
        let rungs = &self.algorithm.rungs;
        wrong.at_most("algorithm.rungs", rungs.len(), MAX_RUNGS);
        for (i, &rung) in rungs.iter().enumerate().take(MAX_RUNGS) {
            let before = if i == 0 { 0 } else { rungs[i - 1] };
            let fits = rung > before && (rung as usize) < self.prompts.len();
            wrong.unless(fits, format_args!("algorithm.rungs[{i}]"), || {
                format!("rungs ascend from 1 to fewer than all {} prompts", self.prompts.len())
            });
        }
        for (field, labels) in [("labels", &self.labels), ("placement.labels", &self.placement.labels)] {
            wrong.at_most(field, labels.len(), MAX_LABELS);
            for (key, value) in labels.iter().take(MAX_LABELS) {
                let field = format_args!("{field}.{key}");
                wrong.unless(is_label(key, value), field, || "keys have 1 to 63 bytes, values at most 255");
            }
        }
        wrong.unless((1..=1000).contains(&self.placement.weight), "placement.weight", || "must be in 1 to 1000");
        wrong.unless(self.placement.device.chars().count() <= MAX_NAME, "placement.device", || {
            format!("at most {MAX_NAME} characters")
        });
        self.check_imported(wrong);
    }

    fn check_imported(&self, wrong: &mut Problems) {
        wrong.at_most("imported", self.imported.len(), MAX_IMPORTED);
        for (i, imported) in self.imported.iter().enumerate().take(MAX_IMPORTED) {
            let (field, schedule) = (format_args!("imported[{i}]"), &imported.schedule);
            wrong.unless(self.forecast || !schedule.forecasts(), field, || {
                format!("'{}' forecasts, but the search does not allow it", imported.name)
            });
            let first = self.imported[0].schedule.layout();
            // Mostly the very same one; a worker has one layout, so no worker could ever take two.
            let same = std::sync::Arc::ptr_eq(schedule.layout(), first) || schedule.layout() == first;
            wrong.unless(same, field, || format!("'{}' is for another layout than imported[0]", imported.name));
        }
        let prompts: usize = self.prompts.iter().map(|prompt| prompt.text.len()).sum();
        let schedules: usize = self.imported.iter().map(|imported| imported.schedule.packed().len()).sum();
        wrong.unless(prompts + schedules <= MAX_SPEC_BYTES, "prompts", || {
            format!(
                "{prompts} bytes of prompts and {schedules} bytes of imported schedules, at most {MAX_SPEC_BYTES} together"
            )
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::Grid;

    pub(crate) fn draft() -> SpecDraft {
        SpecDraft {
            model: ModelRef { name: "emoji".into(), fingerprint: None },
            sampling: Sampling {
                steps: vec![20, 12],
                guidance_scale: 3.0,
                height: None,
                width: Some(64),
                negative_prompt: String::new(),
                grids: vec![],
            },
            forecast: true,
            prompts: vec![Prompt { text: "an owl".into(), seed: 7 }],
            plan: MeasurementPlan { batch: 4, warmup: 1, repeats: 2, thumbnails: 1 },
            objectives: vec![
                Objective { metric: "latency_ratio".into(), direction: Direction::Minimize, bound: None },
                Objective { metric: "clip_score".into(), direction: Direction::Maximize, bound: Some(0.8) },
            ],
            budget: Budget { evaluations: Some(100), ..Budget::default() },
            algorithm: Algorithm::default(),
            seed: 1,
            labels: BTreeMap::from([("team".into(), "a".into())]),
            placement: Placement::default(),
            imported: vec![],
        }
    }

    #[test]
    fn quality_is_the_first_metric_of_the_workers() {
        assert_eq!(draft().validate().unwrap().quality().unwrap().metric, "clip_score");
    }

    #[test]
    fn a_model_that_is_too_much_is_refused_by_the_product() {
        let mut large = draft();
        large.sampling.steps = vec![1000];
        large.prompts = vec![Prompt { text: "an owl".into(), seed: 7 }; 10_000];
        let large = large.validate().unwrap();
        assert_eq!(large.fits(&Layout::flux(19, 38).unwrap()), Ok(()), "FLUX at as many steps as there can be");
        let problem = large.fits(&Layout::pixart(1365).unwrap()).unwrap_err();
        assert!(problem.contains("1000 steps") && problem.contains("4095 slots"), "{problem}");
        assert_eq!(large.fits_metrics(6), Ok(()));
        assert!(large.fits_metrics(7).unwrap_err().contains("70000 values"));
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Spoil = fn(&mut SpecDraft);
        fn grid(steps: u32, timesteps: &[u32]) -> Grid {
            Grid { steps, timesteps: timesteps.into(), ..Grid::default() }
        }
        let spoils: [(Spoil, &str); 28] = [
            (|d| d.sampling.grids = vec![grid(5, &[9, 7, 5, 3, 1])], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![grid(12, &[9, 7, 5, 3, 1])], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![grid(12, &[])], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![Grid { solver_order: Some(4), ..grid(12, &[]) }], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![grid(12, &[7; 12])], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![Grid { sigmas: vec![1.5; 12], ..grid(12, &[]) }], "sampling.grids[0]"),
            (|d| d.sampling.grids = vec![Grid { solver_order: Some(1), ..grid(12, &[]) }; 2], "sampling.grids[1]"),
            (|d| d.sampling.grids = vec![grid(12, &[]); 10_000], "sampling.grids"),
            (|d| d.sampling.steps.clear(), "sampling.steps"),
            (|d| d.sampling.steps = vec![12, 20], "sampling.steps[1]"),
            (|d| d.sampling.guidance_scale = f64::NAN, "sampling.guidance_scale"),
            (|d| d.sampling.height = Some(65), "sampling.height"),
            (|d| d.prompts.clear(), "prompts"),
            (|d| d.prompts[0].text = " ".into(), "prompts[0].text"),
            (|d| d.prompts = vec![d.prompts[0].clone(); MAX_PROMPTS + 1], "prompts"),
            (|d| d.prompts = vec![Prompt { text: "x".repeat(8000), seed: 0 }; 400], "prompts"),
            (|d| d.sampling.negative_prompt = "x".repeat(8193), "sampling.negative_prompt"),
            (|d| d.algorithm.rungs = vec![0; 16_000_000], "algorithm.rungs"),
            (|d| d.plan.batch = 0, "measurement.batch"),
            (|d| drop(d.objectives.pop()), "objectives"),
            (|d| d.objectives[0].direction = Direction::Maximize, "objectives[0]"),
            (|d| d.budget.evaluations = None, "budget"),
            (|d| d.algorithm.crossover = 1.5, "algorithm.crossover"),
            (|d| d.algorithm.rungs = vec![1], "algorithm.rungs[0]"),
            (|d| d.budget.stagnation = Some(0), "budget.stagnation"),
            (|d| d.model.name.clear(), "model.name"),
            (|d| d.placement.weight = 0, "placement.weight"),
            (|d| drop(d.placement.labels.insert("long".into(), "x".repeat(256))), "placement.labels.long"),
        ];
        for (spoil, field) in spoils {
            let mut d = draft();
            spoil(&mut d);
            let SpecError(problems) = d.validate().unwrap_err();
            assert!(problems.told().iter().any(|p| p.field == field), "{field} is not among {problems}");
        }
    }
}
