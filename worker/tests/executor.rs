//! The executor's guarantees: an all-compute run equals a plain forward to the last bit, runs repeat to the last bit,
//! and cache memory equals the prediction to the byte.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{assert_identical, copy_model, model_dir, pipeline, plain_forward, random_schedule, values};
use evocache_proto::domain::{Decision, Layout, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Generated, Pipeline};
use evocache_worker::executor::{Denoise, ExecuteError, Guidance};
use evocache_worker::models::block_model::{Conditioning, LatentSize, Prompts};
use std::sync::Arc;

const PROMPTS: [&str; 3] = ["a red apple on a white background", "an owl on a pink background", ""];
const SEEDS: [u64; 2] = [11, 12];
const STEPS: u32 = 8;

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
        let texts = pipeline.encode(&PROMPTS).unwrap();
        let (prompts, negative) = (texts.batch(0, 2).unwrap(), texts.repeated(2, 2).unwrap());
        Self { pipeline, prompts, negative, size }
    }

    fn run(&self, schedule: &Schedule, scale: f64, cancel: &CancelToken) -> Result<Generated, ExecuteError> {
        let request = BatchRequest {
            prompts: self.prompts.clone(),
            negative: self.negative.clone(),
            size: self.size,
            seeds: &SEEDS,
            guidance: Guidance::new(scale),
            schedule,
        };
        self.pipeline.generate(&request, cancel, &mut |_, _| ())
    }

    fn layout(&self) -> &Arc<Layout> {
        self.pipeline.layout()
    }
}

#[test]
fn all_compute_is_the_plain_forward_to_the_last_bit() {
    let bench = Bench::new();
    let schedule = Schedule::all_compute(bench.layout().clone(), STEPS).unwrap();
    for scale in [1.0, 3.0] {
        let model = bench.pipeline.transformer();
        let guided = scale > 1.0;
        let prompts = if guided { bench.negative.then(&bench.prompts).unwrap() } else { bench.prompts.clone() };
        let conditioning = Conditioning { prompts, guidance: None, size: bench.size };
        let bound = model.condition(&conditioning).unwrap();
        let mut sampler = bench.pipeline.sampler(STEPS, bench.size).unwrap();
        let mut latents = bench.pipeline.noise(&SEEDS, bench.size).unwrap();
        for (i, timestep) in sampler.timesteps().to_vec().into_iter().enumerate() {
            let output = if guided {
                let output = plain_forward(model, &*bound, &Tensor::cat(&[&latents, &latents], 0).unwrap(), timestep);
                let (u, c) = (output.narrow(0, 0, 2).unwrap(), output.narrow(0, 2, 2).unwrap());
                (&u + ((c - &u).unwrap() * scale).unwrap()).unwrap()
            } else {
                plain_forward(model, &*bound, &latents, timestep)
            };
            latents = sampler.step(i, &output, &latents).unwrap();
        }
        let generated = bench.run(&schedule, scale, &CancelToken::new()).unwrap();
        assert_identical(&generated.latents, &latents, "latents of executor and plain loop");
        assert_eq!(generated.trace.peak_cache_bytes, 0);
        assert_eq!(generated.trace.computed, u64::from(STEPS) * bench.layout().slots() as u64);
    }
}

#[test]
fn two_runs_of_any_schedule_are_identical_and_memory_is_as_predicted() {
    let bench = Bench::new();
    let fora = Schedule::from_fn(bench.layout().clone(), STEPS, |step, _| {
        if step % 3 == 0 { Decision::Compute } else { Decision::Reuse }
    });
    let forecasting = Schedule::from_fn(bench.layout().clone(), STEPS, |step, slot| match step {
        0 | 1 | 4 => Decision::Compute,
        _ if slot % 2 == 0 => Decision::Forecast,
        _ => Decision::Reuse,
    });
    let mut schedules = vec![fora.unwrap(), forecasting.unwrap()];
    schedules.extend((0..4).map(|seed| random_schedule(bench.layout(), STEPS, seed, 20 + 15 * seed, seed % 2 == 1)));
    for (i, schedule) in schedules.iter().enumerate() {
        for scale in [1.0, 3.0] {
            let [a, b] = [(); 2].map(|()| bench.run(schedule, scale, &CancelToken::new()).unwrap());
            assert_identical(&a.pictures, &b.pictures, "pictures of two runs");
            assert_eq!(a.trace, b.trace);
            let cost = bench.pipeline.cost(bench.size, Guidance::new(scale));
            assert_eq!(
                a.trace.peak_cache_bytes,
                schedule.peak_cache_bytes(&cost) * SEEDS.len() as u64,
                "schedule {i}, guidance {scale}"
            );
            assert_eq!(a.trace.computed, schedule.computed() as u64);
            let all = a.trace.computed + a.trace.reused + a.trace.forecast;
            assert_eq!(all, u64::from(STEPS) * schedule.slots() as u64);
        }
    }
}

#[test]
fn a_picture_does_not_depend_on_what_else_is_in_the_batch() {
    let bench = Bench::new();
    let schedule = random_schedule(bench.layout(), STEPS, 5, 40, true);
    let both = bench.run(&schedule, 3.0, &CancelToken::new()).unwrap();
    let request = BatchRequest {
        prompts: bench.prompts.batch(1, 1).unwrap(),
        negative: bench.negative.batch(1, 1).unwrap(),
        size: bench.size,
        seeds: &SEEDS[1..],
        guidance: Guidance::new(3.0),
        schedule: &schedule,
    };
    let alone = bench.pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ()).unwrap();
    let error = common::relative_error(&alone.latents, &both.latents.narrow(0, 1, 1).unwrap());
    assert!(error < 1e-5, "{error:e}");
}

