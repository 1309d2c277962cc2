//! The calibration profile of the bundled model against changes that a plain loop computes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroU32;

use candle_core::Tensor;
use common::{evaluator, random_schedule, values};
use evocache_proto::domain::{Calibration, MeasurementPlan, Profile, Prompt, Sampling, Schedule};
use evocache_worker::evaluator::DiffusionEvaluator;
use evocache_worker::evaluator::api::{CancelToken, Evaluate, Task};
use evocache_worker::evaluator::pipeline::Pipeline;
use evocache_worker::models::block_model::Conditioning;

const GUIDANCE: f64 = 3.0;

fn calibration(steps: &[u32]) -> Calibration {
    let texts = ["a red apple on a white background", "an owl on a pink background", "a pizza on a gray background"];
    Calibration {
        prompts: texts.iter().zip(5..).map(|(&text, seed)| Prompt { text: text.into(), seed }).collect(),
        sampling: Sampling {
            steps: steps.to_vec(),
            guidance_scale: GUIDANCE,
            height: None,
            width: None,
            negative_prompt: "a face".into(),
            grids: vec![],
        },
        plan: MeasurementPlan { batch: 2, warmup: 0, repeats: 1, thumbnails: 0 },
    }
}

/// Every slot's output at every step of a plain guided run of one image: `[step][slot]`.
fn outputs(pipeline: &Pipeline, calibration: &Calibration, prompt: usize, steps: u32) -> Vec<Vec<Vec<f32>>> {
    let model = pipeline.transformer();
    let size = pipeline.latent_size(None, None).unwrap();
    let Prompt { text, seed } = &calibration.prompts[prompt];
    let texts = pipeline.encode(&[&calibration.sampling.negative_prompt, text]).unwrap();
    let bound = model.condition(&Conditioning { prompts: texts, guidance: None, size }).unwrap();
    let mut sampler = pipeline.sampler(steps, size).unwrap();
    let mut latents = pipeline.noise(&[*seed], size).unwrap();
    let mut outputs = vec![];
    for (step, timestep) in sampler.timesteps().to_vec().into_iter().enumerate() {
        let mut state = bound.prepare(&Tensor::cat(&[&latents, &latents], 0).unwrap(), timestep).unwrap();
        let slots = (0..model.layout().slots()).map(|index| {
            let slot = model.layout().slot(index);
            let output = state.run(slot).unwrap();
            state.combine(slot, &output).unwrap();
            values(&output)
        });
        outputs.push(slots.collect());
        let output = state.finish().unwrap();
        let (u, c) = (output.narrow(0, 0, 1).unwrap(), output.narrow(0, 1, 1).unwrap());
        let guided = (&u + ((c - &u).unwrap() * GUIDANCE).unwrap()).unwrap();
        latents = sampler.step(step, &guided, &latents).unwrap();
    }
    outputs
}

fn change(new: &[f32], old: &[f32]) -> f64 {
    let (mut difference, mut size) = (0.0, 0.0);
    for (&new, &old) in new.iter().zip(old) {
        difference += (f64::from(new) - f64::from(old)).abs();
        size += f64::from(new).abs();
    }
    difference / size
}

fn profile(evaluator: &mut DiffusionEvaluator, schedule: &Schedule, prompts: u32) -> Option<Profile> {
    let task = Task { schedule, prompts: NonZeroU32::new(prompts), profile: true };
    evaluator.evaluate(task, &CancelToken::new()).unwrap().profile
}

#[test]
fn a_profile_is_the_mean_change_of_each_slot_in_the_uncached_run() {
    let (mut evaluator, calibration) = (evaluator(), calibration(&[4]));
    evaluator.prepare(&calibration, &CancelToken::new()).unwrap();
    let layout = evaluator.pipeline().layout().clone();
    let schedule = random_schedule(&layout, 4, 3, 40, true);
    let found = profile(&mut evaluator, &schedule, 2).unwrap();
    assert_eq!((found.steps(), found.lags(), found.slots()), (4, 3, layout.slots()));

    let plain = [0, 1].map(|prompt| outputs(evaluator.pipeline(), &calibration, prompt, 4));
    for (step, slot, lag) in [(1, 0, 1), (2, 1, 1), (3, 2, 1), (2, 16, 2), (3, 35, 2), (3, 20, 3)] {
        let expected = plain.iter().map(|run| change(&run[step][slot], &run[step - lag][slot])).sum::<f64>() / 2.0;
        let measured = f64::from(found.change(step as u32, slot, lag as u32).unwrap());
        let off = (measured / expected - 1.0).abs();
        assert!(expected > 1e-3 && off < 1e-5, "step {step}, slot {slot}, lag {lag}: {measured}, not {expected}");
    }
    for lag in 1..=3usize {
        for step in 0..4 {
            let first = ((lag - 1) * 4 + step) * layout.slots();
            let row = &found.changes()[first..first + layout.slots()];
            assert!(row.iter().all(|&change| change.is_finite() && (change > 0.0) == (step >= lag)), "{step} {lag}");
        }
    }

    let uncached = Schedule::all_compute(layout, 4).unwrap();
    assert_eq!(profile(&mut evaluator, &uncached, 2).unwrap(), found, "independent of the schedule, and reproducible");
    assert_ne!(profile(&mut evaluator, &uncached, 0).unwrap(), found, "a third prompt changes the mean");
    let task = Task { profile: false, prompts: NonZeroU32::new(1), ..Task::whole(&uncached) };
    assert_eq!(evaluator.evaluate(task, &CancelToken::new()).unwrap().profile, None, "no profile was requested");
}

#[test]
fn a_profile_has_the_steps_of_the_schedule_and_a_single_step_has_none() {
    let mut evaluator = evaluator();
    evaluator.prepare(&calibration(&[7, 2, 1]), &CancelToken::new()).unwrap();
    let layout = evaluator.pipeline().layout().clone();
    for (steps, expected) in [(7, Some((7, 5))), (2, Some((2, 1))), (1, None)] {
        let schedule = Schedule::all_compute(layout.clone(), steps).unwrap();
        let found = profile(&mut evaluator, &schedule, 1).map(|profile| (profile.steps(), profile.lags()));
        assert_eq!(found, expected);
    }
}
