//! Searches whose budget is raised: what completed runs on with all that it has, also across restarts, and what cannot go
//! on is refused by name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evocache::client::{Client, SearchState};
use evocache::engine::{Answer, Command, Move, Refusal, Request};
use evocache::ports::Store;
use evocache::server::{Running, Security, ServeOptions, start};
use evocache::store::{MemoryStore, SledStore};
use evocache::upkeep;
use evocache_proto::domain::{Budget, CandidateId, Layout, Maker, RequestId, SearchId, Strategy, WorkerId};
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};

use crate::common::{BLOCKS, World, declaration, draft, measure, world};

fn evaluations(n: u64) -> Budget {
    Budget { evaluations: Some(n), ..Budget::default() }
}

async fn extend(world: &World, search: &SearchId, budget: Budget) -> Result<Answer, Refusal> {
    world.handle.command(None, Command::Extend { search: search.clone(), budget }).await
}

async fn phase(world: &World, search: &SearchId) -> SearchState {
    let id = search.clone();
    world.handle.query(move |state, _| state.searches[&id].phase).await.unwrap()
}

/// As much device time as so many evaluations take.
fn device_time(n: u64) -> Budget {
    Budget { device_time: Some(Duration::from_millis(10 * n)), ..Budget::default() }
}

/// A search that completes, is extended, and goes on, twice; with restarts, the store is opened again after each
/// extension.
async fn extended(
    store: &dyn Fn() -> Arc<dyn Store>,
    strategy: Strategy,
    limit: fn(u64) -> Budget,
    restarts: bool,
) -> String {
    let (mut world, mut first_id) = (world(store(), 0), 0);
    let (worker, other) = (world.register("w").await, world.register("other").await);
    let mut draft = draft(40);
    draft.algorithm.strategy = strategy;
    draft.budget = limit(40);
    let search = world.create_from("s", draft, &[]).await;
    world.work(&worker, 20).await;
    // Cancelled with the search, and then wanted again; a generation of NSGA-II waits for it.
    let cancelled = limit(40).evaluations.is_none() && strategy != Strategy::Nsga2;
    let held = if cancelled { world.offer(&other).await } else { None };
    world.work(&worker, 1000).await;
    world.tick().await;
    assert_eq!(phase(&world, &search).await, SearchState::Completed, "{strategy:?}");
    let before = results(&world, &search).await;
    for budget in [70, 100] {
        let members = front(&world, &search).await;
        extend(&world, &search, limit(budget)).await.unwrap();
        assert_eq!(front(&world, &search).await, members, "it has lost members of its front");
        assert_eq!(phase(&world, &search).await, SearchState::Running);
        if restarts {
            let before = world.digest().await;
            world.engine.stop().unwrap();
            first_id += 1000;
            world = crate::common::world(store(), first_id);
            assert_eq!(world.digest().await, before, "replay gives another state after an extension to {budget}");
        }
        if let Some(held) = held.as_ref().filter(|_| budget == 70) {
            world.complete(&other, &held.lease, &held.schedule).await;
        }
        world.work(&worker, 1000).await;
        world.tick().await;
        assert_eq!(phase(&world, &search).await, SearchState::Completed, "{strategy:?}, {:?}", limit(budget));
        let after = results(&world, &search).await;
        assert_eq!(after.len() as u64, budget, "{strategy:?}");
        assert_eq!(after[..before.len()], before[..], "what there was has changed");
    }
    let digest = world.digest().await;
    world.engine.stop().unwrap();
    digest
}

async fn front(world: &World, search: &SearchId) -> Vec<CandidateId> {
    let id = search.clone();
    let look =
        move |state: &evocache::engine::State, _| state.searches[&id].front().iter().map(|e| e.candidate).collect();
    world.handle.query(look).await.unwrap()
}

/// Candidates in the order of their results.
async fn results(world: &World, search: &SearchId) -> Vec<CandidateId> {
    let id = search.clone();
    let look =
        move |state: &evocache::engine::State, _| state.searches[&id].evaluations.iter().map(|e| e.candidate).collect();
    world.handle.query(look).await.unwrap()
}

#[tokio::test]
async fn a_completed_search_runs_on_and_restarts_change_nothing() {
    for limit in [evaluations as fn(u64) -> Budget, device_time] {
        for strategy in [Strategy::SteadyState, Strategy::Nsga2] {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let undisturbed = extended(&|| memory.clone(), strategy, limit, false).await;
            let folder = tempfile::tempdir().unwrap();
            let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
            assert_eq!(extended(&open, strategy, limit, true).await, undisturbed, "{strategy:?}");
        }
    }
}