/// Checks exact values of forecasts, with a model of one number per image whose output is a function of the timestep.
#[test]
fn a_forecast_continues_the_last_two_outputs_over_the_step_index() {
    use evocache_proto::domain::{CostModel, Slot};
    use evocache_worker::files::error::Result;
    use evocache_worker::files::weights::WeightSize;
    use evocache_worker::models::block_model::{Activations, BlockModel, Conditioned, Geometry, State};
    use evocache_worker::samplers::Sampler;

    struct Ramp(Arc<Layout>);
    struct Bound;
    struct Pass(f64, Tensor);
    struct Steps(Vec<f64>);

    impl BlockModel for Ramp {
        fn layout(&self) -> &Arc<Layout> {
            &self.0
        }
        fn latent_channels(&self) -> usize {
            1
        }
        fn image_tokens(&self, _: LatentSize) -> Result<usize> {
            Ok(1)
        }
        fn dtype(&self) -> DType {
            DType::F32
        }

        fn weight_size(&self) -> WeightSize {
            WeightSize::default()
        }
        fn cost(&self, _: &Geometry) -> CostModel {
            CostModel { slot_macs: vec![1; 3], slot_cache_bytes: vec![4; 3], step_macs: 0, image_macs: 0 }
        }
        fn activations(&self, _: &Geometry) -> Activations {
            Activations { shared: 0, per_image: 0, slots: vec![] }
        }
        fn condition<'a>(&'a self, _: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
            Ok(Box::new(Bound))
        }
    }
    impl Conditioned for Bound {
        fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
            Ok(Box::new(Pass(timestep, latents.zeros_like()?)))
        }
    }
    impl State for Pass {
        fn run(&self, slot: Slot) -> Result<Tensor> {
            // 10 t², only for the first component.
            let value = if slot.component == 0 { 10.0 * self.0 * self.0 } else { 0.0 };
            Ok((self.1.zeros_like()? + value)?)
        }
        fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
            if slot.component == 0 {
                self.1 = output.clone();
            }
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<Tensor> {
            Ok(self.1)
        }
    }
    impl Sampler for Steps {
        fn timesteps(&self) -> &[f64] {
            &self.0
        }
        fn initial_scale(&self) -> f64 {
            1.0
        }
        fn step(&mut self, _: usize, output: &Tensor, _: &Tensor) -> Result<Tensor> {
            Ok(output.clone())
        }
    }

    let model = Ramp(Arc::new(Layout::pixart(1).unwrap()));
    let decisions = ['C', 'R', 'C', 'F', 'F', 'C', 'F', 'R'];
    let schedule = Schedule::from_fn(model.0.clone(), 8, |step, slot| {
        if slot == 0 { Decision::from_letter(decisions[step as usize]).unwrap() } else { Decision::Compute }
    })
    .unwrap();
    let size = LatentSize { height: 1, width: 1, scale: 1 };
    let noise = Tensor::zeros((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    let conditioning = Conditioning { prompts: Prompts::default(), guidance: None, size };
    let denoise = Denoise {
        model: &model,
        conditioning: &conditioning,
        guidance: Guidance::new(1.0),
        schedule: &schedule,
        cancel: &CancelToken::new(),
    };
    let mut seen = vec![];
    let mut steps = Steps((0..8).map(f64::from).collect());
    denoise.run(&mut steps, &noise, &mut |_: u32, latents: &Tensor| seen.push(values(latents)[0])).unwrap();
    // Computed 0 and 40 at steps 0 and 2: slope 20 per step. Computed 250 at step 5: slope (250 - 40) / 3 = 70.
    assert_eq!(seen, [0.0, 0.0, 40.0, 60.0, 80.0, 250.0, 320.0, 250.0]);
}

#[test]
fn a_run_stops_at_the_next_step_when_asked() {
    let bench = Bench::new();
    let schedule = Schedule::all_compute(bench.layout().clone(), STEPS).unwrap();
    let cancel = CancelToken::new();
    let request = BatchRequest {
        prompts: bench.prompts.clone(),
        negative: bench.negative.clone(),
        size: bench.size,
        seeds: &SEEDS,
        guidance: Guidance::new(3.0),
        schedule: &schedule,
    };
    let mut last = 0;
    let result = bench.pipeline.generate(&request, &cancel, &mut |step, _| {
        last = step;
        if step == 2 {
            cancel.cancel();
        }
    });
    assert!(matches!(result, Err(ExecuteError::Cancelled { step: 3 })));
    assert_eq!(last, 2);
}

#[test]
fn a_schedule_for_another_model_is_refused() {
    let bench = Bench::new();
    let schedule = Schedule::all_compute(Arc::new(Layout::pixart(28).unwrap()), STEPS).unwrap();
    let error = bench.run(&schedule, 3.0, &CancelToken::new()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("block*28[attn1,attn2,ff]") && text.contains("block*12[attn1,attn2,ff]"), "{text}");
}

#[test]
fn the_model_folder_is_read_only_through_its_configs() {
    // No code may depend on the bundled model's name: a renamed copy gives the same results.
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("another-name");
    copy_model(&model_dir(), &copy);
    let other = Pipeline::load(&copy, Device::Cpu).unwrap();
    assert_eq!(other.folder().name(), "another-name");
    assert_eq!(
        other.folder().fingerprint().unwrap(),
        pipeline().folder().fingerprint().unwrap(),
        "the fingerprint is of the content"
    );
}
