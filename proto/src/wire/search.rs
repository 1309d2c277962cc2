//! Conversions of search specifications.

use std::sync::Arc;

use super::error::{at_most, duration, require};
use super::{WireError, layout, schedule};
use crate::domain::limits::{
    MAX_IMPORTED, MAX_LABELS, MAX_NAME, MAX_OBJECTIVES, MAX_PROMPTS, MAX_RUNGS, MAX_STEP_COUNTS,
};
use crate::domain::{
    Algorithm, Budget, Direction, Grid, Imported, Layout, MeasurementPlan, ModelRef, Objective, Placement, Prompt,
    Sampling, SearchSpec, SpecDraft, SpecError, Strategy,
};
use crate::pb;

/// Checks a specification. The error names the invalid fields by their paths within the specification.
pub fn search_spec(message: &pb::SearchSpec) -> Result<SearchSpec, SpecError> {
    spec_draft(message).map_err(|e| SpecError(e.into()))?.validate()
}

/// Reads a specification message. Values are checked by [`SpecDraft::validate`].
pub fn spec_draft(message: &pb::SearchSpec) -> Result<SpecDraft, WireError> {
    counts(message)?;
    let model = require("model", message.model.as_ref())?;
    let objectives = message.objectives.iter().enumerate().map(|(i, o)| {
        let direction = direction(o.direction).ok_or_else(|| {
            WireError::new(
                format_args!("objectives[{i}].direction"),
                "must be DIRECTION_MINIMIZE or DIRECTION_MAXIMIZE",
            )
        })?;
        Ok(Objective { metric: o.metric.clone(), direction, bound: o.bound })
    });
    Ok(SpecDraft {
        model: ModelRef { name: model.name.clone(), fingerprint: model.fingerprint.clone() },
        sampling: sampling(require("sampling", message.sampling.as_ref())?),
        forecast: message.allow_forecast,
        guidance_decisions: message.allow_guidance_decisions,
        prompts: message.prompts.iter().map(prompt).collect(),
        plan: plan(require("measurement", message.measurement.as_ref())?),
        objectives: objectives.collect::<Result<_, _>>()?,
        budget: budget(require("budget", message.budget.as_ref())?)?,
        algorithm: algorithm(message.algorithm.as_ref())?,
        seed: message.seed,
        labels: message.labels.clone(),
        placement: message.placement.as_ref().map_or_else(Placement::default, placement),
        imported: imports(&message.imported)?,
    })
}

/// Reads a budget. Its limits are checked by [`SpecDraft::validate`].
pub fn budget(message: &pb::Budget) -> Result<Budget, WireError> {
    let time =
        |field: &str, value: &Option<prost_types::Duration>| value.as_ref().map(|v| duration(field, v)).transpose();
    Ok(Budget {
        evaluations: message.evaluations,
        wall_time: time("budget.wall_time", &message.wall_time)?,
        device_time: time("budget.device_time", &message.device_time)?,
        stagnation: message.stagnation,
    })
}

fn counts(message: &pb::SearchSpec) -> Result<(), WireError> {
    let rungs = message.algorithm.as_ref().map_or(0, |algorithm| algorithm.rungs.len());
    let places = message.placement.as_ref().map_or(0, |placement| placement.labels.len());
    at_most("sampling.steps", message.sampling.as_ref().map_or(0, |s| s.steps.len()), MAX_STEP_COUNTS)?;
    at_most("sampling.grids", message.sampling.as_ref().map_or(0, |s| s.grids.len()), MAX_STEP_COUNTS)?;
    at_most("prompts", message.prompts.len(), MAX_PROMPTS)?;
    at_most("objectives", message.objectives.len(), MAX_OBJECTIVES)?;
    at_most("algorithm.rungs", rungs, MAX_RUNGS)?;
    at_most("labels", message.labels.len(), MAX_LABELS)?;
    at_most("placement.labels", places, MAX_LABELS)?;
    at_most("imported", message.imported.len(), MAX_IMPORTED)
}

