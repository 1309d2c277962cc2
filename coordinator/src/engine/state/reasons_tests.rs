//! Tests of what people are told about workers, and about searches that wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{
    Algorithm, Budget, CandidateId, Declaration, Direction, Epoch, Grid, Layout, Maker, MeasurementPlan,
    MetricDeclaration, ModelRef, Objective, Prompt, PromptSet, Sampling, SearchId, SearchUid, SpecDraft,
};

use super::*;
use crate::ports::{Fact, Registration};
use evocache_domain::lease;
use evocache_domain::search::{Proposal, Provenance};

const SILENCE: Duration = Duration::from_secs(60);
const NOW: Timestamp = Timestamp(1_000_000);

fn declaration(name: &str, model: &str) -> Declaration {
    Declaration {
        name: name.into(),
        device: "cpu".into(),
        software: "tests".into(),
        model: model.into(),
        fingerprint: "f".into(),
        layout: Layout::pixart(1).unwrap(),
        forecast: false,
        guidance_decisions: false,
        profiles: false,
        grids: false,
        memory_bytes: 0,
        labels: BTreeMap::new(),
        metrics: vec![MetricDeclaration {
            name: "psnr".into(),
            direction: Direction::Maximize,
            unit: "dB".into(),
            description: String::new(),
        }],
        cost: None,
    }
}

fn spec(model: &str, metric: &str) -> Arc<evocache_proto::domain::SearchSpec> {
    let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
    let draft = SpecDraft {
        model: ModelRef { name: model.into(), fingerprint: None },
        sampling: Sampling {
            steps: vec![4],
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        guidance_decisions: false,
        prompts: vec![Prompt { text: "p".into(), seed: 0 }],
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
        objectives: vec![objective("latency_ratio", Direction::Minimize), objective(metric, Direction::Maximize)],
        budget: Budget { evaluations: Some(5), ..Budget::default() },
        algorithm: Algorithm::default(),
        seed: 0,
        labels: BTreeMap::new(),
        placement: Default::default(),
        imported: vec![],
    };
    Arc::new(draft.validate().unwrap())
}

/// A state with these workers (name, model) and searches (id, model, metric).
fn state(workers: &[(&str, &str)], searches: &[(&str, &str, &str)]) -> State {
    let mut state = State::default();
    for (name, model) in workers {
        let declaration = Arc::new(declaration(name, model));
        let registration = Registration { declaration, at: NOW, principal: String::new() };
        let fact = Fact::WorkerRegistered { worker: WorkerId::new(*name).unwrap(), registration };
        state.apply(fact).unwrap();
    }
    for (id, model, metric) in searches {
        let (search, uid) = (SearchId::new(*id).unwrap(), SearchUid::new(*id).unwrap());
        state.apply(Fact::SearchCreated { search, uid, spec: spec(model, metric), at: NOW }).unwrap();
    }
    state
}

/// Grants the worker a lease on the search's first candidate.
fn lease(state: &mut State, search: &str, worker: &str) {
    let search = SearchId::new(search).unwrap();
    let layout = Arc::new(Layout::pixart(1).unwrap());
    let schedule = Arc::new(evocache_proto::domain::Schedule::all_compute(layout, 4).unwrap());
    let provenance = Arc::new(Provenance::founder(Maker::Seed, ""));
    let candidate = CandidateId(0);
    let proposal = Proposal { schedule, provenance, prompts: PromptSet::All };
    state.apply(Fact::CandidateCreated { search: search.clone(), candidate, proposal }).unwrap();
    let leased = lease::State::Leased {
        worker: WorkerId::new(worker).unwrap(),
        epoch: Epoch(1),
        deadline: NOW,
        attempt: 1,
        grants: vec![],
    };
    state.apply(Fact::LeaseMoved { search, candidate, state: leased, granted: NOW }).unwrap();
}

#[test]
fn a_worker_is_alive_then_silent_with_a_lease_or_gone_without() {
    let mut state = state(&[("w", "m")], &[("s", "m", "psnr")]);
    let standing = |state: &State, after: u64| {
        state.workers.values().next().unwrap().standing(NOW.plus(Duration::from_secs(after)), SILENCE)
    };
    assert_eq!((standing(&state, 60), standing(&state, 61)), (Standing::Alive, Standing::Gone));
    lease(&mut state, "s", "w");
    assert_eq!(standing(&state, 61), Standing::Silent);
    let worker = WorkerId::new("w").unwrap();
    state.apply(Fact::WorkerDraining { worker: worker.clone() }).unwrap();
    assert_eq!((standing(&state, 60), standing(&state, 61)), (Standing::Draining, Standing::Silent));
    state.apply(Fact::WorkerQuarantined { worker, reason: "lies".into(), at: NOW }).unwrap();
    assert_eq!(standing(&state, 0), Standing::Quarantined);
}

#[test]
fn an_idle_worker_is_told_why() {
    let why = |state: &State| state.why_idle(&state.workers[&WorkerId::new("w").unwrap()]);
    assert_eq!(why(&state(&[("w", "m")], &[])), "no search is pending or running");
    let other = state(&[("w", "m")], &[("a", "x", "psnr"), ("b", "y", "psnr")]);
    assert_eq!(why(&other), "no search is for model 'm'; the active ones are for 'x', 'y'");
    let metric = state(&[("w", "m")], &[("a", "m", "clip_score")]);
    assert_eq!(why(&metric), "search 'a': the worker does not measure 'clip_score'");
    let mut busy = state(&[("w", "m")], &[("a", "m", "psnr")]);
    lease(&mut busy, "a", "w");
    assert_eq!(why(&busy), "");
    let mut grids = state(&[("w", "m")], &[]);
    let mut draft = (**spec("m", "psnr")).clone();
    draft.sampling.grids = vec![Grid { steps: 4, solver_order: Some(1), ..Grid::default() }];
    let (search, uid) = (SearchId::new("a").unwrap(), SearchUid::new("a").unwrap());
    let spec = Arc::new(draft.validate().unwrap());
    grids.apply(Fact::SearchCreated { search, uid, spec, at: NOW }).unwrap();
    assert!(why(&grids).contains("sampling.grids"), "{}", why(&grids));
}

#[test]
fn a_search_says_what_it_waits_for() {
    let why = |state: &State, id: &str| state.why_waiting(&state.searches[&SearchId::new(id).unwrap()], NOW, SILENCE);
    assert_eq!(why(&state(&[("w", "other")], &[("s", "m", "psnr")]), "s"), "waits for a worker with model 'm'");
    let refused = state(&[("w", "m")], &[("s", "m", "clip_score")]);
    assert_eq!(why(&refused, "s"), "worker 'w' cannot take it: the worker does not measure 'clip_score'");
    let mut busy = state(&[("v", "m"), ("w", "m")], &[("s", "m", "psnr"), ("t", "m", "psnr")]);
    assert_eq!(why(&busy, "s"), "", "two workers are free");
    lease(&mut busy, "t", "w");
    assert_eq!(why(&busy, "s"), "", "one is");
    assert_eq!(why(&busy, "t"), "");
    busy.workers.remove(&WorkerId::new("v").unwrap());
    assert_eq!(why(&busy, "s"), "waits for its turn: 1 worker that can take it is busy with 't'");
}
