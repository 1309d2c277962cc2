//! The engine as a whole, on a real thread and both stores: whole searches, restarts, repeats, and workers that are
//! slow, silent or wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{TTL, World, declaration, measure, world};
use evocache::engine::{Answer, Command, Move, Refusal, Request};
use evocache::ports::{SearchState, Store};
use evocache::store::{MemoryStore, SledStore};
use evocache_proto::domain::{CandidateId, Profile, RequestId, SearchId, WorkerId};

fn request(id: &str, content: u8) -> Option<Request> {
    Some(Request { id: RequestId::new(id).unwrap(), digest: [content; 32] })
}

async fn phase(world: &crate::common::World, search: &SearchId) -> SearchState {
    let id = search.clone();
    world.handle.query(move |state, _| state.searches[&id].phase).await.unwrap()
}

#[tokio::test]
async fn a_search_runs_to_its_budget_and_improves_on_its_seeds() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 150).await;
    assert_eq!(world.work(&worker, 1000).await, 150);
    assert_eq!(phase(&world, &search).await, SearchState::Completed);
    let (all, seeds, ids) = world
        .handle
        .query(move |state, _| {
            let search = &state.searches[&search];
            let breeder = search.breeder().unwrap();
            let ids: BTreeSet<_> = search.candidates.iter().map(|c| c.proposal.schedule.id()).collect();
            (breeder.hypervolume(), breeder.seeds_hypervolume(), ids.len())
        })
        .await
        .unwrap();
    assert!((130..150).contains(&ids), "all but a few repeated measurements are new schedules, found {ids}");
    assert!(all > seeds, "{all} is no more than the seeds' {seeds}");
}

/// Runs a search with a restart after each of the given numbers of evaluations, and says what it came to.
async fn with_restarts(open: impl Fn() -> Arc<dyn Store>, rungs: &[u32], restarts: &[usize], busy: u64) -> String {
    let busy = Duration::from_millis(busy);
    let mut first_id = 0;
    let mut world = World { busy, ..world(open(), first_id) };
    let worker = world.register("w").await;
    let mut draft = crate::common::draft(60);
    draft.algorithm.rungs = rungs.to_vec();
    world.create_from("s", draft, &[]).await;
    for &evaluations in restarts {
        world.work(&worker, evaluations).await;
        let before = world.digest().await;
        world.engine.stop().unwrap();
        first_id += 1000;
        world = World { busy, ..crate::common::world(open(), first_id) };
        assert_eq!(world.digest().await, before, "recovery gives another state");
    }
    world.work(&worker, 1000).await;
    let digest = world.digest().await;
    world.engine.stop().unwrap();
    digest
}

#[tokio::test]
async fn restarts_change_nothing_on_either_store() {
    for rungs in [&[][..], &[1, 2]] {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let undisturbed = with_restarts(|| memory.clone(), rungs, &[], 0).await;
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
        assert_eq!(with_restarts(|| memory.clone(), rungs, &[1, 7, 30], 0).await, undisturbed);
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
        assert_eq!(with_restarts(open, rungs, &[1, 7, 30], 0).await, undisturbed);
    }
}

#[tokio::test]
async fn after_a_restart_models_begin_anew_and_the_search_ends_as_well() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let digest = with_restarts(|| memory.clone(), &[], &[30, 5], 1000).await;
    assert!(digest.starts_with("search s Completed") && digest.contains("Planned(\"greedy\")"), "{digest}");
}

#[tokio::test]
async fn a_part_of_the_prompts_is_a_part_of_the_budget() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let mut draft = crate::common::draft(40);
    draft.algorithm.rungs = vec![1];
    let search = world.create_from("s", draft, &[]).await;
    let evaluations = world.work(&worker, 1000).await;
    assert_eq!(phase(&world, &search).await, SearchState::Completed);
    let (spent, whole) = world
        .handle
        .query(move |state, _| {
            let search = &state.searches[&search];
            let whole = search.evaluations.iter().filter(|e| e.measurement.metrics[0].values.len() == 3).count();
            (search.spent(), whole)
        })
        .await
        .unwrap();
    assert!((40.0..41.0).contains(&spent), "{spent}");
    assert!(evaluations > 55 && whole < 30, "{evaluations} evaluations, {whole} of them on all prompts");
}

