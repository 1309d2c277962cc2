//! SIGKILL of the real coordinator under load, at random moments and at every named moment of `evocache::faults`, and
//! errors of its store there. After each death its files are copied and read as the next coordinator will read them:
//! what was answered must be there, once, and all invariants must hold.
//!
//! A seed replays the schedule of deaths. It does not replay which calls were on their way: those are the system's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evocache::engine::State;
#[cfg(faults)]
use evocache::faults::Point;
use evocache::ports::Store;
use evocache::store::SledStore;
use evocache_domain::rng::Stream;
use evocache_domain::time::Timestamp;

use crate::crew::{Crew, Load};
use crate::invariants;
use crate::ledger::Ledger;
use crate::process::{Process, Started, start, start_unseen};
use crate::toy;

/// Deaths of one store. Then comes a new one: the more there is to read, the longer each takes.
const PER_STORE: usize = 20;
/// A moment that is not passed by then is not waited for.
#[cfg(faults)]
const PATIENCE: Duration = Duration::from_secs(3);

/// How a coordinator dies.
#[derive(Debug, Clone)]
enum Death {
    /// So long after its start, whether it listens or not.
    Early(Duration),
    /// So long after it listens.
    Random(Duration),
    /// At a named moment, by its own hand.
    #[cfg(faults)]
    At(Point, u64),
    /// Its engine panics at a named moment.
    #[cfg(faults)]
    Panic(Point, u64),
    /// Its store fails at a named moment; it is killed later.
    #[cfg(faults)]
    Error(Point, u64, Duration),
}

/// The deaths that follow from a seed, every kind of them in every round.
fn schedule(seed: u64, rounds: usize) -> Vec<Death> {
    let mut chance = Stream::new(seed, "kills", 0);
    let mut deaths = vec![];
    for _ in 0..rounds {
        #[cfg(faults)]
        for point in Point::ALL {
            deaths.push(Death::At(point, 1 + chance.below(30) as u64));
            if point.is_of_the_store() {
                let then = Duration::from_millis(chance.below(40) as u64);
                deaths.push(Death::Error(point, 1 + chance.below(30) as u64, then));
            }
        }
        #[cfg(faults)]
        for point in [Point::DecideAfter, Point::CommitBefore, Point::ApplyBefore, Point::FsyncAfter] {
            deaths.push(Death::Panic(point, 1 + chance.below(30) as u64));
        }
        for _ in 0..4 {
            deaths.push(Death::Early(Duration::from_micros(chance.below(60_000) as u64)));
            for _ in 0..3 {
                deaths.push(Death::Random(Duration::from_micros(chance.below(150_000) as u64)));
            }
        }
    }
    deaths
}

/// What there was.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    errors: usize,
    kinds: BTreeMap<String, usize>,
    acknowledged: usize,
    results: usize,
    slowest: Duration,
}