#[tokio::test]
async fn models_of_the_error_go_on_too() {
    let mut world = world(Arc::new(MemoryStore::new()), 0);
    world.busy = Duration::from_secs(1);
    world.clock.advance(Duration::from_secs(10_000));
    let worker = world.register("w").await;
    let search = world.create("s", 40).await;
    let planned = async |world: &World, from: usize| {
        let id = search.clone();
        let look = move |state: &evocache::engine::State, _| {
            let candidates = state.searches[&id].candidates.iter().skip(from);
            candidates.filter(|c| matches!(c.proposal.provenance.origin.maker(), Some(Maker::Planned(_)))).count()
        };
        world.handle.query(look).await.unwrap()
    };
    assert_eq!(world.work(&worker, 1000).await, 40);
    extend(&world, &search, evaluations(90)).await.unwrap();
    assert_eq!(world.work(&worker, 1000).await, 50);
    assert!(planned(&world, 60).await > 5, "{} schedules were planned", planned(&world, 60).await);
}

#[tokio::test]
async fn a_search_that_goes_on_stays_as_it_is_and_is_longer() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 10).await;
    extend(&world, &search, evaluations(12)).await.unwrap();
    assert_eq!(phase(&world, &search).await, SearchState::Pending);
    world.work(&worker, 5).await;
    extend(&world, &search, evaluations(14)).await.unwrap();
    assert_eq!(phase(&world, &search).await, SearchState::Running);
    let pause = Command::Move { search: search.clone(), to: Move::Pause };
    world.handle.command(None, pause).await.unwrap();
    extend(&world, &search, evaluations(16)).await.unwrap();
    assert_eq!((phase(&world, &search).await, world.work(&worker, 100).await), (SearchState::Paused, 0));
    let resume = Command::Move { search: search.clone(), to: Move::Resume };
    world.handle.command(None, resume).await.unwrap();
    assert_eq!(world.work(&worker, 100).await, 11);
}

#[tokio::test]
async fn a_budget_that_is_not_raised_is_refused_with_its_numbers() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let mut limited = draft(10_000);
    limited.budget = Budget { evaluations: Some(1000), stagnation: Some(15), ..Budget::default() };
    let search = world.create_from("s", limited, &[]).await;
    while phase(&world, &search).await != SearchState::Completed {
        world.work(&worker, 1).await;
        world.tick().await;
    }
    let refused = async |budget: Budget, words: &[&str]| {
        let told = extend(&world, &search, budget).await.unwrap_err().to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{words:?} are not in: {told}");
    };
    refused(evaluations(1000), &["'s'", "1000 evaluations", "no more than the 1000"]).await;
    refused(evaluations(2000), &["15 evaluations without growth are used up", "raise that limit too"]).await;
    let wall_time = Some(Duration::from_secs(60));
    refused(Budget { wall_time, ..evaluations(2000) }, &["no wall_time", "leave it out"]).await;
    refused(evaluations(20_000_000), &["15 evaluations without growth"]).await;
    let more = Budget { stagnation: Some(30), ..Budget::default() };
    refused(Budget { evaluations: Some(20_000_000), ..more }, &["budget.evaluations", "10000000"]).await;
    extend(&world, &search, more).await.unwrap();
    assert_eq!(phase(&world, &search).await, SearchState::Running);
    assert!(world.work(&worker, 5).await == 5);

    let stop = Command::Move { search: search.clone(), to: Move::Stop };
    world.handle.command(None, stop).await.unwrap();
    refused(evaluations(3000), &["'s' was stopped for good", "launch"]).await;
    let nobody = SearchId::new("nobody").unwrap();
    assert_eq!(extend(&world, &nobody, evaluations(5)).await, Err(Refusal::NoSearch(nobody)));
}

#[tokio::test]
async fn a_search_with_nothing_left_to_try_is_not_extended() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let mut imported = draft(50);
    imported.algorithm.strategy = Strategy::Imported;
    let search = world.create_from("s", imported, &[]).await;
    world.work(&worker, 100).await;
    world.tick().await;
    assert_eq!(phase(&world, &search).await, SearchState::Completed);
    let told = extend(&world, &search, evaluations(60)).await.unwrap_err().to_string();
    assert!(told.contains("no schedule left to try"), "{told}");
}

#[tokio::test]
async fn time_in_which_a_search_had_completed_is_no_time_of_its() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut world = world(open(), 0);
    let worker = world.register("w").await;
    let mut timed = draft(10);
    timed.budget = Budget { wall_time: Some(Duration::from_secs(60)), ..Budget::default() };
    let search = world.create_from("s", timed, &[]).await;
    world.work(&worker, 3).await;
    world.clock.advance(Duration::from_secs(61));
    world.tick().await;
    assert_eq!(phase(&world, &search).await, SearchState::Completed);
    world.clock.advance(Duration::from_secs(5000));
    let wall = |seconds| Budget { wall_time: Some(Duration::from_secs(seconds)), ..Budget::default() };
    let told = extend(&world, &search, wall(61)).await.unwrap_err().to_string();
    assert!(told.contains("61s of wall time are used up already (61s)"), "{told}");
    extend(&world, &search, wall(120)).await.unwrap();
    let clock = world.clock.clone();
    for seconds in [40, 25] {
        assert_eq!(world.work(&worker, 1).await, 1);
        world.engine.stop().unwrap();
        world = crate::common::world(open(), 1000 * seconds);
        // Its clock begins where that of the one before has stood.
        world.clock.advance(Duration::from_millis(evocache::ports::Clock::now(&*clock).0 - 1_000_000));
        clock.advance(Duration::from_secs(seconds));
        world.clock.advance(Duration::from_secs(seconds));
        world.tick().await;
    }
    assert_eq!(phase(&world, &search).await, SearchState::Completed);
}

