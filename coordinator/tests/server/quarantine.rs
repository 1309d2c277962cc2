//! Workers that lie, against an engine: found by what others measure, kept from work, and what they said undone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{World, draft, measure, world};
use evocache::engine::{Answer, Command, Refusal};
use evocache::ports::{SearchState, Store};
use evocache::store::{MemoryStore, SledStore};
use evocache_proto::domain::{Budget, Decision, Imported, Layout, Measurement, Schedule, SearchId, Strategy, WorkerId};

/// What a worker makes of what it has measured.
type Lie = fn(&mut Measurement);

fn honest(_: &mut Measurement) {}

fn flatters(measurement: &mut Measurement) {
    measurement.metrics[0].values.iter_mut().for_each(|value| *value *= 1.1);
}

fn has_another_model(measurement: &mut Measurement) {
    measurement.metrics[0].baseline_mean = 0.9;
}

/// One candidate for each worker in turn, until nobody gets any; the clock is looked at in between.
async fn work(world: &World, crew: &[(WorkerId, Lie)]) -> Vec<String> {
    let mut refused = vec![];
    for round in 0.. {
        assert!(round < 1000, "a search without an end");
        let mut idle = 0;
        for (worker, lie) in crew {
            let answer = match world.handle.acquire(worker.clone(), Duration::ZERO).await {
                Err(Refusal::Quarantined { reason, .. }) => {
                    refused.push(reason);
                    idle += 1;
                    continue;
                }
                other => other.unwrap(),
            };
            let Answer::Work { offer: Some(offer), .. } = answer else {
                idle += 1;
                continue;
            };
            let mut measurement = measure(&offer.schedule);
            lie(&mut measurement);
            let command = Command::Complete { worker: worker.clone(), lease: offer.lease, measurement };
            assert_eq!(world.handle.command(None, command).await, Ok(Answer::Accepted));
        }
        world.tick().await;
        if idle == crew.len() {
            return refused;
        }
    }
    refused
}

/// Schedules with nothing to breed among: what comes out depends on nobody's turn.
fn given() -> Vec<Imported> {
    let layout = Arc::new(Layout::pixart(crate::common::BLOCKS).unwrap());
    let schedule = |i: usize| {
        let reuses = |step: u32, slot: usize| (step as usize * 7919 + slot * 31 + i * 104_729) % 40 < i;
        let decision = |step, slot| if step > 0 && reuses(step, slot) { Decision::Reuse } else { Decision::Compute };
        Schedule::from_fn(layout.clone(), 12, decision).unwrap()
    };
    (1..40).map(|i| Imported { name: format!("given-{i}"), schedule: schedule(i) }).collect()
}

/// The front by schedule, with what is reported of each.
async fn front(world: &World, search: &SearchId) -> BTreeMap<String, String> {
    let id = search.clone();
    let question = move |state: &evocache::engine::State, _| {
        let search = &state.searches[&id];
        let told = |e: &evocache_domain::evaluation::Evaluation| format!("{:?}", e.measurement.metrics);
        search.front().into_iter().map(|e| (e.schedule.id().to_string(), told(e))).collect()
    };
    world.handle.query(question).await.unwrap()
}

async fn search(store: Arc<dyn Store>, lies: &[Lie], strategy: Strategy) -> (World, SearchId, Vec<(WorkerId, Lie)>) {
    let world = world(store, 0);
    let mut draft = draft(120);
    draft.algorithm.strategy = strategy;
    if strategy == Strategy::Imported {
        draft.imported = given();
    }
    let search = world.create_from("s", draft, &[]).await;
    let mut crew = vec![];
    for (i, lie) in lies.iter().enumerate() {
        crew.push((world.register(&format!("w{i}")).await, *lie));
    }
    (world, search, crew)
}

