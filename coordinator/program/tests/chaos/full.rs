//! A disk that is suddenly full, and has space again later: a coordinator that cannot write acknowledges nothing, and
//! recovers by itself. The full disk is simulated by the system's limit on the size of a process's files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crew::{Crew, Load};
use crate::kills::{inspect, setting};
use crate::ledger::Ledger;
use crate::process::start_to_be_confined;

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Waits until the crew has got `more` further answers.
async fn answered(crew: &mut Crew, more: usize) {
    let (began, before) = (Instant::now(), crew.answers());
    while crew.answers() < before + more {
        assert!(began.elapsed() < PATIENCE, "{} answers, then none", crew.answers());
        crew.fine();
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_whose_disk_was_full_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("store"), folder.path().join("log"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut process = start_to_be_confined(&data, port, &log);
    let load = Load { seed: 1, life: 0, workers: 6, evaluations: 30, pictures: 2000 };
    let mut crew = Crew::start(load, port, Arc::new(|_: &Ledger| {}), Ledger::default());
    let times = setting("CHAOS_ROUNDS", 1);
    for _ in 0..times {
        answered(&mut crew, 200).await;
        let size = std::fs::metadata(data.join("db")).unwrap().len();
        process.confine(Some(size + 100_000));
        // Wait until there was no answer for long enough that none is still on its way.
        let (began, mut last) = (Instant::now(), (crew.answers(), Instant::now()));
        while last.1.elapsed() < Duration::from_secs(2) {
            assert!(began.elapsed() < PATIENCE, "it never was full");
            tokio::time::sleep(LOOK).await;
            if crew.answers() > last.0 {
                last = (crew.answers(), Instant::now());
            }
        }
        process.confine(None);
        answered(&mut crew, 200).await;
    }
    process.kill();
    crew.fine();
    let ledger = crew.stop().await;
    inspect(&data, &ledger).unwrap();
    println!("full: {} answers, {times} times without room; lost 0, counted twice 0", ledger.answers());
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.matches("the store is open again").count() as u64 >= times, "{told}");
}