#[tokio::test]
async fn a_repeated_extension_is_answered_as_the_first_and_extends_once() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let search = world.create("s", 10).await;
    let request = || Some(Request { id: RequestId::new("r-1").unwrap(), digest: [1; 32] });
    let command = || Command::Extend { search: search.clone(), budget: evaluations(20) };
    let first = world.handle.command(request(), command()).await;
    assert_eq!(first, Ok(Answer::Search(search.clone())));
    assert_eq!(world.handle.command(request(), command()).await, first);
    assert!(matches!(world.handle.command(None, command()).await, Err(Refusal::Budget { .. })));
}

async fn serve(folder: &tempfile::TempDir) -> (Running, Client) {
    let options = ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        reserve: 0,
        accept_loss: false,
        data: folder.path().join("store"),
        lease_ttl: Duration::from_secs(30),
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    };
    let running = start(options).await.unwrap();
    let client = Client::connect(&running.url()).await.unwrap();
    (running, client)
}

/// Evaluates all that there is, until there is nothing more.
async fn work(url: String, worker: &WorkerId) {
    let layout = Arc::new(Layout::pixart(BLOCKS).unwrap());
    let mut stub = WorkerServiceClient::connect(url).await.unwrap();
    loop {
        let wait = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
        let acquire = pb::AcquireLeaseRequest { worker_id: worker.to_string(), wait };
        let Some(lease) = stub.acquire_lease(acquire).await.unwrap().into_inner().lease else { return };
        let schedule = wire::schedule(&layout, lease.schedule.as_ref().unwrap()).unwrap();
        let lease = pb::LeaseRef::from(&lease);
        let complete = pb::CompleteEvaluationRequest {
            request_id: format!("done-{}", lease.candidate),
            worker_id: worker.to_string(),
            lease: Some(lease),
            measurement: Some((&measure(&schedule)).into()),
        };
        stub.complete_evaluation(complete).await.unwrap();
    }
}

#[tokio::test]
async fn a_completed_search_is_extended_over_grpc_and_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let id = SearchId::new("toy").unwrap();
    let (running, client) = serve(&folder).await;
    client.create_search(Some(&id), &draft(30).validate().unwrap()).await.unwrap();
    let mut stub = WorkerServiceClient::connect(running.url()).await.unwrap();
    let registered = stub.register_worker(wire::register_request("reg".into(), &declaration("w"))).await.unwrap();
    let worker = WorkerId::new(registered.into_inner().worker_id).unwrap();
    work(running.url(), &worker).await;
    let first = client.evaluations(&id, false).await.unwrap();
    assert_eq!((first.len(), client.search(&id).await.unwrap().state), (30, SearchState::Completed));
    running.shutdown().await.unwrap();

    let (running, client) = serve(&folder).await;
    let search = client.extend_search(&id, &evaluations(50)).await.unwrap();
    assert_eq!((search.state, search.spec.budget.evaluations, search.end_time), (SearchState::Running, Some(50), None));
    running.shutdown().await.unwrap();

    let (running, client) = serve(&folder).await;
    assert_eq!(client.search(&id).await.unwrap().spec.budget.evaluations, Some(50));
    let mut watch = client.watch(&id);
    work(running.url(), &worker).await;
    let mut budgets = vec![];
    while let Some(event) = watch.next().await {
        if let evocache::client::WatchEvent::State { budget, .. } = event.unwrap() {
            budgets.push(budget.and_then(|budget| budget.evaluations));
        }
    }
    assert!(!budgets.is_empty() && budgets.iter().all(|n| *n == Some(50)), "{budgets:?}");
    let second = client.evaluations(&id, false).await.unwrap();
    assert_eq!((second.len(), client.search(&id).await.unwrap().state), (50, SearchState::Completed));
    let ids = |all: &[evocache::client::Evaluation]| all.iter().map(|e| e.candidate).collect::<Vec<_>>();
    assert_eq!(ids(&second)[..30], ids(&first)[..]);
    let refused = client.extend_search(&id, &evaluations(50)).await.unwrap_err();
    assert_eq!(refused.reason(), "SEARCH_BUDGET");
    let nothing = client.extend_search(&id, &Budget::default()).await.unwrap_err();
    assert!(nothing.reason() == "INVALID_ARGUMENT" && nothing.to_string().contains("stagnation"), "{nothing}");
    running.shutdown().await.unwrap();

    let (data, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let (file, _) = upkeep::backup(&data, &folder.path().join("b"), "unused", &mut |_, _| {}).unwrap();
    upkeep::restore(&file, &copy, &mut |_, _| {}).unwrap();
    let checked = upkeep::check(&copy, &mut |_, _| {}).unwrap();
    assert!(checked.is_sound() && checked.kinds.contains(&("extended budgets", 1)), "{checked:?}");
}
