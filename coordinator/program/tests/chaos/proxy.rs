//! A network that is bad: between workers and coordinator stands a proxy that cuts connections in the middle of messages,
//! both ways or after it has let nothing through in one direction for a while. Real sockets, real time, the real
//! coordinator in a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evocache_domain::rng::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::crew::{Crew, Load};
use crate::kills::{inspect, setting};
use crate::ledger::Ledger;
use crate::process::{Started, start};

/// What becomes of a connection after so many bytes in a direction.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Cut at once, in the middle of whatever it is.
    Cut,
    /// Nothing comes through in this direction for so long; then it is cut.
    Stall(Duration),
}

/// Connections that were cut and stalled.
#[derive(Debug, Default)]
struct Faults {
    cut: AtomicUsize,
    stalled: AtomicUsize,
}

/// Takes connections for ever, and lets none of them live long.
async fn proxy(listener: TcpListener, port: u16, seed: u64, faults: Arc<Faults>) {
    let mut chance = Stream::new(seed, "proxy", 0);
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let fate = match chance.below(3) {
            0 | 1 => Fate::Cut,
            _ => Fate::Stall(Duration::from_millis(100 + chance.below(400) as u64)),
        };
        // Either way round: the request may be lost, or the answer.
        let limit = 200 + chance.below(60_000);
        let limits = if chance.chance(0.5) { (limit, usize::MAX) } else { (usize::MAX, limit) };
        connections.spawn(carry(near, far, fate, limits, faults.clone()));
    }
}

async fn carry(near: TcpStream, far: TcpStream, fate: Fate, (there, back): (usize, usize), faults: Arc<Faults>) {
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    let mut there = std::pin::pin!(pump(near_reads, far_writes, there));
    let mut back = std::pin::pin!(pump(far_reads, near_writes, back));
    // Whichever comes to its end ends both: what is on its way is lost. Where one stalls, the other goes on for a while.
    tokio::select! {
        faulty = &mut there => suffer(faulty, fate, &faults, back).await,
        faulty = &mut back => suffer(faulty, fate, &faults, there).await,
    }
}

async fn suffer(faulty: bool, fate: Fate, faults: &Faults, other: impl Future<Output = bool>) {
    match fate {
        _ if !faulty => {}
        Fate::Cut => drop(faults.cut.fetch_add(1, Ordering::Relaxed)),
        Fate::Stall(span) => {
            faults.stalled.fetch_add(1, Ordering::Relaxed);
            // How it ends does not matter: it is over.
            let _ = tokio::time::timeout(span, other).await;
        }
    }
}

/// Carries bytes until there were so many, or the connection ends; whether it was the former.
async fn pump(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, limit: usize) -> bool {
    let (mut carried, mut bytes) = (0, [0; 4096]);
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return false };
        let passes = read.min(limit - carried);
        if to.write_all(&bytes[..passes]).await.is_err() {
            return false;
        }
        carried += passes;
        if carried == limit {
            return true;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_that_cuts_and_stalls_loses_nothing_and_counts_nothing_twice() {
    let seed = setting("CHAOS_SEED", 1);
    println!("proxy: seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("store"), folder.path().join("log"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut process, started) = start(&data, port, &log, None);
    assert!(matches!(started, Started::Listens(_)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().port();
    let faults = Arc::new(Faults::default());
    let mut network = JoinSet::new();
    network.spawn(proxy(listener, port, seed, faults.clone()));
    let load = Load { seed, life: 0, workers: 6, evaluations: 30, pictures: 3_000 };
    let mut crew = Crew::start(load, near, Arc::new(|_: &Ledger| {}), Ledger::default());
    let enough = async {
        while crew.answers() < 400 || faults.cut.load(Ordering::Relaxed) < 20 {
            crew.fine();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), enough).await.unwrap_or_else(|_| panic!("no progress: {faults:?}"));
    let ledger = crew.stop().await;
    process.kill();
    inspect(&data, &ledger).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
    println!("proxy: {} answers through {faults:?}", ledger.answers());
}
