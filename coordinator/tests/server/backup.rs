//! Backups of running stores: each is of one moment, whatever is written meanwhile; there is one at a time; and writers do
//! not wait for it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evocache::client::{Backup, Client, SearchState};
use evocache::ports::{BackupError, Cleared, Fact, RequestRecord, Store};
use evocache::server::{Running, Security, ServeOptions, start};
use evocache::store::{MemoryStore, SledStore};
use evocache::upkeep::{self, Unfinished};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{CandidateId, Layout, RequestId, SearchId, WorkerId};
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use proptest::prelude::*;

use crate::common::{BLOCKS, declaration, draft, measure};
use crate::store::pictured;

/// A write. A search is created if it does not exist, deleted if it does, and cleared if it was deleted.
#[derive(Debug, Clone)]
enum Change {
    Quarantine { worker: u8, bytes: u16 },
    Forget { worker: u8 },
    Answer { request: u8, at: u64 },
    ForgetAnswer { request: u8 },
    Search { number: u8 },
    Sync,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..12u8, prop_oneof![1..200u16, 4_000..20_000u16])
            .prop_map(|(worker, bytes)| Change::Quarantine { worker, bytes }),
        2 => (0..12u8).prop_map(|worker| Change::Forget { worker }),
        4 => (0..40u8, any::<u64>()).prop_map(|(request, at)| Change::Answer { request, at }),
        2 => (0..40u8).prop_map(|request| Change::ForgetAnswer { request }),
        2 => (0..4u8).prop_map(|number| Change::Search { number }),
        2 => Just(Change::Sync),
    ]
}

/// The searches that exist, and those that were deleted and may still have records.
#[derive(Default)]
struct Searches {
    there: BTreeSet<u8>,
    deleted: BTreeSet<u8>,
}

fn write(store: &SledStore, searches: &mut Searches, change: &Change) {
    let worker = |worker: &u8| WorkerId::new(format!("w-{worker}")).unwrap();
    let request = |request: &u8| RequestId::new(format!("r-{request}")).unwrap();
    let facts = match change {
        Change::Quarantine { worker: number, bytes } => {
            let reason = format!("{bytes} ").repeat(usize::from(*bytes) / 5 + 1);
            vec![Fact::WorkerQuarantined { worker: worker(number), reason, at: Timestamp(1) }]
        }
        Change::Forget { worker: number } => vec![Fact::WorkerForgotten { worker: worker(number) }],
        Change::Answer { request: number, at } => {
            let (kind, subject) = ("create_search".to_owned(), "s".to_owned());
            let record = RequestRecord { kind, digest: [7; 32], subject, at: Timestamp(*at) };
            vec![Fact::RequestAnswered { request: request(number), record }]
        }
        Change::ForgetAnswer { request: number } => vec![Fact::RequestForgotten { request: request(number) }],
        Change::Search { number } if searches.there.remove(number) => {
            searches.deleted.insert(*number);
            vec![Fact::SearchDeleted { search: search(*number) }]
        }
        Change::Search { number } if searches.deleted.contains(number) => {
            match store.clear(&search(*number)).unwrap() {
                Cleared::All => {
                    searches.deleted.remove(number);
                    vec![Fact::SearchCleared { search: search(*number) }]
                }
                Cleared::Some | Cleared::Later => vec![],
            }
        }
        Change::Search { number } => {
            searches.there.insert(*number);
            pictured(search(*number).as_str(), 30_000).0
        }
        Change::Sync => return store.sync().unwrap(),
    };
    store.commit(&facts).unwrap();
}

fn search(number: u8) -> SearchId {
    SearchId::new(format!("s-{number}")).unwrap()
}

/// Everything that a store holds.
fn held(store: &SledStore) -> (Vec<Fact>, Vec<Vec<Vec<u8>>>) {
    let pictures = (0..4).map(|number| store.thumbnails(&search(number), CandidateId(1)).unwrap()).collect();
    (store.load().unwrap(), pictures)
}

/// Takes a backup, and disturbs it after every `every` writes.
struct Disturbing<F> {
    bytes: Vec<u8>,
    writes: usize,
    every: usize,
    disturb: F,
}

impl<F: FnMut()> Write for Disturbing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.writes += 1;
        if self.writes.is_multiple_of(self.every) {
            (self.disturb)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The store that is restored from a backup.
fn restored(folder: &Path, bytes: &[u8]) -> SledStore {
    let (file, copy) = (folder.join("backup"), folder.join("copy"));
    std::fs::write(&file, bytes).unwrap();
    upkeep::restore(&file, &copy, &mut |_, _| {}).unwrap();
    SledStore::open(&copy).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_backup_is_of_one_moment_whatever_is_written_meanwhile(
        before in prop::collection::vec(change(), 1..60),
        meanwhile in prop::collection::vec(change(), 0..80),
        every in 1..12usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(&folder.path().join("store")).unwrap();
        let mut searches = Searches::default();
        before.iter().for_each(|change| write(&store, &mut searches, change));
        let expected = held(&store);
        let mut changes = meanwhile.iter();
        let disturb = || {
            // Several at a time, because one part of the backup has many records.
            changes.by_ref().take(3).for_each(|change| write(&store, &mut searches, change));
        };
        let mut out = Disturbing { bytes: vec![], writes: 0, every, disturb };
        store.back_up(&mut out, &mut |_, _| {}).unwrap();
        let bytes = out.bytes;
        prop_assert!(held(&restored(folder.path(), &bytes)) == expected, "the backup is of another moment");
        // The store itself has everything that was written.
        let after = held(&store);
        drop(store);
        prop_assert!(held(&SledStore::open(&folder.path().join("store")).unwrap()) == after);
    }
}

#[test]
fn one_backup_at_a_time_and_one_that_nobody_takes_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let mut searches = Searches::default();
    write(&store, &mut searches, &Change::Search { number: 1 });
    let mut second = vec![];
    let disturb = || second.push(store.back_up(&mut io::sink(), &mut |_, _| {}).unwrap_err());
    store.back_up(&mut Disturbing { bytes: vec![], writes: 0, every: 1, disturb }, &mut |_, _| {}).unwrap();
    assert!(second.len() > 10 && second.iter().all(|error| matches!(error, BackupError::Busy)), "{second:?}");

    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(store.back_up(&mut Gone, &mut |_, _| {}), Err(BackupError::Untaken(_))));
    store.back_up(&mut io::sink(), &mut |_, _| {}).unwrap();
    let memory = MemoryStore::new().back_up(&mut io::sink(), &mut |_, _| {}).unwrap_err();
    assert!(memory.to_string().contains("no backups"), "{memory}");
}

