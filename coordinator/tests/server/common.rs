//! What the tests share: a small specification, a worker's declaration, and a measurement that follows
//! from the schedule, so that whole searches run in milliseconds and give the same result every time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evocache::engine::{Answer, Command, Engine, Handle, LeaseKey, ModelFitting, Offer, Settings};
use evocache::ports::{Clock, IdSource, Store};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{
    Algorithm, Budget, Decision, Declaration, Direction, Layout, Measurement, MeasurementPlan, MetricDeclaration,
    MetricValues, ModelRef, Objective, Prompt, Sampling, Schedule, SearchId, SearchSpec, SpecDraft, WorkerId,
};

pub(crate) const BLOCKS: u32 = 4;

pub(crate) fn draft(evaluations: u64) -> SpecDraft {
    SpecDraft {
        model: ModelRef { name: "toy".into(), fingerprint: None },
        sampling: Sampling {
            steps: vec![12, 8],
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        prompts: (0..3).map(|seed| Prompt { text: format!("prompt {seed}"), seed }).collect(),
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 1 },
        objectives: vec![
            Objective { metric: "latency_ratio".into(), direction: Direction::Minimize, bound: None },
            Objective { metric: "likeness".into(), direction: Direction::Maximize, bound: None },
        ],
        budget: Budget { evaluations: Some(evaluations), ..Budget::default() },
        algorithm: Algorithm { population: 12, ..Algorithm::default() },
        seed: 11,
        labels: BTreeMap::new(),
        placement: Default::default(),
        imported: vec![],
    }
}

pub(crate) fn spec(evaluations: u64) -> Arc<SearchSpec> {
    Arc::new(draft(evaluations).validate().unwrap())
}

pub(crate) fn declaration(name: &str) -> Declaration {
    Declaration {
        name: name.into(),
        device: "simulated".into(),
        software: "tests".into(),
        model: "toy".into(),
        fingerprint: "f1".into(),
        layout: Layout::pixart(BLOCKS).unwrap(),
        forecast: false,
        profiles: false,
        grids: false,
        memory_bytes: 0,
        labels: Default::default(),
        metrics: vec![MetricDeclaration {
            name: "likeness".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "1 without error".into(),
        }],
        cost: None,
    }
}

/// Error grows with the age of what is reused, more so in early blocks; latency with what is computed.
pub(crate) fn measure(schedule: &Schedule) -> Measurement {
    let slots = schedule.slots();
    let (mut ages, mut error, mut computed) = (vec![0.0; slots], 0.0, 0u64);
    for step in 0..schedule.steps() {
        for (slot, age) in ages.iter_mut().enumerate() {
            match schedule.decision(step, slot) {
                Decision::Compute => (*age, computed) = (0.0, computed + 1),
                Decision::Reuse | Decision::Forecast => *age += 1.0,
            }
            error += *age * (1.0 + (slots - slot) as f64 / slots as f64) / (schedule.steps() as usize * slots) as f64;
        }
    }
    error += 0.02 * f64::from(12 - schedule.steps().min(12));
    let fixed = u64::from(schedule.steps()) * 4;
    let baseline = 12 * slots as u64 + 48;
    Measurement {
        metrics: vec![MetricValues {
            name: "likeness".into(),
            values: [0.98, 1.0, 1.02].map(|prompt| prompt * (-0.3 * error).exp()).to_vec(),
            baseline_mean: 1.0,
        }],
        latency_us: vec![(computed + fixed) as f64],
        baseline_latency_us: vec![baseline as f64],
        macs: computed + fixed,
        baseline_macs: baseline,
        peak_cache_bytes: (slots as u64 * u64::from(schedule.steps())).saturating_sub(computed),
        device_time: Duration::from_millis(10),
        disturbed: 0,
        thumbnails: vec![vec![schedule.steps() as u8; 5]],
        profile: None,
    }
}

/// A clock that moves when told.
#[derive(Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.load(Ordering::SeqCst))
    }
}

/// Ids in order.
#[derive(Default)]
pub(crate) struct Counting(pub(crate) AtomicU64);

impl IdSource for Counting {
    fn unique(&self) -> String {
        format!("id-{:04}", self.0.fetch_add(1, Ordering::SeqCst))
    }
}

pub(crate) const TTL: Duration = Duration::from_secs(30);

pub(crate) fn policy() -> RetryPolicy {
    RetryPolicy { max_attempts: 3, base: Duration::from_secs(1), cap: Duration::from_secs(8), ttl: TTL }
}

pub(crate) struct World {
    /// How long a device says that it was busy with an evaluation. Zero: no model is worth its while.
    pub(crate) busy: Duration,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) handle: Handle,
}

