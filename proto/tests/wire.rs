//! Round trips of domain types through messages, the bytes on the wire, and invalid messages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Algorithm, Budget, Calibration, CostModel, Decision, Declaration, Direction, Grid, Imported, Layout, Measurement,
    MeasurementPlan, MetricDeclaration, MetricValues, ModelRef, Objective, Placement, Profile, Prompt, Sampling,
    Schedule, SpecDraft, Strategy,
};
use evocache_proto::{pb, wire};
use proptest::prelude::*;
use prost::Message;

fn layout() -> Arc<Layout> {
    Arc::new(Layout::flux(1, 2).unwrap())
}

fn fora(steps: u32) -> Schedule {
    Schedule::from_fn(layout(), steps, |step, _| if step % 3 == 0 { Decision::Compute } else { Decision::Reuse })
        .unwrap()
}

fn spec() -> SpecDraft {
    SpecDraft {
        model: ModelRef { name: "flux".into(), fingerprint: Some("abc".into()) },
        sampling: Sampling {
            steps: vec![20, 12],
            guidance_scale: 3.5,
            height: Some(256),
            width: None,
            negative_prompt: "blurry".into(),
            grids: vec![
                Grid { steps: 12, solver_order: Some(1), timesteps: (0..12).rev().collect(), sigmas: vec![] },
                Grid { steps: 20, sigmas: (1..21).rev().map(|i| f64::from(i) / 20.0).collect(), ..Grid::default() },
            ],
        },
        forecast: true,
        guidance_decisions: true,
        prompts: [u64::MAX, 3].map(|seed| Prompt { text: "an owl".into(), seed }).into(),
        plan: MeasurementPlan { batch: 4, warmup: 1, repeats: 3, thumbnails: 2 },
        objectives: vec![
            Objective { metric: "latency_ratio".into(), direction: Direction::Minimize, bound: None },
            Objective { metric: "clip_score".into(), direction: Direction::Maximize, bound: Some(0.5) },
        ],
        budget: Budget {
            evaluations: Some(500),
            wall_time: Some(Duration::from_millis(1500)),
            device_time: Some(Duration::from_secs(7200)),
            stagnation: Some(40),
        },
        algorithm: Algorithm {
            strategy: Strategy::Nsga2,
            population: 24,
            crossover: 0.5,
            seeds: false,
            remeasure: false,
            rungs: vec![1],
        },
        seed: 7,
        labels: BTreeMap::from([("team".into(), "images".into())]),
        placement: Placement {
            priority: -1,
            weight: 7,
            device: "h100".into(),
            memory_bytes: 40 << 30,
            labels: BTreeMap::from([("zone".into(), "a".into())]),
        },
        imported: vec![Imported { name: "fora".into(), schedule: fora(12) }],
    }
}

