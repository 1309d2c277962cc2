//! Bytes that callers make the coordinator hold: requests that are not processed yet, answers that are not read yet.
//!
//! Each principal has a budget, and all principals together have one. A caller that has used up its own budget waits
//! behind itself, not in front of others: part of the common budget is reserved for the first share of each principal, so
//! a caller that holds nothing is served whatever others hold. A share is returned when the last byte that it covers is
//! freed, wherever that byte was. How large a single message may be is `limits.rs`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::principal::{Principal, Principals};
use super::refusals;
use crate::server::limits::Allotment;

/// Bytes are counted in KiB, rounded up.
const UNIT: usize = 1024;

/// A budget of bytes. Clones share it.
#[derive(Clone)]
pub(super) struct Budget(Arc<Inner>);

struct Inner {
    allotment: Allotment,
    first: Arc<Semaphore>,
    more: Arc<Semaphore>,
    principals: Principals<Own>,
}

/// What one principal has left of its budget.
struct Own {
    bytes: Arc<Semaphore>,
    first: Arc<Semaphore>,
}

/// Bytes reserved until this is dropped.
pub(super) struct Share {
    own: OwnedSemaphorePermit,
    common: OwnedSemaphorePermit,
    _first: Option<OwnedSemaphorePermit>,
    _principal: Arc<Own>,
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Budget {
    pub(super) fn new(allotment: Allotment) -> Self {
        let of = |bytes: usize| Arc::new(Semaphore::new(units(bytes) as usize));
        let (first, more) = (of(allotment.first), of(allotment.more));
        Self(Arc::new(Inner { allotment, first, more, principals: Principals::default() }))
    }

    /// Reserves bytes for a principal, waiting for them if necessary.
    pub(super) async fn take(&self, principal: &Principal, bytes: usize) -> Result<Share, Status> {
        let share = tokio::time::timeout(self.0.allotment.patience, self.wait(principal, bytes)).await;
        share.ok().flatten().ok_or_else(|| refusals::too_many_bytes(bytes, self.0.allotment.each))
    }

    /// `None` if no principal may ever hold so much.
    async fn wait(&self, principal: &Principal, bytes: usize) -> Option<Share> {
        let (inner, count) = (&self.0, units(bytes));
        if bytes > inner.allotment.each {
            return None;
        }
        let principal = self.own(principal);
        let own = principal.bytes.clone().acquire_many_owned(count).await.ok()?;
        let (common, first) = tokio::select! {
            biased;
            first = principal.first.clone().acquire_owned() => {
                (inner.first.clone().acquire_many_owned(count).await.ok()?, first.ok())
            }
            more = inner.more.clone().acquire_many_owned(count) => (more.ok()?, None),
        };
        Some(Share { own, common, _first: first, _principal: principal })
    }

    fn own(&self, principal: &Principal) -> Arc<Own> {
        self.0.principals.get(principal, || Own {
            bytes: Arc::new(Semaphore::new(units(self.0.allotment.each) as usize)),
            first: Arc::new(Semaphore::new(1)),
        })
    }

    /// Bytes that are reserved now.
    pub(super) fn held(&self) -> usize {
        let Inner { allotment, first, more, .. } = &*self.0;
        let all = units(allotment.first) as usize + units(allotment.more) as usize;
        all.saturating_sub(first.available_permits() + more.available_permits()) * UNIT
    }
}

impl Share {
    /// Returns all but this many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        for permit in [&mut self.own, &mut self.common] {
            drop(permit.split(permit.num_permits().saturating_sub(units(bytes) as usize)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget() -> Budget {
        Budget::new(Allotment { each: 8 << 10, first: 16 << 10, more: 8 << 10, patience: Duration::ZERO })
    }

    fn who(name: &str) -> Principal {
        Principal::Token(name.into())
    }

    #[tokio::test]
    async fn whoever_holds_nothing_is_served_while_others_hold_all_that_they_may() {
        let budget = budget();
        let mut held = vec![];
        // Each of these takes all that it gets.
        for name in ["a", "b", "c"] {
            while let Ok(share) = budget.take(&who(name), 4 << 10).await {
                held.push(share);
            }
        }
        assert_eq!((held.len(), budget.held()), (5, 20 << 10), "two each as long as there are more, then one");
        let honest = budget.take(&who("honest"), 4 << 10).await;
        assert!(honest.is_ok());
        let status = budget.take(&who("honest"), 4 << 10).await.err().unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        drop(honest);
        assert!(budget.take(&who("honest"), 4 << 10).await.is_ok());
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn a_share_that_turns_out_smaller_makes_room() {
        let budget = budget();
        let mut share = budget.take(&who("a"), 8 << 10).await.ok().unwrap();
        assert!(budget.take(&who("a"), 1).await.is_err());
        share.shrink(3000);
        assert_eq!(budget.held(), 3 << 10);
        assert!(budget.take(&who("a"), 5 << 10).await.is_ok());
        assert!(budget.take(&who("a"), 9 << 10).await.is_err(), "more than anybody may");
    }
}