#[tokio::test]
async fn a_front_is_the_same_with_a_liar_as_without() {
    let memory = || Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    let (world, id, crew) = search(memory(), &[honest as Lie; 4], Strategy::Imported).await;
    assert_eq!(work(&world, &crew).await, Vec::<String>::new());
    let undisturbed = front(&world, &id).await;
    assert!(undisturbed.len() > 5, "{undisturbed:?}");
    for (lie, reason) in [(flatters as Lie, "likeness"), (has_another_model, "uncached likeness")] {
        // Whoever begins measures the uncached run too, and a liar may.
        for crew in [[lie, honest as Lie, honest, honest, honest], [honest, honest, lie, honest, honest]] {
            let (world, id, crew) = search(memory(), &crew, Strategy::Imported).await;
            let refused = work(&world, &crew).await;
            assert!(refused.iter().any(|why| why.contains(&format!("agree: {reason}"))), "{refused:?}");
            assert_eq!(front(&world, &id).await, undisturbed);
            world.engine.stop().unwrap();
        }
    }
}

#[tokio::test]
async fn a_restart_believes_whom_it_believed_before() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
    let (before, id, crew) = search(open(), &[honest, honest, flatters as Lie, honest], Strategy::SteadyState).await;
    assert!(!work(&before, &crew).await.is_empty());
    let liar = crew[2].0.clone();
    let digest = before.digest().await;
    before.engine.stop().unwrap();
    let world = world(open(), 1000);
    assert_eq!(world.digest().await, digest);
    let again = world.handle.acquire(liar.clone(), Duration::ZERO).await;
    assert!(matches!(again, Err(Refusal::Quarantined { worker, .. }) if worker == liar));
    let question = move |state: &evocache::engine::State, _| {
        let search = &state.searches[&id];
        let by_liar = search.front().into_iter().filter(|e| e.worker == liar).count();
        (search.phase, by_liar, search.spent())
    };
    let (phase, by_liar, spent) = world.handle.query(question).await.unwrap();
    assert_eq!((phase, by_liar), (SearchState::Completed, 0));
    assert!((120.0..126.0).contains(&spent), "what is not believed is not paid for: {spent}");
    world.engine.stop().unwrap();
}

#[tokio::test]
async fn what_a_search_has_of_a_liar_counts_no_more_once_it_is_extended() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
    let mut world = world(open(), 0);
    let mut crew: Vec<(WorkerId, Lie)> = vec![];
    for (name, lie) in [("liar", flatters as Lie), ("a", honest), ("b", honest), ("c", honest)] {
        crew.push((world.register(name).await, lie));
    }
    // Alone it is not found out, and then it is in another search.
    let id = world.create("old", 30).await;
    work(&world, &crew[..1]).await;
    world.create("new", 120).await;
    assert!(!work(&world, &crew).await.is_empty());
    let liar = crew[0].0.clone();
    let look = async |world: &World| {
        let (id, liar) = (id.clone(), liar.clone());
        let question = move |state: &evocache::engine::State, _| {
            let search = &state.searches[&id];
            let by_liar = search.front().into_iter().filter(|e| e.worker == liar).count();
            (search.phase, by_liar > 0, search.spent())
        };
        world.handle.query(question).await.unwrap()
    };
    assert_eq!(look(&world).await, (SearchState::Completed, true, 30.0));
    let budget = Budget { evaluations: Some(60), ..Budget::default() };
    world.handle.command(None, Command::Extend { search: id.clone(), budget }).await.unwrap();
    assert_eq!(look(&world).await, (SearchState::Running, false, 0.0));
    let digest = world.digest().await;
    world.engine.stop().unwrap();
    world = crate::common::world(open(), 1000);
    assert_eq!(world.digest().await, digest);
    work(&world, &crew[1..]).await;
    let (phase, by_liar, spent) = look(&world).await;
    assert!((phase, by_liar) == (SearchState::Completed, false) && (60.0..66.0).contains(&spent), "{phase:?} {spent}");
    world.engine.stop().unwrap();
}