/// Reads the imported schedules. Equal layouts are built once and shared, because a layout may be much larger than its
/// message.
fn imports(messages: &[pb::ImportedSchedule]) -> Result<Vec<Imported>, WireError> {
    let mut all: Vec<Imported> = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let known = all.last().filter(|_| i > 0 && messages[i - 1].layout == message.layout);
        let next = match (known, &message.layout) {
            (Some(known), Some(_)) => of_layout(message, known.schedule.layout().clone()),
            _ => imported(message),
        };
        all.push(next.map_err(|e| e.within(&format!("imported[{i}]")))?);
        // A layout message of thirty bytes can have thousands of slots, so at most two are built before the comparison.
        if all[i].schedule.layout() != all[0].schedule.layout() {
            return Err(WireError::new(format_args!("imported[{i}].layout"), "differs from that of imported[0]"));
        }
    }
    Ok(all)
}

fn of_layout(message: &pb::ImportedSchedule, layout: Arc<Layout>) -> Result<Imported, WireError> {
    let schedule = schedule(&layout, require("schedule", message.schedule.as_ref())?)?;
    Ok(Imported { name: message.name.chars().take(MAX_NAME).collect(), schedule })
}

/// Checks an imported schedule against its own layout.
pub fn imported(message: &pb::ImportedSchedule) -> Result<Imported, WireError> {
    let layout = Arc::new(layout(require("layout", message.layout.as_ref())?)?);
    of_layout(message, layout)
}

fn placement(message: &pb::Placement) -> Placement {
    Placement {
        priority: message.priority,
        weight: message.weight.unwrap_or(1),
        device: message.device.clone(),
        memory_bytes: message.memory_bytes,
        labels: message.labels.clone(),
    }
}

fn algorithm(message: Option<&pb::Algorithm>) -> Result<Algorithm, WireError> {
    let default = Algorithm::default();
    let Some(message) = message else { return Ok(default) };
    let strategy = match pb::Strategy::try_from(message.strategy) {
        Ok(pb::Strategy::Unspecified) => default.strategy,
        Ok(pb::Strategy::SteadyState) => Strategy::SteadyState,
        Ok(pb::Strategy::Nsga2) => Strategy::Nsga2,
        Ok(pb::Strategy::Imported) => Strategy::Imported,
        Err(_) => return Err(WireError::new("algorithm.strategy", format!("unknown value {}", message.strategy))),
    };
    Ok(Algorithm {
        strategy,
        population: message.population.unwrap_or(default.population),
        crossover: message.crossover.unwrap_or(default.crossover),
        seeds: message.seeds.unwrap_or(default.seeds),
        remeasure: message.remeasure.unwrap_or(default.remeasure),
        rungs: message.rungs.clone(),
    })
}

pub(super) fn direction(value: i32) -> Option<Direction> {
    match pb::Direction::try_from(value).ok()? {
        pb::Direction::Minimize => Some(Direction::Minimize),
        pb::Direction::Maximize => Some(Direction::Maximize),
        pb::Direction::Unspecified => None,
    }
}

impl From<Direction> for pb::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Minimize => Self::Minimize,
            Direction::Maximize => Self::Maximize,
        }
    }
}

pub(super) fn prompt(message: &pb::Prompt) -> Prompt {
    Prompt { text: message.text.clone(), seed: message.seed }
}

pub(super) fn sampling(message: &pb::Sampling) -> Sampling {
    Sampling {
        steps: message.steps.clone(),
        guidance_scale: message.guidance_scale,
        height: message.height,
        width: message.width,
        negative_prompt: message.negative_prompt.clone(),
        grids: message.grids.iter().map(grid).collect(),
    }
}

fn grid(message: &pb::Grid) -> Grid {
    Grid {
        steps: message.steps,
        solver_order: message.solver_order,
        timesteps: message.timesteps.clone(),
        sigmas: message.sigmas.clone(),
    }
}

