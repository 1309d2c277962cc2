//! From a request to a run: which size, steps, guidance and schedule, whether the model can take them, and what the
//! answer says about the schedule.

use std::sync::{Arc, PoisonError, RwLock};

use evocache_proto::domain::{Grid, Schedule, ScheduleId};

use super::plan::Plan;
use super::refusal::Refusal;
use super::request::Wanted;
use crate::evaluator::pipeline::Pipeline;
use crate::executor::Guidance;
use crate::models::block_model::LatentSize;

/// Pictures of the same kind may share a batch, and take the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    height: usize,
    width: usize,
    guidance: u64,
    schedule: ScheduleId,
}

/// What the headers say about the schedule of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    /// The id of the schedule, or `none`.
    pub(super) schedule: String,
    pub(super) speedup: Option<String>,
    pub(super) quality: Option<String>,
    pub(super) why: String,
}

/// A run of the model.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) size: LatentSize,
    pub(super) guidance: Guidance,
    pub(super) schedule: Arc<Schedule>,
    /// Multiply-accumulates per picture.
    pub(super) macs: u64,
    /// Most pictures that fit in memory together.
    pub(super) together: usize,
    pub(super) told: Told,
}

/// Settings of requests that do not give them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults {
    /// Denoising steps; `None`: the schedule's, or 20.
    pub steps: Option<u32>,
    /// Guidance scale; `None`: the one that the schedule was measured at, or 4.5.
    pub guidance: Option<f64>,
}

/// Most multiply-accumulates of a picture, as in a search; sums of them fit in 64 bits.
const MOST_MACS: f64 = 1e18;
/// Steps and guidance where neither the request, the server nor the schedule say anything; as in `generate`.
const STEPS: u32 = 20;
const GUIDANCE: f64 = 4.5;

/// The loaded model, and the schedule in use.
pub(super) struct Scene {
    /// The model's name in the API.
    pub(super) name: String,
    pipeline: Arc<Pipeline>,
    plan: RwLock<Option<Arc<Plan>>>,
    defaults: Defaults,
    /// Bytes that a run may take.
    memory: Option<u64>,
    /// Most pictures in a batch.
    batch: usize,
}

impl Scene {
    pub(super) fn new(
        name: String,
        pipeline: Arc<Pipeline>,
        plan: Option<Arc<Plan>>,
        defaults: Defaults,
        memory: Option<u64>,
        batch: usize,
    ) -> Self {
        Self { name, pipeline, plan: RwLock::new(plan), defaults, memory, batch }
    }