#[test]
fn a_specification_survives_the_wire() {
    let message = pb::SearchSpec::from(&spec());
    let bytes = message.encode_to_vec();
    let back = wire::spec_draft(&pb::SearchSpec::decode(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(back, spec());
    assert_eq!(*wire::search_spec(&message).unwrap(), spec());
}

#[test]
fn settings_that_are_absent_have_their_defaults() {
    let mut message = pb::SearchSpec::from(&spec());
    message.algorithm = None;
    assert_eq!(wire::spec_draft(&message).unwrap().algorithm, Algorithm::default());
    message.algorithm = Some(pb::Algorithm { population: Some(9), ..pb::Algorithm::default() });
    let algorithm = wire::spec_draft(&message).unwrap().algorithm;
    assert_eq!(algorithm, Algorithm { population: 9, ..Algorithm::default() });
}

#[test]
fn a_wrong_specification_names_the_field() {
    type Spoil = fn(&mut pb::SearchSpec);
    let spoils: [(Spoil, &str); 8] = [
        (|s| s.model = None, "model"),
        (|s| s.sampling = None, "sampling"),
        (|s| s.measurement = None, "measurement"),
        (|s| s.budget = None, "budget"),
        (|s| s.objectives[1].direction = 0, "objectives[1].direction"),
        (|s| s.budget.as_mut().unwrap().wall_time.as_mut().unwrap().seconds = -1, "budget.wall_time"),
        (|s| s.imported[0].layout = None, "imported[0].layout"),
        (|s| s.algorithm.as_mut().unwrap().strategy = 99, "algorithm.strategy"),
    ];
    for (spoil, field) in spoils {
        let mut message = pb::SearchSpec::from(&spec());
        spoil(&mut message);
        assert_eq!(wire::spec_draft(&message).unwrap_err().field(), field);
    }
}

#[test]
fn a_declaration_survives_the_wire() {
    let layout = Layout::pixart(2).unwrap();
    let slots = layout.slots();
    let declaration = Declaration {
        name: "node-1/0".into(),
        device: "cpu".into(),
        software: "evocache-worker 0.1.0".into(),
        model: "emoji".into(),
        fingerprint: "f00".into(),
        layout,
        forecast: true,
        guidance_decisions: true,
        profiles: true,
        grids: false,
        memory_bytes: 80 << 30,
        labels: BTreeMap::from([("zone".into(), "a".into())]),
        metrics: vec![MetricDeclaration {
            name: "clip_score".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "cosine".into(),
        }],
        cost: Some(CostModel {
            slot_macs: vec![3; slots],
            slot_cache_bytes: vec![4; slots],
            step_macs: 5,
            image_macs: 6,
        }),
    };
    let mut message = wire::register_request("r-1".into(), &declaration);
    assert_eq!(message.protocol_version, evocache_proto::PROTOCOL_VERSION);
    assert_eq!(wire::declaration(&message).unwrap(), declaration);
    message.cost.as_mut().unwrap().slot_macs.pop();
    assert_eq!(wire::declaration(&message).unwrap_err().field(), "cost");
    message.layout = None;
    assert_eq!(wire::declaration(&message).unwrap_err().field(), "layout");
}

#[test]
fn calibration_and_measurement_survive_the_wire() {
    let SpecDraft { prompts, sampling, plan, .. } = spec();
    let calibration = Calibration { prompts, sampling, plan };
    assert_eq!(wire::calibration(&wire::calibration_response(&calibration)).unwrap(), calibration);
    let measurement = Measurement {
        metrics: vec![MetricValues { name: "clip_score".into(), values: vec![0.25, -1.5], baseline_mean: 0.5 }],
        latency_us: vec![1.5, 2.5],
        baseline_latency_us: vec![3.0],
        macs: u64::MAX,
        baseline_macs: 2,
        peak_cache_bytes: 3,
        device_time: Duration::from_micros(1_234_567),
        disturbed: 7,
        thumbnails: vec![vec![1, 2, 3]],
        profile: Some(Profile::new(3, 1, vec![0.5; 6]).unwrap()),
    };
    assert_eq!(wire::measurement(&pb::Measurement::from(&measurement)).unwrap(), measurement);
}

#[test]
fn the_bytes_of_a_schedule_do_not_change() {
    // Golden bytes: stored schedules and ids stay readable only while these do not change.
    let schedule = Schedule::from_fn(Arc::new(Layout::pixart(1).unwrap()), 4, |step, slot| match (step, slot) {
        (1, 0) | (2, 0) => Decision::Reuse,
        (3, 2) => Decision::Forecast,
        _ => Decision::Compute,
    })
    .unwrap();
    let message = pb::Schedule::from(&schedule);
    assert_eq!(message.decisions.as_ref(), [0x40, 0x10, 0x80]);
    assert_eq!(message.schedule_id, "906535c5aac4878c24b77150683832e7a74475a4142671d3f742b0564a84c867");
    let mut bytes = vec![0x08, 4, 0x12, 3, 0x40, 0x10, 0x80, 0x1a, 64];
    bytes.extend_from_slice(message.schedule_id.as_bytes());
    assert_eq!(message.encode_to_vec(), bytes);
}

#[test]
fn a_schedule_that_is_not_what_it_says_is_refused() {
    let good = pb::Schedule::from(&fora(5));
    assert_eq!(wire::schedule(&layout(), &good).unwrap(), fora(5));
    type Spoil = fn(&mut pb::Schedule);
    let spoils: [Spoil; 5] = [
        |s| s.steps = 0,
        |s| s.steps = 6,
        |s| s.decisions = vec![0xff; s.decisions.len()].into(),
        |s| s.decisions = vec![0x55; s.decisions.len()].into(),
        |s| s.schedule_id = "00".repeat(32),
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut message = good.clone();
        spoil(&mut message);
        assert!(wire::schedule(&layout(), &message).is_err(), "lie {i} was accepted");
    }
}

proptest! {
    /// Reading arbitrary bytes gives an error or a value, never a panic or an unbounded allocation.
    #[test]
    fn no_bytes_can_break_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = pb::SearchSpec::decode(bytes.as_slice()) {
            let _ = wire::search_spec(&message);
        }
        if let Ok(message) = pb::RegisterWorkerRequest::decode(bytes.as_slice()) {
            let _ = wire::declaration(&message);
        }
        if let Ok(message) = pb::Measurement::decode(bytes.as_slice()) {
            let _ = wire::measurement(&message);
        }
    }

    #[test]
    fn schedules_survive_the_wire(steps in 1u32..20, letters in proptest::collection::vec(0u8..3, 1..300)) {
        let layout = layout();
        let slots = layout.slots();
        let schedule = Schedule::from_fn(layout.clone(), steps, |step, slot| {
            match letters[(step as usize * slots + slot) % letters.len()] {
                0 => Decision::Compute,
                1 => Decision::Reuse,
                _ => Decision::Forecast,
            }
        })
        .unwrap();
        prop_assert_eq!(wire::schedule(&layout, &pb::Schedule::from(&schedule)).unwrap(), schedule);
    }
}

/// The field numbers of messages in use.
#[test]
fn a_question_with_conditions_keeps_its_bytes() {
    use prost::Message;
    let condition = |metric: &str, operator: pb::Operator, value: f64, of_uncached: bool| pb::Condition {
        metric: metric.into(),
        operator: operator.into(),
        value,
        of_uncached,
    };
    let request = pb::GetBestScheduleRequest {
        search_id: "s".into(),
        constraint: Some(pb::get_best_schedule_request::Constraint::MinSpeedup(2.0)),
        preference: pb::Preference::Knee.into(),
        include_thumbnails: false,
        conditions: vec![
            condition("psnr", pb::Operator::AtLeast, 28.0, false),
            condition("", pb::Operator::AsGoodAs, 1.0, true),
        ],
        ignore_bounds: true,
    };
    let bytes: String = request.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        bytes,
        "0a017319000000000000004040035211\
         0a0470736e72100119000000000000\
         3c40520d100319000000000000f03f20015801"
            .replace(char::is_whitespace, "")
    );
    assert_eq!(pb::GetBestScheduleRequest::decode(&request.encode_to_vec()[..]), Ok(request));
    let reference = pb::ReferenceLatency { device: "d".into(), uncached_us: 1.0, spread: 0.5, measurements: 3 };
    let answer = pb::Search {
        reference_latencies: vec![reference],
        prompt_count: 7,
        imported_count: 8,
        ..pb::Search::default()
    };
    let bytes: String = answer.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, "a20117".to_owned() + "0a016411000000000000f03f19000000000000e03f2003" + "a80107b00108");
}

