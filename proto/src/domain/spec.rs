//! The specification of a search.

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

/// The longest time limit of a budget: ten years.
const MAX_TIME: Duration = Duration::from_hours(10 * 366 * 24);

/// The model that a search is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRef {
    /// Name of the model, as workers declare it.
    pub name: String,
    /// The fingerprint that workers must declare; `None`: that of the first worker.
    pub fingerprint: Option<String>,
}

/// A metric to optimize.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Name of a built-in metric or of one that the workers declare.
    pub metric: String,
    /// Which values are better.
    pub direction: Direction,
    /// The worst acceptable value: the largest if minimized, the smallest if maximized.
    pub bound: Option<f64>,
}

/// The limits of a search. The first that is reached completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Number of evaluations. One on a part of the prompts counts as that part.
    pub evaluations: Option<u64>,
    /// Time since the first worker joined, pauses included, without the time between completion and extension.
    pub wall_time: Option<Duration>,
    /// Sum over all evaluations of the time for which the device was busy.
    pub device_time: Option<Duration>,
    /// Number of evaluations in a row in which the hypervolume grows by less than 0.1 %.
    pub stagnation: Option<u64>,
}

/// How candidates are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Heuristic schedules first, then offspring of the best candidates so far, one at a time.
    SteadyState,
    /// Generational NSGA-II with the operators of ECAD, for comparison.
    Nsga2,
    /// The uncached run and the imported schedules only, each measured twice.
    Imported,
}

/// The settings of the search algorithm.
#[derive(Debug, Clone, PartialEq)]
pub struct Algorithm {
    /// How candidates are generated.
    pub strategy: Strategy,
    /// Number of best candidates that are kept as parents.
    pub population: u32,
    /// Probability that an offspring has two parents.
    pub crossover: f64,
    /// Whether heuristic schedules are evaluated first.
    pub seeds: bool,
    /// Whether members of the front are measured again.
    pub remeasure: bool,
    /// Numbers of prompts on which candidates are evaluated before all prompts, ascending; empty: on all at once.
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

/// A schedule from elsewhere that is evaluated among the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Origin of the schedule, for people.
    pub name: String,
    /// The schedule.
    pub schedule: Schedule,
}

/// The fields of a [`SearchSpec`], not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecDraft {
    /// The model.
    pub model: ModelRef,
    /// The sampling setup.
    pub sampling: Sampling,
    /// Whether candidates may use [`Decision::Forecast`](super::Decision::Forecast).
    pub forecast: bool,
    /// Whether schedules may leave out passes of classifier-free guidance; see
    /// [`GuidanceDecision`](super::GuidanceDecision).
    pub guidance_decisions: bool,
    /// The images of each evaluation.
    pub prompts: Vec<Prompt>,
    /// How candidates are measured.
    pub plan: MeasurementPlan,
    /// Two to four objectives, at least one built-in metric and one quality metric.
    pub objectives: Vec<Objective>,
    /// When to stop.
    pub budget: Budget,
    /// The settings of the search algorithm.
    pub algorithm: Algorithm,
    /// Seed of every random draw of the search.
    pub seed: u64,
    /// Labels for people.
    pub labels: BTreeMap<String, String>,
    /// Which workers serve the search, and its share of them.
    pub placement: Placement,
    /// Schedules to evaluate among the first.
    pub imported: Vec<Imported>,
}

/// A valid specification. Constructed by [`SpecDraft::validate`] only.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchSpec(SpecDraft);

impl Deref for SearchSpec {
    type Target = SpecDraft;
    fn deref(&self) -> &SpecDraft {
        &self.0
    }
}

impl SearchSpec {
    /// Whether a model with this layout is small enough for the search, since a schedule has a decision per step and
    /// slot. The error says why not.
    pub fn fits(&self, layout: &Layout) -> Result<(), String> {
        let (steps, slots) = (self.sampling.baseline_steps() as usize, layout.slots());
        if steps.saturating_mul(slots) > MAX_DECISIONS {
            return Err(format!(
                "the search has up to {steps} steps and the worker's layout {slots} slots: {} decisions exceed \
                 {MAX_DECISIONS}",
                steps.saturating_mul(slots)
            ));
        }
        Ok(())
    }

    /// Whether this many metrics are few enough for the search, since a result has a value per metric and prompt. The
    /// error says why not.
    pub fn fits_metrics(&self, metrics: usize) -> Result<(), String> {
        let (prompts, values) = (self.prompts.len(), self.prompts.len().saturating_mul(metrics));
        if values > MAX_VALUES {
            return Err(format!(
                "the search has {prompts} prompts and the worker {metrics} metrics: {values} values per result exceed \
                 {MAX_VALUES}"
            ));
        }
        Ok(())
    }

    /// The same search with another budget.
    pub fn with_budget(&self, budget: Budget) -> Result<Self, SpecError> {
        SpecDraft { budget, ..self.0.clone() }.validate()
    }

