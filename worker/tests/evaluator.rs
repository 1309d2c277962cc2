//! The evaluator on the bundled model: what it declares, what it measures, and how it refuses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{evaluator, evaluator_with, model_dir, random_schedule};
use evocache_proto::domain::{Calibration, Grid, Layout, Measurement, MeasurementPlan, Prompt, Sampling, Schedule};
use evocache_worker::evaluator::api::{CancelToken, Evaluate, EvaluateError, Task};
use evocache_worker::evaluator::pipeline::{BatchRequest, Pipeline};
use evocache_worker::picture::Picture;
use evocache_worker::samplers::SamplerOptions;
use std::num::NonZeroU32;
use std::sync::Arc;

fn calibration() -> Calibration {
    let texts = ["a red apple on a white background", "an owl on a pink background", "a pizza on a gray background"];
    Calibration {
        prompts: texts.iter().zip(0..).map(|(&text, seed)| Prompt { text: text.into(), seed }).collect(),
        sampling: Sampling {
            steps: vec![8, 5],
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        plan: MeasurementPlan { batch: 2, warmup: 1, repeats: 2, thumbnails: 1 },
    }
}

#[test]
fn a_measurement_is_complete_and_plausible() {
    let mut evaluator = evaluator();
    let declaration = evaluator.declaration();
    assert_eq!(declaration.check(), Ok(()));
    assert_eq!(declaration.model, "emoji");
    assert_eq!(declaration.layout, Layout::pixart(12).unwrap());
    let names: Vec<&str> = declaration.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["clip_score", "psnr"]);

    let (calibration, cancel) = (calibration(), CancelToken::new());
    let layout = Arc::new(declaration.layout);
    let baseline = Schedule::all_compute(layout.clone(), 8).unwrap();
    assert!(matches!(evaluator.evaluate(Task::whole(&baseline), &cancel), Err(EvaluateError::NotPrepared)));
    evaluator.prepare(&calibration, &cancel).unwrap();

    let uncached = evaluator.evaluate(Task::whole(&baseline), &cancel).unwrap();
    assert_eq!(uncached.check(&names, 3, 1), Ok(()));
    assert_eq!(uncached.metric("psnr").unwrap().values, [100.0; 3], "the uncached run is identical to itself");
    let clip = uncached.metric("clip_score").unwrap();
    assert!((clip.mean() - clip.baseline_mean).abs() < 1e-9);
    assert!(clip.values.iter().all(|&score| score > 0.7), "{clip:?}");
    assert_eq!((uncached.macs, uncached.peak_cache_bytes), (uncached.baseline_macs, 0));
    assert_eq!((uncached.latency_us.len(), uncached.baseline_latency_us.len()), (2, 2));
    assert_eq!(&uncached.thumbnails[0][1..4], b"PNG");

    let cached = random_schedule(&layout, 8, 3, 40, true);
    let [a, b] = [(); 2].map(|()| evaluator.evaluate(Task::whole(&cached), &cancel).unwrap());
    assert_eq!(a.metrics, b.metrics, "quality does not change between runs");
    assert!(a.macs < a.baseline_macs && a.peak_cache_bytes > 0);
    assert!(a.metric("psnr").unwrap().values.iter().all(|&db| db > 10.0 && db < 100.0), "{:?}", a.metrics);

    let fewer = Schedule::all_compute(layout, 5).unwrap();
    let fewer = evaluator.evaluate(Task::whole(&fewer), &cancel).unwrap();
    assert!(fewer.macs < fewer.baseline_macs && fewer.metric("psnr").unwrap().mean() < 60.0);
}

