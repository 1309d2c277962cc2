//! Damage after SIGKILL: a bit flips, 4 KiB turn to zeros, or a file is cut off or removed, anywhere in a store whose
//! coordinator was killed under load. Either the damage changes nothing, or the store is refused with a named reason and a
//! way out; a store that lacks acknowledged results must never pass as sound. An undamaged store must never be refused.
//!
//! Each damage is applied alone, to a fresh copy. A seed replays the choice of damages, but not what the store held when its
//! coordinator was killed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evocache::engine::State;
use evocache::ports::{Store, StoreError};
use evocache::store::SledStore;
use evocache::upkeep::{self, UpkeepError};
use evocache_domain::rng::Stream;
use evocache_domain::time::Timestamp;
use evocache_testkit::digest::digest;

use crate::crew::{Crew, Load};
use crate::invariants;
use crate::kills::{copy, setting};
use crate::ledger::Ledger;
use crate::process::{Started, start};
use crate::toy;

/// How long a coordinator may take for all its answers.
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCK: usize = 4096;

/// What happens to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// Flips a bit of the byte at this offset.
    Flip(usize, u8),
    /// Zeros 4 KiB from this offset on.
    Zeros(usize),
    /// Cuts the file at this offset.
    Cut(usize),
    Gone,
}

impl Damage {
    /// Returns whether the file changed.
    fn apply(self, file: &Path) -> bool {
        let before = std::fs::read(file).unwrap();
        let mut bytes = before.clone();
        match self {
            Self::Flip(at, bit) => bytes[at] ^= 1 << bit,
            Self::Zeros(at) => bytes.iter_mut().skip(at).take(BLOCK).for_each(|byte| *byte = 0),
            Self::Cut(at) => bytes.truncate(at),
            Self::Gone => {
                std::fs::remove_file(file).unwrap();
                return true;
            }
        }
        std::fs::write(file, &bytes).unwrap();
        bytes != before
    }
}

/// A store whose coordinator was killed, and what the coordinator had acknowledged.
struct Base {
    folder: tempfile::TempDir,
    ledger: Ledger,
    /// The state after a restart.
    digest: String,
    /// The last batch was not acknowledged when the process was killed, though the database has it: damage may remove it.
    is_ahead: bool,
    /// The files by name, and the length of each without the zeros at its end.
    files: Vec<(PathBuf, usize)>,
}