    /// The schedule in use.
    pub(super) fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs this schedule from the next request on. `grids` are those of its search.
    pub(super) fn replace(&self, plan: Plan, grids: &[Grid]) -> Result<(), String> {
        let (found, expected) = (plan.schedule.layout(), self.pipeline.layout());
        if found != expected {
            return Err(format!("it is for a model with layout {found}, but this model has {expected}"));
        }
        self.pipeline.sample_on(grids).map_err(|e| e.to_string())?;
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(plan));
        Ok(())
    }

    /// The run for a request.
    pub(super) fn run(&self, wanted: &Wanted) -> Result<Run, Refusal> {
        let plan = self.plan();
        let (pipeline, planned) = (&*self.pipeline, plan.as_deref());
        let measured_at = planned.and_then(|plan| plan.measured_at.as_ref());
        let steps = wanted.steps.or(self.defaults.steps).or(planned.map(|plan| plan.schedule.steps()));
        let steps = steps.unwrap_or(STEPS);
        let scale = wanted.guidance.or(self.defaults.guidance).or(measured_at.map(|at| at.guidance));
        let scale = scale.unwrap_or(GUIDANCE);
        let asked = match wanted.size {
            Some((height, width)) => (Some(height), Some(width)),
            None => measured_at.map_or((None, None), |at| (at.height, at.width)),
        };
        let unfit = |param: &str, problem: String| Refusal::invalid(param, "does_not_fit_the_model", problem);
        let size = pipeline.latent_size(asked.0, asked.1).map_err(|e| unfit("size", e.to_string()))?;
        let sampler = pipeline.sampler(steps, size).map_err(|e| unfit("num_inference_steps", e.to_string()))?;
        if sampler.timesteps().len() != steps as usize {
            let problem = format!("the sampler makes {} steps of {steps}", sampler.timesteps().len());
            return Err(unfit("num_inference_steps", problem));
        }
        let (schedule, told) = match choose(pipeline, planned, wanted, steps, scale, size)? {
            Ok(plan) => (plan.schedule.clone(), Told::of(plan)),
            Err(why) => {
                let uncached = Schedule::all_compute(pipeline.layout().clone(), steps);
                let uncached = uncached.map_err(|e| unfit("num_inference_steps", e.to_string()))?;
                (Arc::new(uncached), Told::uncached(why))
            }
        };
        let guidance = pipeline.guidance(scale);
        let cost = pipeline.cost(size, guidance);
        let memory = pipeline.memory(size, guidance);
        let fits = |count: usize| self.memory.is_none_or(|room| memory.peak(&schedule, &cost, count as u64) <= room);
        let Some(together) = (1..=self.batch).rev().find(|count| fits(*count)) else {
            let needed = memory.peak(&schedule, &cost, 1) >> 20;
            let room = self.memory.unwrap_or(0) >> 20;
            let problem = format!("a picture of this size needs about {needed} MiB, but there are {room} MiB");
            return Err(Refusal::invalid("size", "needs_too_much_memory", problem));
        };
        let step = cost.slot_macs.iter().chain([&cost.step_macs]).map(|macs| *macs as f64).sum::<f64>();
        if step * f64::from(steps) + cost.image_macs as f64 > MOST_MACS {
            let problem = "a picture of this size and so many steps takes too long on any device";
            return Err(Refusal::invalid("size", "too_much_work", problem));
        }
        let kind = Kind { height: size.height, width: size.width, guidance: scale.to_bits(), schedule: schedule.id() };
        Ok(Run { kind, size, guidance, macs: schedule.macs(&cost), schedule, together, told })
    }
}

/// The plan, or why the run is uncached.
fn choose<'a>(
    pipeline: &Pipeline,
    plan: Option<&'a Plan>,
    wanted: &Wanted,
    steps: u32,
    scale: f64,
    size: LatentSize,
) -> Result<Result<&'a Plan, String>, Refusal> {
    let Some(plan) = plan else { return Ok(Err("uncached: the server has no schedule".into())) };
    if !wanted.cached {
        return Ok(Err("uncached: the request asks for it".into()));
    }
    let made = plan.schedule.steps();
    if made != steps {
        return Ok(Err(format!("uncached: the schedule is for {made} steps, the request for {steps}")));
    }
    if plan.schedule.decides_guidance() && !pipeline.guidance(scale).is_on() {
        return Ok(Err("uncached: the schedule leaves out passes of the guidance, the request has none".into()));
    }
    let Some(at) = &plan.measured_at else { return Ok(Ok(plan)) };
    if at.guidance != scale {
        let made = at.guidance;
        return Ok(Err(format!("uncached: the schedule was measured at guidance {made}, the request has {scale}")));
    }
    let native = pipeline.latent_size(at.height, at.width).map_err(|e| Refusal::failed(e.to_string()))?;
    if native != size {
        let side = |latent: usize| latent * size.scale;
        return Ok(Err(format!(
            "uncached: the schedule was measured at {}x{} pixels, the request has {}x{}",
            side(native.width),
            side(native.height),
            side(size.width),
            side(size.height)
        )));
    }
    Ok(Ok(plan))
}

impl Told {
    fn of(plan: &Plan) -> Self {
        Self {
            schedule: plan.schedule.id().to_string(),
            speedup: plan.figures.speedup_header(),
            quality: plan.figures.quality_header(),
            why: plan.why.clone(),
        }
    }

    fn uncached(why: String) -> Self {
        Self { schedule: "none".into(), speedup: None, quality: None, why }
    }
}