/// Runs of a step count with a grid give the same pictures as `generate` with that grid; all others use the folder's
/// settings.
#[test]
fn a_search_may_give_a_grid_per_step_count() {
    let (mut evaluator, cancel) = (evaluator(), CancelToken::new());
    let layout = evaluator.pipeline().layout().clone();
    let plain = Schedule::all_compute(layout.clone(), 5).unwrap();
    let as_it_is = calibration();
    let mut told = as_it_is.clone();
    let timesteps = vec![999, 732, 478, 243, 50];
    told.sampling.grids = vec![Grid { steps: 5, solver_order: Some(1), timesteps: timesteps.clone(), sigmas: vec![] }];
    let mut measured = |calibration: &Calibration, schedule: &Schedule| {
        evaluator.prepare(calibration, &cancel).unwrap();
        evaluator.evaluate(Task::whole(schedule), &cancel).unwrap()
    };
    let psnr = |measurement: &Measurement| measurement.metric("psnr").unwrap().mean();
    let (default, better) = (measured(&as_it_is, &plain), measured(&told, &plain));
    assert!(psnr(&better) > psnr(&default) + 3.0, "{} and {} dB", psnr(&better), psnr(&default));
    let baseline = Schedule::all_compute(layout, 8).unwrap();
    assert_eq!(measured(&told, &baseline).metrics, measured(&as_it_is, &baseline).metrics, "no grid for eight steps");
    assert_eq!(measured(&as_it_is, &plain).metrics, default.metrics, "the grid does not carry over to another search");

    let options = SamplerOptions { order: Some(1), timesteps: Some(timesteps), sigmas: None };
    let pipeline = Pipeline::load(&model_dir(), candle_core::Device::Cpu).unwrap().with_sampler(&options).unwrap();
    let texts = pipeline.encode(&[told.prompts[0].text.as_str(), ""]).unwrap();
    let request = BatchRequest {
        prompts: texts.batch(0, 1).unwrap(),
        negative: texts.batch(1, 1).unwrap(),
        size: pipeline.latent_size(None, None).unwrap(),
        seeds: &[told.prompts[0].seed],
        guidance: pipeline.guidance(3.0),
        schedule: &plain,
    };
    let drawn = pipeline.generate(&request, &cancel, &mut |_, _| ()).unwrap().pictures;
    let drawn = Picture::from_batch(&drawn, 0).unwrap().png().unwrap();
    let mut alone = told.clone();
    alone.plan.batch = 1;
    assert!(measured(&alone, &plain).thumbnails[0] == drawn, "another picture than with the same options");

    told.sampling.grids[0] = Grid { steps: 5, sigmas: vec![1.0, 0.8, 0.6, 0.4, 0.2], ..Grid::default() };
    let error = evaluator.prepare(&told, &cancel).unwrap_err();
    assert!(matches!(&error, EvaluateError::Calibration(why) if why.contains("sigmas")), "{error:?}");
}

#[test]
fn a_part_of_the_prompts_has_the_values_that_it_has_in_the_whole() {
    let (mut evaluator, cancel) = (evaluator(), CancelToken::new());
    let mut calibration = calibration();
    calibration.sampling.steps = vec![4];
    calibration.plan.thumbnails = 2;
    evaluator.prepare(&calibration, &cancel).unwrap();
    let schedule = random_schedule(evaluator.pipeline().layout(), 4, 3, 40, true);
    let task = Task::whole(&schedule);
    let mut part = |n| evaluator.evaluate(Task { prompts: NonZeroU32::new(n), ..task }, &cancel);
    let whole = part(0).unwrap();
    assert_eq!(whole.metrics, part(3).unwrap().metrics, "all of them are the whole");

    let two = part(2).unwrap();
    assert_eq!(two.check(&["clip_score", "psnr"], 2, 2), Ok(()));
    assert_eq!((two.latency_us.len(), two.thumbnails), (2, whole.thumbnails.clone()));
    for (part, whole) in two.metrics.iter().zip(&whole.metrics) {
        assert_eq!(part.values, whole.values[..2]);
    }

    // One prompt makes a smaller batch than in the whole, which adds in another order.
    let one = part(1).unwrap();
    assert_eq!(one.check(&["clip_score", "psnr"], 1, 2), Ok(()));
    assert_eq!((one.latency_us.len(), one.baseline_latency_us.len(), one.thumbnails.len()), (2, 2, 1));
    for (part, whole) in one.metrics.iter().zip(&whole.metrics) {
        let off = (part.values[0] / whole.values[0] - 1.0).abs();
        assert!(off < 1e-3, "{}: {} and {}", part.name, part.values[0], whole.values[0]);
    }

    let error = part(4).unwrap_err();
    assert!(matches!(error, EvaluateError::Prompts { wanted: 4, found: 3 }) && !error.is_retryable(), "{error:?}");
    assert_eq!(error.to_string(), "cannot evaluate the first 4 prompts: the calibration has 3");
}