    /// The fields, to build another specification from.
    pub fn into_draft(self) -> SpecDraft {
        self.0
    }
}

/// The invalid fields of a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid search specification: {0}")]
pub struct SpecError(pub Problems);

impl SpecDraft {
    /// The quality metric of the search: the first objective with a metric that the workers declare.
    pub fn quality(&self) -> Option<&Objective> {
        self.objectives.iter().find(|o| builtin_direction(&o.metric).is_none())
    }

    /// Checks all fields. The error names those that are invalid.
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
            wrong.unless(i == 0 || steps[i - 1] > count, field, || "step counts must decrease strictly");
        }
        let grids = &self.sampling.grids;
        wrong.at_most("sampling.grids", grids.len(), MAX_STEP_COUNTS);
        for (i, grid) in grids.iter().enumerate().take(MAX_STEP_COUNTS) {
            let field = format_args!("sampling.grids[{i}]");
            wrong.unless(steps.contains(&grid.steps), field, || {
                format!("{} is not one of the step counts {steps:?}", grid.steps)
            });
            let is_first = grids[..i].iter().all(|other| other.steps != grid.steps);
            wrong.unless(is_first, field, || format!("{} steps already have a grid", grid.steps));
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
            let problem = || format!("must have 1 to {MAX_PROMPT_BYTES} bytes, not all white space");
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
            wrong.unless(is_metric_name(name), field, || format!("'{name}' is not a metric name"));
            wrong.unless(objectives[..i].iter().all(|o| &o.metric != name), field, || {
                format!("metric '{name}' is already an objective")
            });
            let against = builtin_direction(name).is_some_and(|direction| direction != objective.direction);
            wrong.unless(!against, field, || format!("'{name}' must be optimized the other way"));
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
        wrong.unless((0.0..=1.0).contains(&self.algorithm.crossover), "algorithm.crossover", || "must be in 0 to 1");
        let rungs = &self.algorithm.rungs;
        wrong.at_most("algorithm.rungs", rungs.len(), MAX_RUNGS);
        for (i, &rung) in rungs.iter().enumerate().take(MAX_RUNGS) {
            let before = if i == 0 { 0 } else { rungs[i - 1] };
            let fits = rung > before && (rung as usize) < self.prompts.len();
            wrong.unless(fits, format_args!("algorithm.rungs[{i}]"), || {
                format!("rungs must ascend and be 1 to fewer than all {} prompts", self.prompts.len())
            });
        }
        for (field, labels) in [("labels", &self.labels), ("placement.labels", &self.placement.labels)] {
            wrong.at_most(field, labels.len(), MAX_LABELS);
            for (key, value) in labels.iter().take(MAX_LABELS) {
                let field = format_args!("{field}.{key}");
                wrong.unless(is_label(key, value), field, || "keys must have 1 to 63 bytes, values at most 255");
            }
        }
        wrong.unless((1..=1000).contains(&self.placement.weight), "placement.weight", || "must be in 1 to 1000");
        wrong.unless(self.placement.device.chars().count() <= MAX_NAME, "placement.device", || {
            format!("at most {MAX_NAME} characters")
        });
        let guided = !self.guidance_decisions || self.sampling.guidance_scale > 1.0;
        wrong.unless(guided, "allow_guidance_decisions", || "needs a guidance scale above 1");
        self.check_imported(wrong);
    }

    fn check_imported(&self, wrong: &mut Problems) {
        wrong.at_most("imported", self.imported.len(), MAX_IMPORTED);
        for (i, imported) in self.imported.iter().enumerate().take(MAX_IMPORTED) {
            let (field, schedule) = (format_args!("imported[{i}]"), &imported.schedule);
            wrong.unless(self.forecast || !schedule.forecasts(), field, || {
                format!("'{}' has forecasts, which the search does not allow", imported.name)
            });
            wrong.unless(self.guidance_decisions || !schedule.decides_guidance(), field, || {
                format!("'{}' has guidance decisions; allow them with allow_guidance_decisions = true", imported.name)
            });
            let first = self.imported[0].schedule.layout();
            // A worker has one layout, so none could serve two. Most share one allocation, which compares fast.
            let same = std::sync::Arc::ptr_eq(schedule.layout(), first) || schedule.layout() == first;
            wrong.unless(same, field, || format!("the layout of '{}' differs from that of imported[0]", imported.name));
        }
        let prompts: usize = self.prompts.iter().map(|prompt| prompt.text.len()).sum();
        let schedules: usize = self.imported.iter().map(|imported| imported.schedule.packed().len()).sum();
        wrong.unless(prompts + schedules <= MAX_SPEC_BYTES, "prompts", || {
            format!(
                "{prompts} bytes of prompts and {schedules} bytes of imported schedules exceed {MAX_SPEC_BYTES} in all"
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
            guidance_decisions: false,
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
