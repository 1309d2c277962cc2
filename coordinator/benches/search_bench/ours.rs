//! Drives the real breeder over a landscape, whole or with a part left out, and times it.

use std::sync::Arc;
use std::time::Duration;

use evocache::domain::rng::Stream;
use evocache::domain::search::{Breeder, Parts};
use evocache_proto::domain::{
    Algorithm, BlockGroup, Budget, CandidateId, Component, Decision, Direction, Layout, Measurement, MeasurementPlan,
    MetricValues, ModelRef, Objective, Prompt, Sampling, Schedule, SearchSpec, SpecDraft, Strategy,
};

use super::landscapes::{CELLS, Landscape, SLOTS, STEPS};

fn layout() -> Arc<Layout> {
    let components = vec![Component::new("part")];
    Arc::new(Layout::new(vec![BlockGroup { name: "block".into(), count: SLOTS as u32, components }]).unwrap())
}

fn spec(strategy: Strategy, seeds: bool, seed: u64, evaluations: u64, steps: u32) -> Arc<SearchSpec> {
    let objective = |metric: &str| Objective { metric: metric.into(), direction: Direction::Minimize, bound: None };
    let draft = SpecDraft {
        model: ModelRef { name: "synthetic".into(), fingerprint: None },
        sampling: Sampling {
            steps: vec![steps],
            guidance_scale: 1.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
        },
        forecast: false,
        prompts: vec![Prompt { text: "an owl".into(), seed: 0 }],
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
        objectives: vec![objective("latency_ratio"), objective("error")],
        budget: Budget { evaluations: Some(evaluations), wall_time: None, device_time: None },
        algorithm: Algorithm { strategy, seeds, ..Algorithm::default() },
        seed,
        labels: std::collections::BTreeMap::new(),
        imported: vec![],
    };
    Arc::new(draft.validate().unwrap())
}

fn measurement((share, error): (f64, f64)) -> Measurement {
    Measurement {
        metrics: vec![MetricValues { name: "error".into(), values: vec![error], baseline_mean: 0.0 }],
        latency_us: vec![1000.0 * share],
        baseline_latency_us: vec![1000.0],
        macs: 1,
        baseline_macs: 1,
        peak_cache_bytes: 0,
        device_time: Duration::from_millis(1),
        thumbnails: vec![],
    }
}

fn bits(schedule: &Schedule) -> Vec<u8> {
    schedule.decisions().map(|d| u8::from(d == Decision::Compute)).collect()
}

/// Runs a search to its end.
pub(crate) fn run(name: &str, landscape: &Landscape, seed: u64, evaluations: u64, mut seen: impl FnMut((f64, f64))) {
    let strategy = if name == "random" { Strategy::Random } else { Strategy::SteadyState };
    let parts =
        Parts { operators: name != "no-operators", selection: name != "no-selection", model: name != "no-model" };
    let spec = spec(strategy, name != "no-seeds", seed, evaluations, STEPS as u32);
    let mut breeder = Breeder::with_parts(spec, layout(), parts).unwrap();
    let verbose = std::env::args().any(|a| a == "--shares");
    for index in 0..evaluations {
        let id = CandidateId(index);
        let proposal = breeder.ask(id).unwrap();
        breeder.record(id, &proposal);
        let truth = landscape.truth(&bits(&proposal.schedule));
        seen(truth);
        breeder.tell(id, &measurement(landscape.measured(truth, seed, index))).unwrap();
    }
    if verbose && seed == 1 {
        println!("{} {name}:", landscape.name);
        for share in breeder.operator_shares() {
            println!("  {share:?}");
        }
        println!("  {:?}", breeder.model_correlations());
    }
}

/// Times ask and tell with 10,000 members in the archive and 1,680 decisions, with and without the model.
pub(crate) fn timing() {
    for model in [false, true] {
        let parts = Parts { model, ..Parts::default() };
        let spec = spec(Strategy::SteadyState, true, 1, 100_000, STEPS as u32);
        let mut breeder = Breeder::with_parts(spec, layout(), parts).unwrap();
        let mut stream = Stream::new(1, "timing", 0);
        // All on one front, so that the archive grows with every result.
        let mut result = || {
            let share = stream.unit();
            measurement((share, (1.0 - share) * (1.0 - share)))
        };
        let (members, timed) = (10_000u64, 2000u64);
        for id in (0..members).map(CandidateId) {
            let proposal = breeder.ask(id).unwrap();
            breeder.record(id, &proposal);
            breeder.tell(id, &result()).unwrap();
        }
        let later = || (members..members + timed).map(CandidateId);
        let begin = cpu_micros();
        let proposals: Vec<_> = later().map(|id| breeder.ask(id).unwrap()).collect();
        let asked = cpu_micros();
        for (id, proposal) in later().zip(&proposals) {
            breeder.record(id, proposal);
            breeder.tell(id, &result()).unwrap();
        }
        let told = cpu_micros();
        println!(
            "model {model}: archive {}, {CELLS} decisions: ask {:.1} µs, record and tell {:.1} µs of one core",
            breeder.front().len(),
            (asked - begin) / timed as f64,
            (told - asked) / timed as f64,
        );
    }
}

/// Microseconds that this thread has had of a core; wall time would count what else the machine does. Linux only.
pub(crate) fn cpu_micros() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e3
}