#[test]
fn counts_are_refused_before_contents() {
    let base: pb::SearchSpec = (&spec()).into();
    type Spoil = fn(&mut pb::SearchSpec);
    let spoils: [(Spoil, &str); 8] = [
        (|s| s.objectives = vec![pb::Objective::default(); 100_000], "objectives: at most 4, found 100000"),
        (|s| s.prompts = vec![pb::Prompt::default(); 2_000_000], "prompts: at most 10000, found 2000000"),
        (|s| s.algorithm.as_mut().unwrap().rungs = vec![0; 16_000_000], "algorithm.rungs: at most 16, found 16000000"),
        (|s| s.sampling.as_mut().unwrap().steps = vec![0; 1_000_000], "sampling.steps: at most 16, found 1000000"),
        (|s| s.imported = vec![pb::ImportedSchedule::default(); 2000], "imported: at most 1000, found 2000"),
        (|s| s.labels = (0..65).map(|i| (i.to_string(), String::new())).collect(), "labels: at most 64, found 65"),
        (
            |s| s.placement.as_mut().unwrap().labels = (0..99).map(|i| (i.to_string(), String::new())).collect(),
            "placement.labels: at most 64, found 99",
        ),
        (
            |s| s.imported = vec![pb::ImportedSchedule { layout: Some(groups(200)), ..Default::default() }],
            "imported[0].layout.groups: at most 64, found 200",
        ),
    ];
    for (spoil, told) in spoils {
        let mut message = base.clone();
        spoil(&mut message);
        assert_eq!(wire::spec_draft(&message).unwrap_err().to_string(), told);
    }

    let metrics = vec![pb::MetricDeclaration { direction: 1, ..Default::default() }; 90_000];
    assert_eq!(wire::metrics(&metrics).unwrap_err().to_string(), "metrics: at most 64, found 90000");
    assert!(wire::layout(&groups(5000)).unwrap_err().to_string().contains("at most 64, found 5000"));
    let measurement = pb::Measurement { latency_us: vec![1.0; 1_000_000], ..Default::default() };
    assert_eq!(wire::measurement(&measurement).unwrap_err().to_string(), "latency_us: at most 10000, found 1000000");
}

fn groups(count: usize) -> pb::Layout {
    pb::Layout { groups: vec![pb::BlockGroup::default(); count] }
}

#[test]
fn imported_schedules_of_one_layout_share_it_and_others_are_refused() {
    let imported = |layout: &Arc<Layout>| Imported {
        name: "far".into(),
        schedule: Schedule::all_compute(layout.clone(), 12).unwrap(),
    };
    // A message of thirty bytes, 164 kB once built.
    let large = Arc::new(Layout::pixart(1365).unwrap());
    let mut draft = spec();
    draft.imported = vec![imported(&large); 1000];
    let mut message: pb::SearchSpec = (&draft).into();
    let read = wire::spec_draft(&message).unwrap();
    assert_eq!(Arc::strong_count(read.imported[0].schedule.layout()), 1000);
    message.imported[999] = (&imported(&layout())).into();
    let told = wire::spec_draft(&message).unwrap_err().to_string();
    assert_eq!(told, "imported[999].layout: differs from that of imported[0]");
}

#[test]
fn an_answer_to_a_million_mistakes_is_short() {
    let mut draft = spec();
    draft.prompts = vec![Prompt { text: String::new(), seed: 0 }; 10_000];
    let told = draft.validate().unwrap_err().to_string();
    assert!(told.contains("prompts[0].text: must have 1 to 8192 bytes") && told.ends_with("; and 9992 more"), "{told}");
    let mut message: pb::Schedule = (&fora(20)).into();
    message.schedule_id = "x".repeat(1 << 20);
    let told = wire::schedule(&layout(), &message).unwrap_err().to_string();
    assert!(told.len() < 1000, "{} bytes", told.len());
}
