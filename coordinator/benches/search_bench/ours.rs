//! Runs the real breeder on a landscape, complete or with a part disabled, and times it.

use std::sync::Arc;
use std::time::Duration;

use evocache_domain::rng::Stream;
use evocache_domain::search::{Breeder, Parts};
use evocache_proto::domain::{
    BlockGroup, CandidateId, Component, Decision, Direction, Layout, Measurement, MetricValues, Objective, Schedule,
    SearchSpec, SpecDraft, Strategy,
};
use evocache_testkit::landscape;

use super::landscapes::{CELLS, Landscape, SLOTS, STEPS};

fn layout() -> Arc<Layout> {
    let components = vec![Component::new("part")];
    Arc::new(Layout::new(vec![BlockGroup { name: "block".into(), count: SLOTS as u32, components }]).unwrap())
}

fn spec(strategy: Strategy, seeds: bool, seed: u64, evaluations: u64, steps: &[u32]) -> SpecDraft {
    let mut draft = landscape::draft(strategy, steps, evaluations, seed);
    draft.objectives[1] = Objective { metric: "error".into(), direction: Direction::Minimize, bound: None };
    draft.algorithm.seeds = seeds;
    draft
}

fn checked(draft: SpecDraft) -> Arc<SearchSpec> {
    Arc::new(draft.validate().unwrap())
}

const MACS: f64 = 1e12;

fn measurement((share, error): (f64, f64)) -> Measurement {
    Measurement {
        metrics: vec![MetricValues { name: "error".into(), values: vec![error], baseline_mean: 0.0 }],
        latency_us: vec![1000.0 * share],
        baseline_latency_us: vec![1000.0],
        macs: (share * MACS).round().max(1.0) as u64,
        baseline_macs: MACS as u64,
        peak_cache_bytes: 0,
        device_time: Duration::from_secs(1),
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    }
}

fn bits(schedule: &Schedule) -> Vec<u8> {
    schedule.decisions().map(|d| u8::from(d == Decision::Compute)).collect()
}

/// Runs a whole search. Calls `seen` with the true values of every evaluation.
pub(crate) fn run(name: &str, landscape: &Landscape, seed: u64, evaluations: u64, mut seen: impl FnMut((f64, f64))) {
    let strategy = match name {
        "nsga2" => Strategy::Nsga2,
        _ => Strategy::SteadyState,
    };
    let parts = Parts {
        search: name != "random",
        operators: name != "no-operators",
        selection: name != "no-selection",
        planning: name != "no-planning",
    };
    let steps = if name == "no-steps" { &landscape.steps()[..1] } else { landscape.steps() };
    let mut draft = spec(strategy, name != "no-seeds", seed, evaluations, steps);
    if strategy == Strategy::Nsga2 {
        draft.algorithm.population = super::ecad::POPULATION as u32;
    }
    let mut breeder = Breeder::with_parts(checked(draft), layout(), parts).unwrap();
    let mut planner = breeder.new_planner();
    let verbose = std::env::args().any(|a| a == "--shares");
    for index in 0..evaluations {
        let id = CandidateId(index);
        let proposal = breeder.ask(id).unwrap();
        breeder.record(id, &proposal);
        let truth = landscape.truth(&bits(&proposal.schedule));
        seen(truth);
        breeder.tell(id, &measurement(landscape.measured(truth, seed, index))).unwrap();
        breeder.plan_now(&mut planner);
    }
    if verbose && seed == 1 {
        println!("{} {name}:", landscape.name);
        for share in breeder.operator_shares() {
            println!("  {share:?}");
        }
        println!("  {:?}", breeder.model_correlations());
    }
}

/// The reported front of a search with noisy latencies: how much slower, in truth, its worst member is than a measured
/// schedule of no larger error; the number of members; the number of repeats.
pub(crate) struct Luck {
    pub(crate) worst: f64,
    pub(crate) members: usize,
    pub(crate) repeated: usize,
}

/// Runs a search whose measured latencies have the relative deviation `noise`, and evaluates the reported front.
pub(crate) fn luck(landscape: &Landscape, seed: u64, evaluations: u64, noise: f64, remeasure: bool) -> Luck {
    let mut draft = spec(Strategy::SteadyState, true, seed, evaluations, landscape.steps());
    draft.algorithm.remeasure = remeasure;
    let mut breeder = Breeder::new(checked(draft), layout()).unwrap();
    let mut planner = breeder.new_planner();
    let (mut truths, mut repeated) = (Vec::new(), 0);
    for index in 0..evaluations {
        let id = CandidateId(index);
        let proposal = breeder.ask(id).unwrap();
        breeder.record(id, &proposal);
        repeated += usize::from(proposal.provenance.repeats().is_some());
        let (share, error) = landscape.truth(&bits(&proposal.schedule));
        truths.push((share, error));
        let mut stream = Stream::new(seed, "luck", index);
        let normal = (0..12).map(|_| stream.unit()).sum::<f64>() - 6.0;
        breeder.tell(id, &measurement((share * (noise * normal).exp(), error))).unwrap();
        breeder.plan_now(&mut planner);
    }
    breeder.rescore();
    let slower = |id: CandidateId| {
        let (share, error) = truths[id.0 as usize];
        truths.iter().filter(|t| t.1 <= error).map(|t| share / t.0 - 1.0).fold(0.0, f64::max)
    };
    let members = breeder.front().members();
    let worst = members.iter().map(|m| slower(m.candidate)).fold(0.0, f64::max);
    Luck { worst, members: members.len(), repeated }
}

/// Times ask and tell after 10,000 results on the front, with 1,680 decisions, with and without planning.
pub(crate) fn timing() {
    for planning in [false, true] {
        let parts = Parts { planning, ..Parts::default() };
        let mut draft = spec(Strategy::SteadyState, true, 1, 100_000, &[STEPS as u32]);
        // Not a latency: the latency model would discount one that is unrelated to the schedule.
        draft.objectives[0].metric = "macs_ratio".into();
        let before = resident_bytes();
        let mut breeder = Breeder::with_parts(checked(draft), layout(), parts).unwrap();
        let mut planner = breeder.new_planner();
        let mut stream = Stream::new(1, "timing", 0);
        // All results are on one front, so the archive grows with every result.
        let mut result = || {
            let share = stream.unit();
            measurement((share, (1.0 - share) * (1.0 - share)))
        };
        let (members, timed) = (10_000u64, 2000u64);
        for id in (0..members).map(CandidateId) {
            let proposal = breeder.ask(id).unwrap();
            breeder.record(id, &proposal);
            breeder.tell(id, &result()).unwrap();
            breeder.plan_now(&mut planner);
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
            "planning {planning}: archive {}, {CELLS} decisions: ask {:.1} µs, record and tell {:.1} µs of one core",
            breeder.front().len(),
            (asked - begin) / timed as f64,
            (told - asked) / timed as f64,
        );
        println!("  {:.0} bytes of memory per evaluation", (resident_bytes() - before) / (members + timed) as f64);
    }
}

/// Resident memory of this process, in bytes. Linux only.
fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

/// CPU time of this thread, in microseconds; wall time would include other processes. Linux only.
pub(crate) fn cpu_micros() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e3
}