#[tokio::test]
async fn a_search_starts_from_the_front_of_another() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let source = world.create("source", 60).await;
    world.work(&worker, 1000).await;
    let mut draft = crate::common::draft(40);
    draft.sampling.steps = vec![10];
    let target = world.create_from("target", draft.clone(), &[&source]).await;
    world.work(&worker, 1000).await;
    let (front, imported) = world
        .handle
        .query(move |state, _| {
            let front = state.searches[&source].front().len();
            let seeded = |e: &&Arc<evocache_domain::evaluation::Evaluation>| {
                e.provenance.origin.is_seed() && e.provenance.seed_family == "imported"
            };
            (front, state.searches[&target].evaluations.iter().filter(seeded).count())
        })
        .await
        .unwrap();
    // Twelve of them, and two may be the same at ten steps.
    assert!(front > 12 && (8..=12).contains(&imported), "{imported} of {front}");
    let spec = Arc::new(draft.validate().unwrap());
    let ghost = SearchId::new("ghost").unwrap();
    let create = Command::Create { search: None, spec, from: vec![ghost.clone()] };
    assert_eq!(world.handle.command(None, create).await, Err(Refusal::NoSearch(ghost)));
}

#[tokio::test]
async fn a_search_that_has_stopped_growing_ends() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let mut draft = crate::common::draft(10_000);
    draft.budget.stagnation = Some(15);
    let search = world.create_from("s", draft, &[]).await;
    let mut evaluations = 0;
    while phase(&world, &search).await != SearchState::Completed && evaluations < 2000 {
        evaluations += world.work(&worker, 1).await;
        world.tick().await;
    }
    let reason = world.handle.query(move |state, _| state.searches[&search].reason.clone()).await.unwrap();
    assert!((15..2000).contains(&evaluations) && reason.contains("stopped growing"), "{evaluations} {reason}");
}

#[tokio::test]
async fn a_calibration_profile_is_asked_for_once_and_must_fit() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let mut able = declaration("able");
    able.profiles = true;
    let register = Command::Register { declaration: Arc::new(able), principal: String::new() };
    let Answer::Worker(worker) = world.handle.command(None, register).await.unwrap() else { panic!() };
    let search = world.create("s", 20).await;
    let offer = world.offer(&worker).await.unwrap();
    assert!(offer.profile && offer.lease.candidate == CandidateId(0));
    let mut measurement = measure(&offer.schedule);
    let complete = |measurement: &evocache_proto::domain::Measurement| Command::Complete {
        worker: worker.clone(),
        lease: offer.lease.clone(),
        measurement: measurement.clone(),
    };
    measurement.profile = Some(Profile::new(4, 1, vec![0.5; 8]).unwrap());
    let refused = world.handle.command(None, complete(&measurement)).await;
    assert!(matches!(refused, Err(Refusal::Measurement(_))), "{refused:?}");
    let slots = offer.schedule.slots();
    measurement.profile = Some(Profile::new(12, 2, vec![0.1; 24 * slots]).unwrap());
    world.handle.command(None, complete(&measurement)).await.unwrap();
    assert!(!world.offer(&worker).await.unwrap().profile);
    let profiled = move |state: &evocache::engine::State, _| {
        state.searches[&search].breeder().is_some_and(|breeder| breeder.is_profiled())
    };
    assert!(world.handle.query(profiled).await.unwrap());
}