impl From<&Grid> for pb::Grid {
    fn from(grid: &Grid) -> Self {
        Self {
            steps: grid.steps,
            solver_order: grid.solver_order,
            timesteps: grid.timesteps.clone(),
            sigmas: grid.sigmas.clone(),
        }
    }
}

pub(super) fn plan(message: &pb::MeasurementPlan) -> MeasurementPlan {
    MeasurementPlan {
        batch: message.batch,
        warmup: message.warmup,
        repeats: message.repeats,
        thumbnails: message.thumbnails,
    }
}

impl From<&Prompt> for pb::Prompt {
    fn from(prompt: &Prompt) -> Self {
        Self { text: prompt.text.clone(), seed: prompt.seed }
    }
}

impl From<&Sampling> for pb::Sampling {
    fn from(sampling: &Sampling) -> Self {
        Self {
            steps: sampling.steps.clone(),
            guidance_scale: sampling.guidance_scale,
            height: sampling.height,
            width: sampling.width,
            negative_prompt: sampling.negative_prompt.clone(),
            grids: sampling.grids.iter().map(Into::into).collect(),
        }
    }
}

impl From<&MeasurementPlan> for pb::MeasurementPlan {
    fn from(plan: &MeasurementPlan) -> Self {
        Self { batch: plan.batch, warmup: plan.warmup, repeats: plan.repeats, thumbnails: plan.thumbnails }
    }
}

impl From<&Imported> for pb::ImportedSchedule {
    fn from(imported: &Imported) -> Self {
        Self {
            name: imported.name.clone(),
            layout: Some(imported.schedule.layout().as_ref().into()),
            schedule: Some((&imported.schedule).into()),
        }
    }
}

impl From<&Budget> for pb::Budget {
    fn from(budget: &Budget) -> Self {
        let time = |t: std::time::Duration| prost_types::Duration::try_from(t).ok();
        Self {
            evaluations: budget.evaluations,
            wall_time: budget.wall_time.and_then(time),
            device_time: budget.device_time.and_then(time),
            stagnation: budget.stagnation,
        }
    }
}

impl From<&SpecDraft> for pb::SearchSpec {
    fn from(spec: &SpecDraft) -> Self {
        let strategy = match spec.algorithm.strategy {
            Strategy::SteadyState => pb::Strategy::SteadyState,
            Strategy::Nsga2 => pb::Strategy::Nsga2,
            Strategy::Imported => pb::Strategy::Imported,
        };
        Self {
            model: Some(pb::ModelRef { name: spec.model.name.clone(), fingerprint: spec.model.fingerprint.clone() }),
            sampling: Some((&spec.sampling).into()),
            allow_forecast: spec.forecast,
            allow_guidance_decisions: spec.guidance_decisions,
            prompts: spec.prompts.iter().map(Into::into).collect(),
            measurement: Some((&spec.plan).into()),
            objectives: spec
                .objectives
                .iter()
                .map(|o| pb::Objective {
                    metric: o.metric.clone(),
                    direction: pb::Direction::from(o.direction).into(),
                    bound: o.bound,
                })
                .collect(),
            budget: Some((&spec.budget).into()),
            algorithm: Some(pb::Algorithm {
                strategy: strategy.into(),
                population: Some(spec.algorithm.population),
                crossover: Some(spec.algorithm.crossover),
                seeds: Some(spec.algorithm.seeds),
                remeasure: Some(spec.algorithm.remeasure),
                rungs: spec.algorithm.rungs.clone(),
            }),
            seed: spec.seed,
            labels: spec.labels.clone(),
            placement: Some(pb::Placement {
                priority: spec.placement.priority,
                weight: Some(spec.placement.weight),
                device: spec.placement.device.clone(),
                memory_bytes: spec.placement.memory_bytes,
                labels: spec.placement.labels.clone(),
            }),
            imported: spec.imported.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SearchSpec> for pb::SearchSpec {
    fn from(spec: &SearchSpec) -> Self {
        (&**spec).into()
    }
}