/// One store, and what was promised on it.
struct World {
    _folder: tempfile::TempDir,
    data: PathBuf,
    copy: PathBuf,
    log: PathBuf,
    port: u16,
    crew: Crew,
    last: Option<State>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Taken and let go: it is free, and the coordinators of this store share it one after the other.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let load = Load { seed, life: 0, workers: 6, evaluations: 30, pictures: 0 };
        let path = folder.path();
        let (data, copy, log) = (path.join("store"), path.join("copy"), path.join("log"));
        Self {
            data,
            copy,
            log,
            port,
            crew: Crew::start(load, port, Arc::new(|_: &Ledger| {}), Ledger::default()),
            last: None,
            _folder: folder,
        }
    }

    /// A life and a death.
    async fn live(&mut self, death: &Death, tally: &mut Tally) -> Result<(), String> {
        match death {
            Death::Early(after) => {
                let mut process = start_unseen(&self.data, self.port, &self.log);
                tokio::time::sleep(*after).await;
                process.kill();
                tally.kills += 1;
                *tally.kinds.entry("early".into()).or_default() += 1;
            }
            Death::Random(after) => {
                let mut process = self.start(None, tally).await.ok_or("died by itself")?;
                tokio::time::sleep(*after).await;
                process.kill();
                tally.kills += 1;
                *tally.kinds.entry("random".into()).or_default() += 1;
            }
            #[cfg(faults)]
            Death::At(point, nth) => {
                let fault = format!("{}:{nth}:kill", point.name());
                let mut died = true;
                if let Some(mut process) = self.start(Some(&fault), tally).await {
                    let waited = tokio::task::spawn_blocking(move || process.ends(PATIENCE).is_some());
                    died = waited.await.unwrap();
                }
                tally.kills += 1;
                // Where the load was too small for so many passes, it was killed at some other moment.
                let kind = if died { point.name() } else { "late" };
                *tally.kinds.entry(kind.into()).or_default() += 1;
            }
            #[cfg(faults)]
            Death::Panic(point, nth) => {
                let fault = format!("{}:{nth}:panic", point.name());
                if let Some(mut process) = self.start(Some(&fault), tally).await {
                    let waited = tokio::task::spawn_blocking(move || process.ends(PATIENCE));
                    // A supervisor starts again what ends with an error; and whoever reads the log finds why.
                    if let Some(status) = waited.await.unwrap() {
                        let log = crate::process::read(&self.log);
                        if status.code() != Some(1) || !log.contains("the engine panicked: EVOCACHE_FAULT asks for it")
                        {
                            return Err(format!("after a panic it ended with {status}: {log}"));
                        }
                        *tally.kinds.entry("panic".into()).or_default() += 1;
                    }
                }
                tally.errors += 1;
            }
            #[cfg(faults)]
            Death::Error(point, nth, then) => {
                let fault = format!("{}:{nth}:error", point.name());
                if let Some(mut process) = self.start(Some(&fault), tally).await {
                    tokio::time::sleep(Duration::from_millis(60) + *then).await;
                    process.kill();
                }
                tally.errors += 1;
                *tally.kinds.entry(format!("{} fails", point.name())).or_default() += 1;
            }
        }
        self.crew.fine();
        self.look()
    }

    /// Starts a coordinator. `None`: it died before it listened.
    async fn start(&self, fault: Option<&str>, tally: &mut Tally) -> Option<Process> {
        let (data, log, port, fault) = (self.data.clone(), self.log.clone(), self.port, fault.map(str::to_owned));
        let started = tokio::task::spawn_blocking(move || start(&data, port, &log, fault.as_deref())).await.unwrap();
        match started {
            (process, Started::Listens(took)) => {
                tally.slowest = tally.slowest.max(took);
                Some(process)
            }
            (_, Started::Died) => None,
        }
    }

    /// What the next coordinator will find. On a copy: to look is to recover, and that is to be the next one's.
    fn look(&mut self) -> Result<(), String> {
        // Killed before it made the folder.
        if !self.data.exists() {
            return Ok(());
        }
        copy(&self.data, &self.copy);
        let ledger = self.crew.ledger();
        let state = inspect(&self.copy, &ledger)?;
        if let Some(last) = &self.last {
            invariants::sequence(last, &state)?;
        }
        self.last = Some(state);
        Ok(())
    }
}

/// Opens a store as a coordinator would and holds it against what was answered.
pub(crate) fn inspect(data: &Path, ledger: &Ledger) -> Result<State, String> {
    let store = SledStore::open(data).map_err(|e| format!("the store does not open: {e}"))?;
    let facts = store.load().map_err(|e| format!("the store cannot be read: {e}"))?;
    drop(store);
    let policy = toy::policy(Duration::from_secs(2));
    let state = State::recover(facts, Timestamp(0), &policy).map_err(|e| format!("the records contradict: {e}"))?;
    invariants::state(&state)?;
    invariants::acknowledged(ledger, &state)?;
    let checked = evocache::upkeep::check(data, &mut |_, _| {}).map_err(|e| format!("store check: {e}"))?;
    if !checked.is_sound() {
        return Err(format!("store check: {checked:?}"));
    }
    Ok(state)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &into);
        } else {
            std::fs::copy(entry.path(), into).unwrap();
        }
    }
}

async fn run(seed: u64, rounds: usize) {
    let deaths = schedule(seed, rounds);
    println!("kills: seed {seed}, {} deaths", deaths.len());
    let mut tally = Tally::default();
    for (number, part) in deaths.chunks(PER_STORE).enumerate() {
        let mut world = World::new(seed.wrapping_add(number as u64)).await;
        for (i, death) in part.iter().enumerate() {
            if let Err(problem) = world.live(death, &mut tally).await {
                let kept = world._folder.keep();
                panic!("seed {seed}, death {}, {death:?}: {problem}\nkept: {}", number * PER_STORE + i, kept.display());
            }
        }
        let ledger = world.crew.ledger();
        tally.acknowledged += ledger.answers();
        tally.results += ledger.results.len();
    }
    println!("kills: {} kills, {} failing stores: {:?}", tally.kills, tally.errors, tally.kinds);
    println!(
        "kills: {} answers, {} results of them; lost 0, counted twice 0; slowest reopen {:?}",
        tally.acknowledged, tally.results, tally.slowest
    );
    assert!(tally.results > tally.kills, "there was hardly any load: {tally:?}");
    #[cfg(faults)]
    assert!(tally.kinds.contains_key("panic"), "nothing panicked");
    #[cfg(faults)]
    for point in Point::ALL {
        assert!(tally.kinds.contains_key(point.name()), "nothing died at {}", point.name());
    }
}

/// Seed and rounds from the environment, for who replays: `CHAOS_SEED`, `CHAOS_ROUNDS`.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_count_nothing_twice() {
    run(setting("CHAOS_SEED", 1), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn kills_by_the_thousand_lose_nothing_and_count_nothing_twice() {
    run(setting("CHAOS_SEED", 2), setting("CHAOS_ROUNDS", 36) as usize).await;
}