#[tokio::test]
async fn a_lease_that_expires_goes_to_another_worker_and_a_late_result_still_counts_once() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let (slow, quick) = (world.register("slow").await, world.register("quick").await);
    world.create("s", 10).await;
    let lost = world.offer(&slow).await.unwrap();
    world.clock.advance(TTL + Duration::from_millis(1));
    world.tick().await;
    // The back-off has not passed: the quick worker gets another candidate.
    let other = world.offer(&quick).await.unwrap();
    assert_ne!(other.lease.candidate, lost.lease.candidate);
    world.clock.advance(Duration::from_secs(2));
    let again = world.offer(&quick).await.unwrap();
    assert_eq!(again.lease.candidate, lost.lease.candidate);
    assert!(again.lease.epoch > lost.lease.epoch);
    assert_eq!(again.attempt, 2);
    // The slow worker comes back before the quick one has finished: its measurement is taken, the other's is not.
    world.complete(&slow, &lost.lease, &lost.schedule).await;
    let late =
        Command::Complete { worker: quick.clone(), lease: again.lease.clone(), measurement: measure(&again.schedule) };
    assert_eq!(world.handle.command(None, late).await, Err(Refusal::Superseded(again.lease.clone())));
    let renew = Command::Renew { worker: quick, leases: vec![again.lease] };
    let Ok(Answer::Renewed { leases, .. }) = world.handle.command(None, renew).await else { panic!() };
    assert_eq!(leases[0].ttl, None, "the quick worker is told to stop");
}

#[tokio::test]
async fn renewals_keep_a_lease_and_each_is_answered_for_itself() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let offer = world.offer(&worker).await.unwrap();
    let mut strange = offer.lease.clone();
    strange.candidate = CandidateId(77);
    for _ in 0..5 {
        world.clock.advance(TTL / 2);
        world.tick().await;
        let leases = vec![strange.clone(), offer.lease.clone()];
        let renew = Command::Renew { worker: worker.clone(), leases };
        let Ok(Answer::Renewed { leases, .. }) = world.handle.command(None, renew).await else { panic!() };
        assert_eq!((leases[0].ttl, leases[1].ttl), (None, Some(TTL)));
    }
    world.complete(&worker, &offer.lease, &offer.schedule).await;
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_answer_and_a_reused_id_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let world = world(open(), 0);
    let create = |spec| Command::Create { search: None, spec, from: vec![] };
    let first = world.handle.command(request("r-1", 1), create(crate::common::spec(5))).await.unwrap();
    assert_eq!(world.handle.command(request("r-1", 1), create(crate::common::spec(5))).await.unwrap(), first);
    let other = world.handle.command(request("r-1", 2), create(crate::common::spec(6))).await;
    assert!(matches!(other, Err(Refusal::RequestReused(_))));
    let register = Command::Register { declaration: Arc::new(declaration("w")), principal: String::new() };
    let worker = world.handle.command(request("r-2", 1), register.clone()).await.unwrap();
    world.engine.stop().unwrap();
    // Also across a restart.
    let world = crate::common::world(open(), 1000);
    assert_eq!(world.handle.command(request("r-1", 1), create(crate::common::spec(5))).await.unwrap(), first);
    assert_eq!(world.handle.command(request("r-2", 1), register).await.unwrap(), worker);
    let counts = world.handle.query(|s, _| (s.searches.len(), s.workers.len())).await.unwrap();
    assert_eq!(counts, (1, 1));
}

#[tokio::test]
async fn a_result_told_twice_counts_once() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 10).await;
    let offer = world.offer(&worker).await.unwrap();
    world.complete(&worker, &offer.lease, &offer.schedule).await;
    world.complete(&worker, &offer.lease, &offer.schedule).await;
    let n = world.handle.query(move |s, _| s.searches[&search].evaluations.len()).await.unwrap();
    assert_eq!(n, 1);
}

#[tokio::test]
async fn a_measurement_that_cannot_be_true_is_refused_and_the_lease_stays() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let offer = world.offer(&worker).await.unwrap();
    let mut measurement = measure(&offer.schedule);
    measurement.metrics[0].values[1] = f64::NAN;
    let lie = Command::Complete { worker: worker.clone(), lease: offer.lease.clone(), measurement };
    let refusal = world.handle.command(None, lie).await.unwrap_err().to_string();
    assert!(refusal.contains("likeness") && refusal.contains("NaN"), "{refusal}");
    world.complete(&worker, &offer.lease, &offer.schedule).await;
}

