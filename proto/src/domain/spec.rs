//! What a person asks for: the specification of a search.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use super::metric::{MOST_LABELS, is_label, is_metric_name};
use super::placement::Placement;
use super::{Direction, MAX_STEPS, MeasurementPlan, Prompt, Sampling, Schedule, builtin_direction};

/// Calibration images per evaluation, at most.
pub const MAX_PROMPTS: usize = 10_000;

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
    /// Time since the search got its first worker, pauses included.
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
    /// The fields, to make another specification from.
    pub fn into_draft(self) -> SpecDraft {
        self.0
    }
}

/// One thing that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecViolation {
    /// Path of the field, such as `sampling.steps[1]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// All that is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid search specification: {}", .0.iter().map(|v| format!("{}: {}", v.field, v.problem)).collect::<Vec<_>>().join("; "))]
pub struct SpecError(pub Vec<SpecViolation>);

impl SpecDraft {
    /// The first objective that the workers' metrics give: what "quality" means in this search.
    pub fn quality(&self) -> Option<&Objective> {
        self.objectives.iter().find(|o| builtin_direction(&o.metric).is_none())
    }

    /// Checks every field and names all that are wrong.
    pub fn validate(self) -> Result<SearchSpec, SpecError> {
        let mut wrong = Violations::default();
        self.check_sampling(&mut wrong);
        self.check_measurement(&mut wrong);
        self.check_objectives(&mut wrong);
        self.check_search(&mut wrong);
        if wrong.0.is_empty() { Ok(SearchSpec(self)) } else { Err(SpecError(wrong.0)) }
    }

    fn check_sampling(&self, wrong: &mut Violations) {
        let steps = &self.sampling.steps;
        wrong.unless((1..=16).contains(&steps.len()), "sampling.steps", || "give 1 to 16 step counts".into());
        for (i, &count) in steps.iter().enumerate() {
            wrong.unless((1..=MAX_STEPS).contains(&count), &format!("sampling.steps[{i}]"), || {
                format!("{count} is not in 1 to {MAX_STEPS}")
            });
            wrong.unless(i == 0 || steps[i - 1] > count, &format!("sampling.steps[{i}]"), || {
                "step counts go from the largest to the smallest, each once".into()
            });
        }
        let guidance = self.sampling.guidance_scale;
        wrong.unless((0.0..=100.0).contains(&guidance), "sampling.guidance_scale", || {
            format!("{guidance} is not in 0 to 100")
        });
        for (field, pixels) in [("height", self.sampling.height), ("width", self.sampling.width)] {
            let good = pixels.is_none_or(|p| (16..=8192).contains(&p) && p % 8 == 0);
            wrong.unless(good, &format!("sampling.{field}"), || "must be a multiple of 8 in 16 to 8192 pixels".into());
        }
    }

    fn check_measurement(&self, wrong: &mut Violations) {
        wrong.unless((1..=MAX_PROMPTS).contains(&self.prompts.len()), "prompts", || {
            format!("give 1 to {MAX_PROMPTS} calibration prompts, found {}", self.prompts.len())
        });
        for (i, prompt) in self.prompts.iter().enumerate() {
            let good = !prompt.text.trim().is_empty() && prompt.text.len() <= 8192;
            wrong.unless(good, &format!("prompts[{i}].text"), || "must have 1 to 8192 bytes".into());
        }
        for (field, value, range) in [
            ("batch", self.plan.batch, 1..=1024),
            ("warmup", self.plan.warmup, 0..=100),
            ("repeats", self.plan.repeats, 1..=1000),
            ("thumbnails", self.plan.thumbnails, 0..=16),
        ] {
            wrong.unless(range.contains(&value), &format!("measurement.{field}"), || {
                format!("{value} is not in {} to {}", range.start(), range.end())
            });
        }
    }

    fn check_objectives(&self, wrong: &mut Violations) {
        let objectives = &self.objectives;
        wrong.unless((2..=4).contains(&objectives.len()), "objectives", || {
            format!("give two to four objectives, found {}", objectives.len())
        });
        for (i, objective) in objectives.iter().enumerate() {
            let field = format!("objectives[{i}]");
            let name = &objective.metric;
            wrong.unless(is_metric_name(name), &field, || format!("'{name}' is no metric name"));
            wrong.unless(objectives[..i].iter().all(|o| &o.metric != name), &field, || {
                format!("metric '{name}' is an objective twice")
            });
            let against = builtin_direction(name).is_some_and(|direction| direction != objective.direction);
            wrong.unless(!against, &field, || format!("'{name}' is to be optimised the other way"));
            wrong.unless(objective.bound.is_none_or(f64::is_finite), &field, || "the bound must be finite".into());
        }
        let has = |quality: bool| objectives.iter().any(|o| builtin_direction(&o.metric).is_none() == quality);
        wrong.unless(has(true) && has(false), "objectives", || {
            "one objective must be a cost (such as latency_ratio) and one a quality metric of the workers".into()
        });
    }

