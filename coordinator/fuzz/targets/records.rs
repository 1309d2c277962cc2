//! A store of any records: they are read as facts, and the state is rebuilt from them, or what is wrong is told.

#![no_main]

use std::time::Duration;

use evocache::domain::lease::RetryPolicy;
use evocache::domain::time::Timestamp;
use evocache::engine::State;
use evocache::ports::Store;
use evocache::store::MemoryStore;
use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// A record whose key is of a known kind, so that chance gets past it.
#[derive(Debug, Arbitrary)]
struct Record {
    kind: u8,
    search: u8,
    number: Option<u8>,
    value: Vec<u8>,
}

fuzz_target!(|records: Vec<Record>| {
    let records = records.into_iter().map(|record| {
        let kinds = b"wdsmpcletr";
        let mut key = vec![kinds[usize::from(record.kind) % kinds.len()], b'/', b'a' + record.search % 4];
        if let Some(number) = record.number {
            key.push(0);
            key.extend(u64::from(number).to_be_bytes());
        }
        (key, record.value)
    });
    let store = MemoryStore::of(records);
    if let Ok(facts) = store.load() {
        let (base, ttl) = (Duration::from_secs(1), Duration::from_secs(60));
        drop(State::recover(facts, Timestamp(0), &RetryPolicy { max_attempts: 5, base, cap: ttl, ttl }));
    }
});