#[tokio::test]
async fn failures_are_retried_then_given_up_and_a_hopeless_search_ends_with_the_reason() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 100).await;
    for attempt in 1..=3 {
        let offer = world.offer(&worker).await.unwrap();
        assert_eq!((offer.lease.candidate, offer.attempt), (CandidateId(0), attempt));
        let fail = Command::Fail {
            worker: worker.clone(),
            lease: offer.lease,
            reason: "out of memory".into(),
            retryable: true,
        };
        world.handle.command(None, fail).await.unwrap();
        world.clock.advance(Duration::from_secs(10));
    }
    while let Some(offer) = world.offer(&worker).await {
        assert_ne!(offer.lease.candidate, CandidateId(0));
        let fail = Command::Fail {
            worker: worker.clone(),
            lease: offer.lease,
            reason: "scores are NaN".into(),
            retryable: false,
        };
        world.handle.command(None, fail).await.unwrap();
    }
    let id = search.clone();
    let (phase, reason) =
        world.handle.query(move |s, _| (s.searches[&id].phase, s.searches[&id].reason.clone())).await.unwrap();
    assert_eq!(phase, SearchState::Failed);
    assert!(reason.contains("10 candidates failed") && reason.contains("scores are NaN"), "{reason}");
}

#[tokio::test]
async fn a_released_candidate_is_handed_out_again_as_the_same_attempt() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let (leaving, staying) = (world.register("a").await, world.register("b").await);
    world.create("s", 10).await;
    let offer = world.offer(&leaving).await.unwrap();
    let release = Command::Release { worker: leaving, lease: offer.lease.clone() };
    world.handle.command(None, release).await.unwrap();
    let again = world.offer(&staying).await.unwrap();
    assert_eq!((again.lease.candidate, again.attempt), (offer.lease.candidate, 1));
}

#[tokio::test]
async fn people_pause_resume_stop_and_delete() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 50).await;
    world.work(&worker, 5).await;
    let go = |to| world.handle.command(None, Command::Move { search: search.clone(), to });
    go(Move::Pause).await.unwrap();
    assert_eq!(world.offer(&worker).await, None);
    assert!(matches!(go(Move::Delete).await, Err(Refusal::State { .. })));
    go(Move::Resume).await.unwrap();
    let open = world.offer(&worker).await.unwrap();
    go(Move::Stop).await.unwrap();
    go(Move::Stop).await.unwrap();
    assert_eq!(world.offer(&worker).await, None);
    let late =
        Command::Complete { worker: worker.clone(), lease: open.lease.clone(), measurement: measure(&open.schedule) };
    assert_eq!(world.handle.command(None, late).await, Err(Refusal::Ended(search.clone())));
    assert!(matches!(go(Move::Resume).await, Err(Refusal::State { .. })));
    go(Move::Delete).await.unwrap();
    assert_eq!(go(Move::Stop).await, Err(Refusal::NoSearch(search.clone())));
}

#[tokio::test]
async fn a_waiting_worker_is_woken_by_a_new_search_and_a_drained_one_is_sent_home() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let handle = world.handle.clone();
    let waiting = worker.clone();
    let wait = async move { handle.acquire(waiting, Duration::from_secs(600)).await };
    let (answer, _) = tokio::join!(wait, world.create("s", 10));
    assert!(matches!(answer, Ok(Answer::Work { offer: Some(_), draining: false, .. })));
    world.handle.command(None, Command::Drain { worker: worker.clone() }).await.unwrap();
    let answer = world.handle.acquire(worker, Duration::from_secs(600)).await;
    assert_eq!(answer, Ok(Answer::Work { offer: None, draining: true, idle: String::new() }));
    let stranger = WorkerId::new("stranger").unwrap();
    assert_eq!(world.handle.acquire(stranger.clone(), Duration::ZERO).await, Err(Refusal::NoWorker(stranger)));
}

#[tokio::test]
async fn a_worker_with_other_weights_metrics_or_shape_gets_nothing() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    world.work(&worker, 1).await;
    let mut others = vec![declaration("weights"), declaration("metrics"), declaration("shape"), declaration("model")];
    others[0].fingerprint = "f2".into();
    others[1].metrics[0].name = "other".into();
    others[2].layout = evocache_proto::domain::Layout::pixart(5).unwrap();
    others[3].model = "another".into();
    for other in others {
        let name = other.name.clone();
        let register = Command::Register { declaration: Arc::new(other), principal: String::new() };
        let Answer::Worker(id) = world.handle.command(None, register).await.unwrap() else { panic!() };
        assert_eq!(world.offer(&id).await, None, "{name}");
    }
}

