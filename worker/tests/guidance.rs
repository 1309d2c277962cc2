//! Schedules with guidance decisions, against two separate passes written by hand: each has its own stored outputs, and
//! the unconditional one is absent where the schedule leaves it out.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use candle_core::Tensor;
use common::{assert_identical, pipeline, random_schedule, relative_error};
use evocache_proto::domain::{Decision, GuidanceDecision, Layout, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Generated, Pipeline};
use evocache_worker::executor::{ExecuteError, Guidance};
use evocache_worker::models::block_model::{Conditioned, Conditioning, LatentSize, Prompts};

const SEEDS: [u64; 2] = [11, 12];
const SCALE: f64 = 3.0;

struct Bench {
    pipeline: Pipeline,
    prompts: Prompts,
    negative: Prompts,
    size: LatentSize,
}

impl Bench {
    fn new() -> Self {
        let pipeline = pipeline();
        let size = pipeline.latent_size(None, None).unwrap();
        let texts = pipeline.encode(&["a red apple on a white background", "an owl on a pink background", ""]).unwrap();
        let (prompts, negative) = (texts.batch(0, 2).unwrap(), texts.repeated(2, 2).unwrap());
        Self { pipeline, prompts, negative, size }
    }

    fn layout(&self) -> &Arc<Layout> {
        self.pipeline.layout()
    }

    fn run(&self, schedule: &Schedule, scale: f64) -> Result<Generated, ExecuteError> {
        let request = BatchRequest {
            prompts: self.prompts.clone(),
            negative: self.negative.clone(),
            size: self.size,
            seeds: &SEEDS,
            guidance: Guidance::new(scale),
            schedule,
        };
        self.pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ())
    }

    /// The latents by two separate passes.
    fn by_hand(&self, schedule: &Schedule) -> Tensor {
        let bind = |prompts: &Prompts| Conditioning { prompts: prompts.clone(), guidance: None, size: self.size };
        let (with, without) = (bind(&self.prompts), bind(&self.negative));
        let model = self.pipeline.transformer();
        let (with, without) = (model.condition(&with).unwrap(), model.condition(&without).unwrap());
        let mut sampler = self.pipeline.sampler(schedule.steps(), self.size).unwrap();
        let mut latents = self.pipeline.noise(&SEEDS, self.size).unwrap();
        let mut stored = [(); 2].map(|()| vec![Vec::<(u32, Tensor)>::new(); schedule.slots()]);
        let mut kept = None;
        for (i, timestep) in sampler.timesteps().to_vec().into_iter().enumerate() {
            let step = i as u32;
            let mut pass = |bound: &dyn Conditioned, lane: usize| {
                forward(bound, schedule, step, &latents, timestep, &mut stored[lane])
            };
            let c = pass(&*with, 0);
            let guided = match schedule.guidance(step) {
                GuidanceDecision::Both => {
                    let difference = (&c - pass(&*without, 1)).unwrap();
                    let guided = (&c + (&difference * (SCALE - 1.0)).unwrap()).unwrap();
                    kept = Some(difference);
                    guided
                }
                GuidanceDecision::Conditional => c,
                GuidanceDecision::Kept => (c + (kept.as_ref().unwrap() * (SCALE - 1.0)).unwrap()).unwrap(),
            };
            latents = sampler.step(i, &guided, &latents).unwrap();
        }
        latents
    }
}

/// One pass at one step. `stored` has every output computed so far, by slot.
fn forward(
    bound: &dyn Conditioned,
    schedule: &Schedule,
    step: u32,
    latents: &Tensor,
    timestep: f64,
    stored: &mut [Vec<(u32, Tensor)>],
) -> Tensor {
    let mut state = bound.prepare(latents, timestep).unwrap();
    for (index, stored) in stored.iter_mut().enumerate() {
        let slot = schedule.layout().slot(index);
        let output = match (schedule.decision(step, index), stored.as_slice()) {
            (Decision::Compute, _) => {
                stored.push((step, state.run(slot).unwrap()));
                stored.last().unwrap().1.clone()
            }
            (Decision::Forecast, [.., (t0, y0), (t1, y1)]) => {
                let factor = f64::from(step - t1) / f64::from(t1 - t0);
                (y1 + ((y1 - y0).unwrap() * factor).unwrap()).unwrap()
            }
            (_, [.., (_, newest)]) => newest.clone(),
            (_, []) => panic!("step 0 computes"),
        };
        state.combine(slot, &output).unwrap();
    }
    state.finish().unwrap()
}

fn guided(schedule: Schedule, letters: &str) -> Schedule {
    let letters: Vec<char> = letters.chars().collect();
    schedule.with_guidance(|step| GuidanceDecision::from_letter(letters[step as usize]).unwrap())
}

#[test]
fn any_schedule_does_what_two_passes_by_hand_do_in_the_memory_that_was_predicted() {
    let bench = Bench::new();
    let all = Schedule::all_compute(bench.layout().clone(), 8).unwrap();
    let mut schedules: Vec<Schedule> =
        ["BBBBBBBB", "BBBBCCCC", "BCBCBKKB", "BKKKKKKK"].map(|letters| guided(all.clone(), letters)).into();
    for seed in 0..4 {
        let reuse = random_schedule(bench.layout(), 8, seed, 20 + 20 * seed, seed % 2 == 1);
        for letters in ["BBCCBBKB", "BCCBKCBC"] {
            schedules.push(guided(reuse.clone(), letters));
        }
    }
    for schedule in &schedules {
        let letters: String = (0..8).map(|step| schedule.guidance(step).letter()).collect();
        let run = bench.run(schedule, SCALE).unwrap();
        let error = relative_error(&run.latents, &bench.by_hand(schedule));
        assert!(error < 2e-5, "{letters}, {schedule:?}: {error:e}");
        let cost = bench.pipeline.cost(bench.size, Guidance::new(SCALE));
        assert_eq!(run.trace.peak_cache_bytes, 2 * schedule.peak_cache_bytes(&cost), "{letters}, {schedule:?}");
        assert_identical(&run.pictures, &bench.run(schedule, SCALE).unwrap().pictures, "pictures of two runs");
    }
}

#[test]
fn guidance_decisions_without_classifier_free_guidance_are_refused() {
    let bench = Bench::new();
    let schedule = guided(Schedule::all_compute(bench.layout().clone(), 4).unwrap(), "BBCC");
    let error = bench.run(&schedule, 1.0).err().unwrap();
    assert!(matches!(error, ExecuteError::Unguided), "{error}");
}