impl Base {
    /// Runs a coordinator `lives` times, each ended by SIGKILL. A second life leaves a snapshot in the middle of the log.
    async fn new(seed: u64, lives: usize, answers: usize, pictures: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, log) = (folder.path().join("store"), folder.path().join("log"));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let load = Load { seed, life: 0, workers: 6, evaluations: 30, pictures };
        let mut crew = Crew::start(load, port, Arc::new(|_: &Ledger| {}), Ledger::default());
        for life in 1..=lives {
            let (data, log) = (data.clone(), log.clone());
            let started = tokio::task::spawn_blocking(move || start(&data, port, &log, None)).await.unwrap();
            let (mut process, Started::Listens(_)) = started else { panic!("died by itself") };
            let began = Instant::now();
            while crew.answers() < answers * life / lives {
                assert!(began.elapsed() < PATIENCE, "there were {} answers of {answers}", crew.answers());
                crew.fine();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            process.kill();
        }
        let ledger = crew.stop().await;
        let mut files = vec![];
        for entry in std::fs::read_dir(&data).unwrap().map(Result::unwrap).filter(|e| e.file_type().unwrap().is_file())
        {
            let bytes = std::fs::read(entry.path()).unwrap();
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            files.push((PathBuf::from(entry.file_name()), used));
        }
        files.sort();
        let is_ahead = is_ahead(&data, &folder.path().join("copy"));
        let mut base = Self { folder, ledger, digest: String::new(), is_ahead, files };
        // Undamaged, it is sound every time it is opened.
        for _ in 0..3 {
            match base.look(|_| true) {
                Found::Whole(digest) => base.digest = digest,
                other => panic!("seed {seed}: a false alarm: {other:?}, kept: {}", base.folder.keep().display()),
            }
        }
        base
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Draws a file and its damage: mostly the database, in the part that is written, half of the time near its end.
    fn draw(&self, chance: &mut Stream) -> (PathBuf, Damage) {
        let weight = |(name, _): &(PathBuf, usize)| match name.to_str() {
            Some("db") => 12,
            Some("mark") => 3,
            Some(name) if name.starts_with("snap.") => 3,
            _ => 1,
        };
        let index = chance.weighted(self.files.iter().map(weight)).unwrap();
        let (name, used) = &self.files[index];
        let last = 64 * 1024;
        let from = if chance.chance(0.5) { used.saturating_sub(last) } else { 0 };
        let at = from + chance.below((used - from).max(1));
        let damage = match chance.below(100) {
            0..45 => Damage::Flip(at, chance.below(8) as u8),
            45..75 => Damage::Zeros(if chance.chance(0.5) { at / BLOCK * BLOCK } else { at }),
            75..98 => Damage::Cut(at),
            _ => Damage::Gone,
        };
        (name.clone(), damage)
    }

    /// Damages a copy, and opens it as the next coordinator and as `store check` do.
    fn look(&self, damage: impl FnOnce(&Path) -> bool) -> Found {
        let at = self.folder.path().join("copy");
        copy(&self.store(), &at);
        if !damage(&at) {
            return Found::Whole(self.digest.clone());
        }
        match catch_unwind(AssertUnwindSafe(|| self.read(&at))) {
            Ok(found) => found,
            Err(_) => Found::Wrong("reading it panicked".into()),
        }
    }

    fn read(&self, at: &Path) -> Found {
        let opened = SledStore::open_existing(at).and_then(|store| Ok((store.load()?, store)));
        let (facts, store) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refused(at, error),
        };
        let state = match State::recover(facts, Timestamp(0), &toy::policy(Duration::from_secs(2))) {
            Ok(state) => state,
            Err(e) => return Found::Wrong(format!("all is there, and yet: {e}")),
        };
        if let Err(problem) = invariants::state(&state).and_then(|()| invariants::acknowledged(&self.ledger, &state)) {
            return Found::Wrong(format!("unnoticed: {problem}"));
        }
        // Opening a store does not read pictures, so their damage shows when they are read, and in a check.
        let mut refused = None;
        for taken in self.ledger.results.iter().filter(|taken| !taken.measurement.thumbnails.is_empty()) {
            match store.thumbnails(&taken.lease.search.id, taken.lease.candidate) {
                Ok(pictures) if pictures == taken.measurement.thumbnails => {}
                Ok(_) => return Found::Wrong(format!("unnoticed: the pictures of {} are others", taken.lease)),
                Err(error) => refused = Some(error),
            }
        }
        drop(store);
        let checked = upkeep::check(at, &mut |_, _| {});
        match (checked, refused) {
            (Ok(checked), None) if checked.is_sound() => Found::Whole(digest(&state)),
            (Ok(checked), Some(_)) if !checked.is_sound() => Found::Refused("pictures"),
            (Err(error), Some(_)) if error.hint().is_some() => Found::Refused("pictures"),
            (checked, refused) => Found::Wrong(format!("{checked:?} and {refused:?} do not fit together")),
        }
    }

    /// A refusal must have a hint, and every tool must refuse too.
    fn refused(&self, at: &Path, error: StoreError) -> Found {
        let kind = match &error {
            StoreError::Lost { loss, .. } if loss.acknowledged.evaluations < self.ledger.results.len() as u64 => {
                return Found::Wrong(format!("{error}: there were {} results", self.ledger.results.len()));
            }
            StoreError::Lost { .. } => "lost",
            StoreError::Unmarked { .. } => "unmarked",
            StoreError::Torn { .. } => "torn",
            StoreError::Corrupt { .. } => "corrupt",
            StoreError::Foreign { .. }
            | StoreError::Version { .. }
            | StoreError::Locked { .. }
            | StoreError::SetAside { .. }
            | StoreError::Failed(_) => return Found::Wrong(format!("a refusal that does not say what it is: {error}")),
        };
        if UpkeepError::from(error).hint().is_none() {
            return Found::Wrong(format!("no way out of '{kind}'"));
        }
        if upkeep::check(at, &mut |_, _| {}).is_ok_and(|checked| checked.is_sound()) {
            return Found::Wrong(format!("'{kind}' for a coordinator is sound for a check"));
        }
        let to = self.folder.path().join("backup");
        if upkeep::backup(at, &to, "unused", &mut |_, _| {}).is_ok() {
            return Found::Wrong(format!("'{kind}' for a coordinator was backed up"));
        }
        Found::Refused(kind)
    }
}

