//! What the tests share: the toy search, and an engine with a clock that moves when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evocache::engine::{Answer, Command, Engine, Handle, LeaseKey, ModelFitting, Offer, Settings};
use evocache::ports::{Clock, IdSource, Store};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{Declaration, Layout, Measurement, Schedule, SearchId, SearchSpec, SpecDraft, WorkerId};
use evocache_testkit::toy;

pub(crate) const BLOCKS: u32 = 4;

const STEPS: [u32; 2] = [12, 8];
const PROMPTS: usize = 3;

pub(crate) fn draft(evaluations: u64) -> SpecDraft {
    let mut draft = toy::draft(&STEPS, PROMPTS, evaluations, 11);
    draft.algorithm.population = 12;
    draft
}

pub(crate) fn spec(evaluations: u64) -> Arc<SearchSpec> {
    Arc::new(draft(evaluations).validate().unwrap())
}

pub(crate) fn declaration(name: &str) -> Declaration {
    toy::declaration(name, Layout::pixart(BLOCKS).unwrap())
}

pub(crate) fn measure(schedule: &Schedule) -> Measurement {
    toy::measure(schedule, STEPS[0], PROMPTS)
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
        self.handle.query(|state, _| evocache_testkit::digest::digest(state)).await.unwrap()
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
