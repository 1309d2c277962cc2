//! Damages records in the store of a small search: reading it gives a state, or an error that says why.

#![no_main]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use evocache::engine::{Answer, Command, Context, State, decide};
use evocache::ports::{IdSource, Store};
use evocache::store::MemoryStore;
use evocache_domain::lease::RetryPolicy;
use evocache_domain::rng::Stream;
use evocache_domain::time::Timestamp;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[path = "../../program/tests/chaos/toy.rs"]
mod toy;

/// A change of the records. A place indexes them, modulo their number.
#[derive(Debug, Arbitrary)]
enum Damage {
    Remove(u16),
    Replace(u16, Vec<u8>),
    Add(Vec<u8>, Vec<u8>),
    Cut(u16, u16),
    Flip(u16, u16, u8),
    /// Gives a record another one's value.
    Take(u16, u16),
    /// Changes the last byte of a record's key, which mostly belongs to a number.
    Rename(u16, u8),
}

#[derive(Default)]
struct Counting(AtomicU64);

impl IdSource for Counting {
    fn unique(&self) -> String {
        format!("id-{}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const NOW: Timestamp = Timestamp(1_000_000);

fn policy() -> RetryPolicy {
    toy::policy(Duration::from_secs(60))
}

/// What a coordinator writes for a search with twelve evaluations, one failure and one open lease.
static WHOLE: LazyLock<Records> = LazyLock::new(|| {
    let (store, ids, policy) = (MemoryStore::new(), Counting::default(), policy());
    let (mut state, mut chance) = (State::default(), Stream::new(1, "fuzz", 0));
    let mut carry_out = |command: Command| {
        let decision = decide(&state, None, &command, &Context { now: NOW, policy: &policy, ids: &ids, scarce: None });
        let decision = decision.expect("a small search is in order");
        store.commit(&decision.facts).expect("memory does not fail");
        decision.facts.into_iter().for_each(|fact| state.apply(fact).expect("a decision fits the state"));
        decision.answer.unwrap_or(Answer::Accepted)
    };
    let spec = Arc::new(toy::spec(100, 2));
    carry_out(Command::Create { search: None, spec, from: vec![] });
    let declaration = Arc::new(toy::declaration("w"));
    let Answer::Worker(worker) = carry_out(Command::Register { declaration, principal: String::new() }) else {
        panic!("a worker was not registered")
    };
    for i in 0..14 {
        let Answer::Work { offer: Some(offer), .. } = carry_out(Command::Acquire { worker: worker.clone() }) else {
            panic!("there is no work")
        };
        let (worker, lease) = (worker.clone(), offer.lease);
        match i {
            5 => drop(carry_out(Command::Fail { worker, lease, reason: "memory".into(), retryable: false })),
            13 => {}
            _ => {
                let pictures = vec![vec![1, 2, 3]];
                let measurement = toy::measure(&offer.schedule, offer.prompts.to_number(), pictures, &mut chance);
                drop(carry_out(Command::Complete { worker, lease, measurement }));
            }
        }
    }
    store.into_records()
});

fn recover(records: Records) -> Result<State, String> {
    let store: MemoryStore = records.into_iter().collect();
    let facts = store.load().map_err(|e| e.to_string())?;
    State::recover(facts, NOW, &policy()).map_err(|e| e.to_string())
}

fuzz_target!(|damages: Vec<Damage>| {
    let mut records = WHOLE.clone();
    for damage in damages {
        let key =
            |place: u16| records.keys().nth(usize::from(place) % records.len().max(1)).cloned().unwrap_or_default();
        match damage {
            Damage::Remove(at) => drop(records.remove(&key(at))),
            Damage::Replace(at, value) => drop(records.insert(key(at), value)),
            Damage::Add(key, value) => drop(records.insert(key, value)),
            Damage::Cut(at, length) => records.entry(key(at)).or_default().truncate(length.into()),
            Damage::Flip(at, place, bits) => {
                let value = records.entry(key(at)).or_default();
                let place = usize::from(place) % value.len().max(1);
                value.get_mut(place).into_iter().for_each(|byte| *byte ^= bits);
            }
            Damage::Take(at, from) => {
                let value = records.get(&key(from)).cloned().unwrap_or_default();
                records.insert(key(at), value);
            }
            Damage::Rename(at, last) => {
                let mut key = key(at);
                let value = records.remove(&key).unwrap_or_default();
                key.last_mut().into_iter().for_each(|byte| *byte = last);
                records.insert(key, value);
            }
        }
    }
    let whole = records == *WHOLE;
    match recover(records) {
        Ok(state) => state.searches.values().for_each(|search| drop(search.front())),
        Err(problem) => assert!(!whole && !problem.is_empty(), "{problem}"),
    }
});