/// What a damage led to.
#[derive(Debug)]
enum Found {
    /// Everything acknowledged is there; the digest of the state.
    Whole(String),
    /// Refused with this reason.
    Refused(&'static str),
    /// Anything else, which fails the test.
    Wrong(String),
}

/// Whether the database is ahead of what its mark file says was acknowledged. Opens a copy.
fn is_ahead(store: &Path, at: &Path) -> bool {
    let sequence = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    copy(store, at);
    let mark = std::fs::read(at.join("mark")).unwrap();
    let slots = mark.chunks(4096).filter(|slot| slot.starts_with(b"evocache mark 1\n"));
    let acknowledged = slots.map(|slot| sequence(&slot[16..])).max().unwrap();
    let db = sled::open(at).unwrap();
    sequence(&db.get("!mark").unwrap().unwrap()) > acknowledged
}

async fn run(seed: u64, damages: usize, bases: &[(usize, usize, usize)]) {
    println!("damage: seed {seed}, {damages} damages");
    let mut tally: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for (number, &(lives, answers, pictures)) in (0..).zip(bases) {
        let base = Base::new(seed + number, lives, answers, pictures).await;
        let mut chance = Stream::new(seed, "damage", number);
        for i in 0..damages / bases.len() {
            let (name, damage) = base.draw(&mut chance);
            let found = match base.look(|copy| damage.apply(&copy.join(&name))) {
                Found::Whole(digest) if digest == base.digest => "harmless",
                Found::Whole(_) if base.is_ahead => "unanswered",
                Found::Whole(_) => {
                    fail(base, format!("seed {seed}, base {number}, {i}: {damage:?} of {name:?}: unnoticed"))
                }
                Found::Refused(kind) => kind,
                Found::Wrong(problem) => {
                    fail(base, format!("seed {seed}, base {number}, {i}: {damage:?} of {name:?}: {problem}"))
                }
            };
            let name = name.to_str().unwrap();
            let file = if name.starts_with("snap.") { "snap" } else { name };
            *tally.entry(file.to_owned()).or_default().entry(found).or_default() += 1;
        }
    }
    for (file, kinds) in &tally {
        println!("damage: {file}: {kinds:?}");
    }
    println!("damage: none unnoticed");
    let refused: usize =
        tally.values().flatten().filter(|(kind, _)| !matches!(**kind, "harmless" | "unanswered")).map(|(_, n)| n).sum();
    assert!(refused * 4 > damages, "hardly any damage did harm: {tally:?}");
    // These are the damages that sled takes for the end of its log.
    assert!(tally["db"].contains_key("lost"), "no damage was of the kind that only a mark tells: {tally:?}");
}

fn fail(base: Base, problem: String) -> ! {
    panic!("{problem}\nkept: {}", base.folder.keep().display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_a_kill_is_harmless_or_refused_by_name() {
    run(setting("CHAOS_SEED", 1), 60, &[(1, 400, 0), (2, 300, 20_000)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn damage_by_the_thousand_is_harmless_or_refused_by_name() {
    let bases =
        [(1, 300, 0), (1, 1500, 0), (2, 900, 0), (3, 1200, 0), (1, 400, 3_000), (2, 500, 3_000), (3, 300, 100_000)];
    run(setting("CHAOS_SEED", 2), setting("CHAOS_ROUNDS", 1400) as usize, &bases).await;
}
