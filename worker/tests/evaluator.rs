//! The evaluator on the bundled model: what it declares, what it measures, and how it refuses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{model_dir, random_schedule};
use evocache_proto::domain::{Calibration, Layout, MeasurementPlan, Prompt, Sampling, Schedule};
use evocache_worker::evaluator::api::{CancelToken, Evaluate, EvaluateError};
use evocache_worker::evaluator::device::DeviceChoice;
use evocache_worker::evaluator::{DiffusionEvaluator, EvaluatorOptions};
use std::sync::Arc;

fn evaluator() -> DiffusionEvaluator {
    DiffusionEvaluator::open(&EvaluatorOptions {
        model: model_dir(),
        model_name: None,
        worker_name: "test".into(),
        device: DeviceChoice::Cpu,
        clip: None,
    })
    .unwrap()
}

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
        },
        plan: MeasurementPlan { batch: 2, warmup: 1, repeats: 2, thumbnails: 1 },
    }
}

#[test]
fn a_measurement_is_complete_and_believable() {
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
    assert!(matches!(evaluator.evaluate(&baseline, &cancel), Err(EvaluateError::NotPrepared)));
    evaluator.prepare(&calibration, &cancel).unwrap();

    let uncached = evaluator.evaluate(&baseline, &cancel).unwrap();
    assert_eq!(uncached.check(&names, 3, 1), Ok(()));
    assert_eq!(uncached.metric("psnr").unwrap().values, [100.0; 3], "the uncached run is identical to itself");
    let clip = uncached.metric("clip_score").unwrap();
    assert!((clip.mean() - clip.baseline_mean).abs() < 1e-9);
    assert!(clip.values.iter().all(|&score| score > 0.7), "{clip:?}");
    assert_eq!((uncached.macs, uncached.peak_cache_bytes), (uncached.baseline_macs, 0));
    assert_eq!((uncached.latency_us.len(), uncached.baseline_latency_us.len()), (2, 2));
    assert_eq!(&uncached.thumbnails[0][1..4], b"PNG");

    let cached = random_schedule(&layout, 8, 3, 40, true);
    let [a, b] = [(); 2].map(|()| evaluator.evaluate(&cached, &cancel).unwrap());
    assert_eq!(a.metrics, b.metrics, "quality does not change between runs");
    assert!(a.macs < a.baseline_macs && a.peak_cache_bytes > 0);
    assert!(a.metric("psnr").unwrap().values.iter().all(|&db| db > 10.0 && db < 100.0), "{:?}", a.metrics);

    let fewer = Schedule::all_compute(layout, 5).unwrap();
    let fewer = evaluator.evaluate(&fewer, &cancel).unwrap();
    assert!(fewer.macs < fewer.baseline_macs && fewer.metric("psnr").unwrap().mean() < 60.0);
}

#[test]
fn what_cannot_be_run_is_refused_and_a_cancelled_run_ends() {
    let mut evaluator = evaluator();
    let (cancel, set) = (CancelToken::new(), CancelToken::new());
    set.cancel();
    type Spoil = fn(&mut Calibration);
    let spoils: [(Spoil, &str); 4] = [
        (|c| c.prompts.clear(), "no prompts"),
        (|c| c.sampling.height = Some(65), "height 65 is no multiple of 4"),
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
    assert!(matches!(evaluator.evaluate(&schedule, &set), Err(EvaluateError::Cancelled)));
    let seven = Schedule::all_compute(layout, 7).unwrap();
    let error = evaluator.evaluate(&seven, &cancel).unwrap_err();
    assert!(matches!(error, EvaluateError::Schedule(_)) && error.to_string().contains("7 steps"), "{error}");
    let other = Schedule::all_compute(Arc::new(Layout::pixart(3).unwrap()), 8).unwrap();
    let error = evaluator.evaluate(&other, &cancel).unwrap_err();
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