    fn check_search(&self, wrong: &mut Violations) {
        let name = &self.model.name;
        wrong
            .unless((1..=200).contains(&name.chars().count()), "model.name", || "must have 1 to 200 characters".into());
        let budget = &self.budget;
        let counts = budget.evaluations.or(budget.stagnation);
        let limited = counts.is_some() || budget.wall_time.is_some() || budget.device_time.is_some();
        wrong.unless(limited, "budget", || {
            "give at least one of evaluations, wall_time, device_time, stagnation".into()
        });
        wrong.unless(budget.stagnation.is_none_or(|n| n > 0), "budget.stagnation", || "must be positive".into());
        wrong.unless(budget.evaluations.is_none_or(|n| (1..=10_000_000).contains(&n)), "budget.evaluations", || {
            "must be in 1 to 10000000".into()
        });
        for (field, time) in [("wall_time", budget.wall_time), ("device_time", budget.device_time)] {
            wrong.unless(time.is_none_or(|t| !t.is_zero()), &format!("budget.{field}"), || "must be positive".into());
        }
        wrong.unless((2..=10_000).contains(&self.algorithm.population), "algorithm.population", || {
            "must be in 2 to 10000".into()
        });
        wrong.unless((0.0..=1.0).contains(&self.algorithm.crossover), "algorithm.crossover", || {
            "is a probability".into()
        });
        for (i, &rung) in self.algorithm.rungs.iter().enumerate() {
            let before = if i == 0 { 0 } else { self.algorithm.rungs[i - 1] };
            let fits = rung > before && (rung as usize) < self.prompts.len();
            wrong.unless(fits, &format!("algorithm.rungs[{i}]"), || {
                format!("rungs ascend from 1 to fewer than all {} prompts", self.prompts.len())
            });
        }
        for (field, labels) in [("labels", &self.labels), ("placement.labels", &self.placement.labels)] {
            wrong.unless(labels.len() <= MOST_LABELS, field, || format!("at most {MOST_LABELS} labels"));
            for (key, value) in labels {
                let field = format!("{field}.{key}");
                wrong.unless(is_label(key, value), &field, || "keys have 1 to 63 bytes, values at most 255".into());
            }
        }
        wrong.unless((1..=1000).contains(&self.placement.weight), "placement.weight", || "must be in 1 to 1000".into());
        wrong.unless(self.placement.device.chars().count() <= 200, "placement.device", || {
            "at most 200 characters".into()
        });
        wrong.unless(self.imported.len() <= 1000, "imported", || "at most 1000 schedules".into());
        for (i, imported) in self.imported.iter().enumerate() {
            let field = format!("imported[{i}]");
            wrong.unless(self.forecast || !imported.schedule.forecasts(), &field, || {
                format!("'{}' forecasts, but the search does not allow it", imported.name)
            });
        }
    }
}

#[derive(Default)]
struct Violations(Vec<SpecViolation>);

impl Violations {
    fn unless(&mut self, good: bool, field: &str, problem: impl FnOnce() -> String) {
        if !good {
            self.0.push(SpecViolation { field: field.to_owned(), problem: problem() });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn draft() -> SpecDraft {
        SpecDraft {
            model: ModelRef { name: "emoji".into(), fingerprint: None },
            sampling: Sampling {
                steps: vec![20, 12],
                guidance_scale: 3.0,
                height: None,
                width: Some(64),
                negative_prompt: String::new(),
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
    fn every_wrong_field_is_named() {
        type Spoil = fn(&mut SpecDraft);
        let spoils: [(Spoil, &str); 16] = [
            (|d| d.sampling.steps.clear(), "sampling.steps"),
            (|d| d.sampling.steps = vec![12, 20], "sampling.steps[1]"),
            (|d| d.sampling.guidance_scale = f64::NAN, "sampling.guidance_scale"),
            (|d| d.sampling.height = Some(65), "sampling.height"),
            (|d| d.prompts.clear(), "prompts"),
            (|d| d.prompts[0].text = " ".into(), "prompts[0].text"),
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
            let SpecError(violations) = d.validate().unwrap_err();
            assert!(violations.iter().any(|v| v.field == field), "{field} is not among {violations:?}");
        }
    }
}