/// An engine on this store. `first_id` keeps the ids of a restarted coordinator apart from those before.
pub(crate) fn world(store: Arc<dyn Store>, first_id: u64) -> World {
    let clock = Arc::new(ManualClock::default());
    let ids = Arc::new(Counting(AtomicU64::new(first_id)));
    let engine =
        Engine::start(Settings { store, clock: clock.clone(), ids, policy: policy(), fitting: ModelFitting::Inline })
            .unwrap();
    let handle = engine.handle();
    World { busy: Duration::from_millis(10), engine, clock, handle }
}

impl World {
    pub(crate) async fn register(&self, name: &str) -> WorkerId {
        let declaration = Arc::new(declaration(name));
        match self.handle.command(None, Command::Register { declaration, principal: String::new() }).await.unwrap() {
            Answer::Worker(worker) => worker,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn create(&self, id: &str, evaluations: u64) -> SearchId {
        self.create_from(id, draft(evaluations), &[]).await
    }

    pub(crate) async fn create_from(&self, id: &str, draft: SpecDraft, from: &[&SearchId]) -> SearchId {
        let search = SearchId::new(id).unwrap();
        let spec = Arc::new(draft.validate().unwrap());
        let from = from.iter().copied().cloned().collect();
        let command = Command::Create { search: Some(search.clone()), spec, from };
        self.handle.command(None, command).await.unwrap();
        search
    }

    pub(crate) async fn offer(&self, worker: &WorkerId) -> Option<Offer> {
        match self.handle.acquire(worker.clone(), Duration::ZERO).await.unwrap() {
            Answer::Work { offer, .. } => offer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn complete(&self, worker: &WorkerId, lease: &LeaseKey, schedule: &Schedule) {
        let command =
            Command::Complete { worker: worker.clone(), lease: lease.clone(), measurement: measure(schedule) };
        assert_eq!(self.handle.command(None, command).await, Ok(Answer::Accepted));
    }

    /// Evaluates what there is for this worker, at most `most` candidates; says how many it did.
    pub(crate) async fn work(&self, worker: &WorkerId, most: usize) -> usize {
        for done in 0..most {
            let Some(offer) = self.offer(worker).await else { return done };
            let mut measurement = measure(&offer.schedule);
            measurement.device_time = self.busy;
            let values = &mut measurement.metrics[0].values;
            values.truncate(offer.prompts.count(values.len()));
            let command = Command::Complete { worker: worker.clone(), lease: offer.lease, measurement };
            assert_eq!(self.handle.command(None, command).await, Ok(Answer::Accepted));
        }
        most
    }

    pub(crate) async fn tick(&self) {
        self.handle.command(None, Command::Tick).await.unwrap();
    }

    /// Everything that is the same before and after a restart, as text.
    pub(crate) async fn digest(&self) -> String {
        self.handle
            .query(|state, _| {
                let mut text = String::new();
                for search in state.searches.values() {
                    text += &format!("{} {:?} {:?}\n", search.id, search.phase, search.reason);
                    text += &format!("{:?} {:?} {:?}\n", search.started, search.ended, search.totals.device_time);
                    for (i, c) in search.candidates.iter().enumerate() {
                        text += &format!("{i} {} {:?}\n", c.proposal.schedule.id(), c.proposal.provenance);
                        text += &format!("  {:?} {:?}\n", c.lease, c.evaluation);
                    }
                    for e in &search.evaluations {
                        text += &format!("{e:?}\n");
                    }
                    if let Some(evocache::engine::Bound { model, breeder }) = &search.bound {
                        text += &format!("{model:?} {:?} {}\n", breeder.front().members(), breeder.hypervolume());
                        text += &format!("{:?}\n", breeder.population().collect::<Vec<_>>());
                        let next = evocache_proto::domain::CandidateId(search.candidates.len() as u64);
                        // Plans are not stored.
                        let mut breeder = breeder.clone();
                        breeder.restart_planner();
                        text += &format!("next {:?}\n", breeder.ask(next));
                        text += &format!("{:?} {:?}\n", breeder.best_speedup(), breeder.seeds_best_speedup());
                    }
                    text += &format!("{:?} {:?}\n", search.totals.evaluated_prompts, search.open_prompts);
                    text += &format!("{:?} {:?} {:?}\n", search.totals.repeats, search.excluded, search.totals.trust);
                }
                for (id, worker) in &state.workers {
                    text += &format!("{id} {:?} {} {}", worker.registration, worker.draining, worker.completed);
                    text += &format!(" {:?}\n", worker.quarantine);
                }
                text += &format!("{:?}", state.requests);
                text
            })
            .await
            .unwrap()
    }
}

/// The database itself, once whoever had it has let go: sled's threads hold the lock for a moment after a close.
pub(crate) fn raw(path: impl AsRef<std::path::Path>) -> sled::Db {
    for _ in 0..200 {
        if let Ok(db) = sled::open(&path) {
            return db;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    sled::open(path).unwrap()
}