async fn serve(data: &Path) -> (Running, Client) {
    let options = ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        reserve: 0,
        accept_loss: false,
        data: data.to_owned(),
        lease_ttl: Duration::from_secs(30),
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    };
    let running = start(options).await.unwrap();
    let client = Client::connect(&running.url()).await.unwrap();
    (running, client)
}

/// Completes at most `most` evaluations, each with a large picture.
async fn work(url: String, worker: &WorkerId, most: usize) {
    let layout = Arc::new(Layout::pixart(BLOCKS).unwrap());
    let mut stub = WorkerServiceClient::connect(url).await.unwrap();
    for _ in 0..most {
        let wait = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
        let acquire = pb::AcquireLeaseRequest { worker_id: worker.to_string(), wait };
        let Some(lease) = stub.acquire_lease(acquire).await.unwrap().into_inner().lease else { return };
        let mut measurement = measure(&wire::schedule(&layout, lease.schedule.as_ref().unwrap()).unwrap());
        measurement.thumbnails = vec![vec![lease.candidate as u8; 200_000]];
        let lease = pb::LeaseRef::from(&lease);
        let complete = pb::CompleteEvaluationRequest {
            request_id: format!("done-{}", lease.candidate),
            worker_id: worker.to_string(),
            lease: Some(lease),
            measurement: Some((&measurement).into()),
        };
        stub.complete_evaluation(complete).await.unwrap();
    }
}

async fn received(file: &mut Unfinished, backup: &mut Backup) {
    while let Some(piece) = backup.next().await.unwrap() {
        assert!(piece.bytes.len() <= 64 * 1024 && piece.done <= piece.records, "{} bytes", piece.bytes.len());
        file.write(&piece.bytes).unwrap();
    }
}

#[tokio::test]
async fn a_coordinator_is_backed_up_while_it_works_and_the_copy_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let (running, client) = serve(&data).await;
    let id = SearchId::new("toy").unwrap();
    client.create_search(Some(&id), &draft(40).validate().unwrap()).await.unwrap();
    let mut stub = WorkerServiceClient::connect(running.url()).await.unwrap();
    let registered = stub.register_worker(wire::register_request("reg".into(), &declaration("w"))).await.unwrap();
    let worker = WorkerId::new(registered.into_inner().worker_id).unwrap();
    work(running.url(), &worker, 25).await;

    // The backup exceeds what the server reads ahead and what the connection buffers, so it waits for its reader.
    let mut file = Unfinished::begin(folder.path(), "live.backup").unwrap();
    let mut backup = client.back_up().await.unwrap();
    let first = backup.next().await.unwrap().unwrap();
    assert!(first.done < first.records, "{} of {}", first.done, first.records);
    file.write(&first.bytes).unwrap();
    let refused = client.back_up().await.unwrap().next().await.unwrap_err();
    assert!(refused.reason() == "BACKUP_RUNNING" && refused.to_string().contains("wait for its end"), "{refused}");
    work(running.url(), &worker, 100).await;
    assert_eq!(client.search(&id).await.unwrap().state, SearchState::Completed, "nobody waits for a backup");
    client.delete_search(&id).await.unwrap();
    received(&mut file, &mut backup).await;
    let (file, summary) = file.finish_verified().unwrap();
    assert_eq!(file, folder.path().join("live.backup"));

    // A backup whose caller has gone makes way for the next one.
    let mut next = Unfinished::begin(folder.path(), "next.backup").unwrap();
    client.create_search(Some(&id), &draft(40).validate().unwrap()).await.unwrap();
    work(running.url(), &worker, 25).await;
    drop(client.back_up().await.unwrap());
    let mut whole = loop {
        let mut backup = client.back_up().await.unwrap();
        match backup.next().await {
            Ok(Some(piece)) => {
                next.write(&piece.bytes).unwrap();
                break backup;
            }
            other => assert_eq!(other.unwrap_err().reason(), "BACKUP_RUNNING"),
        }
    };
    received(&mut next, &mut whole).await;
    drop(whole);
    next.finish_verified().unwrap();
    // A running backup does not keep the coordinator from stopping.
    let mut cut = client.back_up().await.unwrap();
    cut.next().await.unwrap().unwrap();
    running.shutdown().await.unwrap();

    assert_eq!(upkeep::restore(&file, &copy, &mut |_, _| {}).unwrap(), summary);
    let checked = upkeep::check(&copy, &mut |_, _| {}).unwrap();
    assert!(checked.is_sound() && checked.kinds.contains(&("evaluations", 25)), "{checked:?}");
    let (running, client) = serve(&copy).await;
    work(running.url(), &worker, 100).await;
    let search = client.search(&id).await.unwrap();
    assert_eq!((search.state, search.progress.evaluations), (SearchState::Completed, 40));
    running.shutdown().await.unwrap();
}