#[test]
fn metrics_that_are_chosen_are_declared_and_measured_beside_the_usual_ones() {
    let clip = model_dir().join("clip");
    let chosen = |texts: &[String]| evaluator_with(texts.iter().map(|text| text.parse().unwrap()).collect());
    let mut evaluator = chosen(&["ssim".into(), format!("pick_score={}", clip.display())]).unwrap();
    let names: Vec<String> = evaluator.declaration().metrics.iter().map(|metric| metric.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, ["clip_score", "psnr", "ssim", "pick_score"]);
    assert_eq!(evaluator.declaration().check(), Ok(()));
    let mut calibration = calibration();
    calibration.sampling.steps = vec![4];
    evaluator.prepare(&calibration, &CancelToken::new()).unwrap();
    let schedule = random_schedule(evaluator.pipeline().layout(), 4, 3, 40, true);
    let measured = evaluator.evaluate(Task::whole(&schedule), &CancelToken::new()).unwrap();
    assert_eq!(measured.check(&names, 3, 1), Ok(()));
    let ssim = measured.metric("ssim").unwrap();
    assert!((ssim.baseline_mean - 1.0).abs() < 1e-9 && ssim.mean() < 0.99 && ssim.mean() > 0.0, "{ssim:?}");
    // The same CLIP, on its scale.
    let (pick, clip_score) = (measured.metric("pick_score").unwrap(), measured.metric("clip_score").unwrap());
    let scale = pick.values[0] / clip_score.values[0];
    for (pick, cosine) in pick.values.iter().zip(&clip_score.values) {
        assert!((pick / cosine / scale - 1.0).abs() < 1e-9 && scale > 1.0, "{pick} {cosine} {scale}");
    }

    let error = chosen(&["ssim".into(), "ssim".into()]).err().unwrap().to_string();
    assert_eq!(error, "metric 'ssim' is chosen twice");
    let error = chosen(&[format!("cmmd={}", clip.display())]).err().unwrap().to_string();
    assert!(error.starts_with("cmmd compares sets of pictures and has no value for one"), "{error}");
    // A metric that is chosen by name replaces the default one.
    let one = chosen(&[format!("clip_score={}", clip.display())]).unwrap().declaration();
    assert_eq!(one.metrics.iter().filter(|metric| metric.name == "clip_score").count(), 1);
}

#[test]
fn the_baseline_of_a_part_is_the_uncached_run_over_the_same_prompts() {
    let (mut evaluator, cancel) = (evaluator(), CancelToken::new());
    let mut calibration = calibration();
    calibration.sampling.steps = vec![4];
    calibration.plan = MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 };
    evaluator.prepare(&calibration, &cancel).unwrap();
    let uncached = Schedule::all_compute(evaluator.pipeline().layout().clone(), 4).unwrap();
    let mut means = vec![];
    for n in 1..=3 {
        let task = Task { prompts: NonZeroU32::new(n), ..Task::whole(&uncached) };
        let measured = evaluator.evaluate(task, &cancel).unwrap();
        let clip = measured.metric("clip_score").unwrap();
        assert_eq!(clip.baseline_mean, clip.mean(), "{n} prompts");
        means.push(clip.baseline_mean);
    }
    assert!(means[0] != means[1] && means[1] != means[2], "{means:?}");
}

#[test]
fn what_cannot_be_run_is_refused_and_a_cancelled_run_ends() {
    let mut evaluator = evaluator();
    let (cancel, set) = (CancelToken::new(), CancelToken::new());
    set.cancel();
    type Spoil = fn(&mut Calibration);
    let spoils: [(Spoil, &str); 4] = [
        (|c| c.prompts.clear(), "no prompts"),
        (|c| c.sampling.height = Some(65), "height 65 is not a multiple of 4"),
        (|c| c.sampling.width = Some(68), "height and width must be multiples of 8"),
        (|c| c.sampling.steps = vec![8, 1000], "1000 steps cannot be picked from 1000"),
    ];
    for (spoil, wanted) in spoils {
        let mut bad = calibration();
        spoil(&mut bad);
        let error = evaluator.prepare(&bad, &cancel).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
    assert!(matches!(evaluator.prepare(&calibration(), &set), Err(EvaluateError::Cancelled)));
    evaluator.prepare(&calibration(), &cancel).unwrap();
    evaluator.prepare(&calibration(), &set).expect("an equal calibration is ready already");

    let layout = Arc::new(evaluator.declaration().layout);
    let schedule = Schedule::all_compute(layout.clone(), 8).unwrap();
    assert!(matches!(evaluator.evaluate(Task::whole(&schedule), &set), Err(EvaluateError::Cancelled)));
    let seven = Schedule::all_compute(layout, 7).unwrap();
    let error = evaluator.evaluate(Task::whole(&seven), &cancel).unwrap_err();
    assert!(matches!(error, EvaluateError::Schedule(_)) && error.to_string().contains("7 steps"), "{error}");
    let other = Schedule::all_compute(Arc::new(Layout::pixart(3).unwrap()), 8).unwrap();
    let error = evaluator.evaluate(Task::whole(&other), &cancel).unwrap_err();
    assert!(matches!(error, EvaluateError::Schedule(_)) && error.to_string().contains("block*3["), "{error}");
}

#[test]
fn guidance_that_overflows_is_reported_as_not_finite() {
    let mut evaluator = evaluator();
    let mut calibration = calibration();
    calibration.sampling.guidance_scale = 1e38;
    let error = evaluator.prepare(&calibration, &CancelToken::new()).unwrap_err();
    assert!(matches!(error, EvaluateError::NotFinite { .. }), "{error}");
    assert!(error.to_string().contains("a red apple"), "{error}");
    assert!(!error.is_retryable());
}
