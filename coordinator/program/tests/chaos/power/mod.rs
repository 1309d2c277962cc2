//! Power cuts: a real coordinator on real sled works under load, everything that it asks of the disk is recorded, and
//! then the power is cut at moments of that record: what was not synced is gone in part. What was answered before that
//! moment must be there. The next life goes on from what one of the cuts left.

mod disk;
mod record;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evocache::server::{Security, ServeOptions};
use evocache_domain::rng::Stream;

use crate::crew::{Crew, Load};
use crate::kills::{inspect, setting};
use crate::ledger::{Ledger, Marks};
use disk::Disk;

/// Answers of a life.
const ANSWERS: usize = 120;
/// A life that takes longer has come to a halt.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there was.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    lives: usize,
    acknowledged: usize,
    ops: usize,
    syncs: usize,
}

/// Whether the disk does what it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Honest,
    /// It says that it has synced, and has not.
    Lies,
}

async fn run(seed: u64, lives: u64, cuts_per_life: usize, sync: Sync) -> Result<(), String> {
    println!("power: seed {seed}, {lives} lives, {cuts_per_life} cuts each");
    let mut tally = Tally::default();
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("disk"), folder.path().join("image"));
    let mut ledger = Ledger::default();
    let mut chance = Stream::new(seed, "power", 0);
    std::fs::create_dir_all(&root).unwrap();
    for life in 0..lives {
        let (mut disk, files) = Disk::of(&root);
        record::begin(&root, &files);
        let pictures = [0, 3_000, 200_000][chance.below(3)];
        let load = Load { seed: seed.wrapping_add(life), life, workers: 4, evaluations: 30, pictures };
        let (after, marks) = work(&root.join("store"), load, ledger.clone()).await;
        let mut ops = record::end();
        let blobs = ops.iter().filter(
            |op| matches!(op, record::Op::Create { name, .. } if name.parent().is_some_and(|p| p.ends_with("blobs"))),
        );
        assert_eq!(blobs.count(), 0, "sled put something into a file of its own, which it does not sync");
        if sync == Sync::Lies {
            // Replaced, not removed: what was answered when is told by positions.
            for op in ops.iter_mut().filter(|op| matches!(op, record::Op::SyncFile { .. })) {
                *op = record::Op::SyncFolder { name: "nowhere".into() };
            }
        }
        tally.lives += 1;
        tally.ops += ops.len();
        tally.syncs += ops.iter().filter(|op| matches!(op, record::Op::SyncFile { .. })).count();
        let mut moments: Vec<usize> = (0..cuts_per_life).map(|_| chance.below(ops.len() + 1)).collect();
        moments.sort_unstable();
        let goes_on = moments.len() * 2 / 3;
        let (mut asked, mut next) = (0, None);
        for (i, moment) in moments.into_iter().enumerate() {
            ops[asked..moment].iter().for_each(|op| disk.ask(op));
            asked = moment;
            let told = marks.iter().rev().find(|(at, _)| *at <= moment).map_or_else(|| ledger.marks(), |(_, m)| *m);
            let promised = after.until(told);
            let _ = std::fs::remove_dir_all(&image);
            std::fs::create_dir_all(&image).unwrap();
            disk.cut(&image, &mut chance);
            if i == goes_on {
                let _ = std::fs::remove_dir_all(folder.path().join("next"));
                crate::kills::copy(&image, &folder.path().join("next"));
                next = Some(promised.clone());
            }
            if let Err(problem) = inspect(&image.join("store"), &promised) {
                if sync == Sync::Lies {
                    return Err(problem);
                }
                let kept = folder.keep();
                let told: Vec<String> = ops[..moment].iter().map(ToString::to_string).collect();
                std::fs::write(kept.join("requests"), told.join("\n")).unwrap();
                return Err(format!(
                    "seed {seed}, life {life} with pictures of {pictures}, cut at {moment} of {}: {problem}\n\
                     kept with the requests to the disk: {}",
                    ops.len(),
                    kept.display()
                ));
            }
            tally.cuts += 1;
            tally.acknowledged += promised.answers();
        }
        if let Some(promised) = next {
            ledger = promised;
            std::fs::remove_dir_all(&root).unwrap();
            std::fs::rename(folder.path().join("next"), &root).unwrap();
        }
    }
    println!(
        "power: {} cuts in {} lives of {} requests to the disk, {} of them syncs; {} answers held against what was \
         left; lost 0, counted twice 0",
        tally.cuts, tally.lives, tally.ops, tally.syncs, tally.acknowledged
    );
    assert!(tally.acknowledged > 0, "nothing was ever promised: {tally:?}");
    Ok(())
}

/// A coordinator under load, until there were enough answers; and when, in the record, each of them came.
async fn work(data: &std::path::Path, load: Load, ledger: Ledger) -> (Ledger, Vec<(usize, Marks)>) {
    let options = ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        reserve: 0,
        accept_loss: false,
        data: data.to_owned(),
        lease_ttl: Duration::from_secs(2),
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    };
    let running = evocache::server::start(options).await.unwrap();
    let marks = Arc::new(Mutex::new(vec![]));
    let told = {
        let marks = marks.clone();
        Arc::new(move |ledger: &Ledger| marks.lock().unwrap().push((record::position(), ledger.marks())))
    };
    let enough = ledger.answers() + ANSWERS;
    let mut crew = Crew::start(load, running.local_addr().port(), told, ledger);
    let halted = tokio::time::timeout(PATIENCE, async {
        while crew.answers() < enough {
            crew.fine();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    halted.await.unwrap_or_else(|_| panic!("there were {} answers of {enough}", crew.answers()));
    let ledger = crew.stop().await;
    running.shutdown().await.unwrap();
    let marks = std::mem::take(&mut *marks.lock().unwrap());
    (ledger, marks)
}

/// There is one recording at a time.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_lose_nothing_that_was_answered() {
    let _one = ONE.lock().await;
    run(setting("CHAOS_SEED", 1), 3, 8, Sync::Honest).await.unwrap_or_else(|problem| panic!("{problem}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cuts_on_a_disk_that_does_not_sync_are_noticed() {
    let _one = ONE.lock().await;
    let problem = run(1, 2, 8, Sync::Lies).await.expect_err("nothing was lost on a disk that never syncs");
    println!("power: noticed: {problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes"]
async fn power_cuts_by_the_hundred_lose_nothing_that_was_answered() {
    let _one = ONE.lock().await;
    let lives = setting("CHAOS_ROUNDS", 12);
    run(setting("CHAOS_SEED", 2), lives, 25, Sync::Honest).await.unwrap_or_else(|problem| panic!("{problem}"));
}