#[tokio::test]
async fn wall_and_device_time_end_a_search_too() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let create = |id: &str, draft: evocache_proto::domain::SpecDraft| Command::Create {
        search: Some(SearchId::new(id).unwrap()),
        spec: Arc::new(draft.validate().unwrap()),
        from: vec![],
    };
    let mut wall = crate::common::draft(1000);
    wall.budget.wall_time = Some(Duration::from_secs(5));
    world.handle.command(None, create("wall", wall)).await.unwrap();
    world.work(&worker, 3).await;
    world.clock.advance(Duration::from_secs(6));
    world.tick().await;
    assert_eq!(phase(&world, &SearchId::new("wall").unwrap()).await, SearchState::Completed);
    let mut device = crate::common::draft(1000);
    device.budget.device_time = Some(Duration::from_millis(45));
    world.handle.command(None, create("device", device)).await.unwrap();
    assert_eq!(world.work(&worker, 100).await, 5, "10 ms each");
}

#[tokio::test]
async fn searches_get_the_workers_that_they_ask_for_and_share_them_by_weight() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let create = |id: &str, change: &dyn Fn(&mut evocache_proto::domain::Placement)| {
        let mut draft = crate::common::draft(1000);
        change(&mut draft.placement);
        let id = id.to_owned();
        let world = &world;
        async move { world.create_from(&id, draft, &[]).await }
    };
    create("heavy", &|p| p.weight = 3).await;
    create("light", &|_| ()).await;
    let worker = world.register("plain").await;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..16 {
        let offer = world.offer(&worker).await.unwrap();
        *counts.entry(offer.lease.search.id.to_string()).or_insert(0) += 1;
    }
    assert_eq!(counts, [("heavy".to_owned(), 12), ("light".to_owned(), 4)].into());
    // What is urgent goes before, and what asks for other workers does not get this one.
    create("picky", &|p| (p.priority, p.device) = (9, "H100".into())).await;
    create("large", &|p| (p.priority, p.memory_bytes) = (9, 40 << 30)).await;
    create("zoned", &|p| (p.priority, p.labels) = (9, [("zone".to_owned(), "b".to_owned())].into())).await;
    create("urgent", &|p| p.priority = 1).await;
    for _ in 0..3 {
        assert_eq!(world.offer(&worker).await.unwrap().lease.search.id.as_str(), "urgent");
    }
    let mut able = declaration("able");
    (able.device, able.memory_bytes) = ("NVIDIA h100 80GB".into(), 80 << 30);
    able.labels.insert("zone".into(), "b".into());
    let command = Command::Register { declaration: Arc::new(able), principal: String::new() };
    let Ok(Answer::Worker(able)) = world.handle.command(None, command).await else { panic!() };
    let mut served = BTreeSet::new();
    for _ in 0..3 {
        served.insert(world.offer(&able).await.unwrap().lease.search.id.to_string());
    }
    assert_eq!(served, ["large", "picky", "zoned"].map(String::from).into());
    world.engine.stop().unwrap();
}

#[tokio::test]
async fn a_pause_does_not_count_for_the_time_left() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 40).await;
    let work = async || {
        for _ in 0..5 {
            world.clock.advance(Duration::from_secs(2));
            assert_eq!(world.work(&worker, 1).await, 1);
        }
    };
    let left = async || {
        let search = search.clone();
        let left = world.handle.query(move |state, now| state.searches[&search].remaining(now));
        left.await.unwrap().map(|left| left.as_secs())
    };
    let to = async |to| {
        world.handle.command(None, Command::Move { search: search.clone(), to }).await.unwrap();
    };
    assert_eq!(left().await, None);
    work().await;
    // The first candidate was handed out after the first two seconds.
    assert_eq!(left().await, Some(8 * 35 / 5));
    to(Move::Pause).await;
    world.clock.advance(Duration::from_hours(1));
    to(Move::Resume).await;
    assert_eq!(left().await, None);
    work().await;
    assert_eq!(left().await, Some(2 * 30));
    world.engine.stop().unwrap();
}
