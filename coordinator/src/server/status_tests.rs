//! Tests of statuses: each refusal has its reason, and none is too large.

use evocache_proto::domain::{CandidateId, Epoch, SearchId, SearchRef, WorkerId};
use tonic::codegen::http;

use super::*;
use crate::ports::{Room, StoreError};

/// Bytes of the headers in which a status is sent.
fn sent(status: Status) -> usize {
    let answer: http::Response<tonic::body::Body> = status.into_http();
    answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

#[test]
fn no_status_is_larger_than_what_clients_read() {
    let mut wrong = Problems::default();
    for i in 0..1_000_000 {
        wrong.add(format_args!("rungs[{i}]"), "ü".repeat(300));
    }
    let status = spec(SpecError(wrong));
    assert!(status.message().ends_with("; and 999997 more"), "{status}");
    assert!(sent(status) < 8192);
    let long = "ü".repeat(1 << 20);
    let facts = [("nearest_candidate", long.clone()), ("wanted", long.clone()), ("method", long.clone())];
    let evil = [
        invalid(&long, &long),
        refusal(Refusal::Measurement(long.clone())),
        refusal(Refusal::Specification(long.clone())),
        with(Reason::RoleNeeded, &long, &facts),
        with(Reason::NoSchedule, &long, &facts),
    ];
    for status in evil {
        let bytes = sent(status);
        assert!(bytes < 8192, "{bytes}");
    }
}

/// The refusals one after another, one of each kind. A new kind does not compile until it is added.
fn after(refusal: Option<&Refusal>) -> Option<Refusal> {
    let (search, worker) = (SearchId::new("s").unwrap(), WorkerId::new("w").unwrap());
    let uid = evocache_proto::domain::SearchUid::new("1").unwrap();
    let lease = LeaseKey { search: SearchRef { id: search.clone(), uid }, candidate: CandidateId(7), epoch: Epoch(3) };
    Some(match refusal {
        None => Refusal::NoSearch(search),
        Some(Refusal::NoSearch(_)) => Refusal::NoWorker(worker),
        Some(Refusal::NoWorker(_)) => Refusal::Exists(search),
        Some(Refusal::Exists(_)) => Refusal::BeingDeleted(search),
        Some(Refusal::BeingDeleted(_)) => Refusal::RequestReused("r-12345678".parse().unwrap()),
        Some(Refusal::RequestReused(_)) => Refusal::Specification(String::new()),
        Some(Refusal::Specification(_)) => Refusal::Measurement(String::new()),
        Some(Refusal::Measurement(_)) => Refusal::State { search, problem: String::new() },
        Some(Refusal::State { .. }) => Refusal::Budget { search, problem: String::new() },
        Some(Refusal::Budget { .. }) => Refusal::Superseded(lease),
        Some(Refusal::Superseded(_)) => Refusal::ResultDiffers(lease),
        Some(Refusal::ResultDiffers(_)) => Refusal::Ended(search),
        Some(Refusal::Ended(_)) => Refusal::Quarantined { worker, reason: String::new() },
        Some(Refusal::Quarantined { .. }) => Refusal::TooManyLeases(worker),
        Some(Refusal::TooManyLeases(_)) => Refusal::TooManyWorkers(5),
        Some(Refusal::TooManyWorkers(_)) => Refusal::Busy,
        Some(Refusal::Busy) => Refusal::Full(Room { left: 1, reserve: 2 }),
        Some(Refusal::Full(_)) => Refusal::Store(StoreError::Failed(String::new())),
        Some(Refusal::Store(_)) => Refusal::Stopping,
        Some(Refusal::Stopping) => Refusal::Internal(String::new()),
        Some(Refusal::Internal(_)) => return None,
    })
}

#[test]
fn every_refusal_has_a_reason_of_its_own_with_its_code() {
    let mut seen = vec![];
    let mut next = after(None);
    while let Some(each) = next {
        let reason = reason(&each);
        assert!(!seen.contains(&reason), "{reason:?} stands for two refusals");
        seen.push(reason);
        next = after(Some(&each));
        let status = refusal(each);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), DOMAIN));
        assert_eq!(status.code(), reason.code(), "{reason:?}");
        assert_eq!(details.retry_info().and_then(|retry| retry.retry_delay), reason.retry_after(), "{reason:?}");
    }
    assert_eq!(seen.len(), 20);
}
