//! Whose turn it is: calls that are looked into at once, few of each principal.
//!
//! A caller with hundreds of calls waits behind itself, and one with a single call behind at most a few of everybody
//! else's. Absent: how often somebody may call, which is `quota.rs`, and how many bytes calls hold, which is `budget.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits;
use super::quota::Principal;

/// Principals beyond which those that nobody needs any more are looked for and forgotten.
const REMEMBERED: usize = 256;

/// What is kept of each principal as long as somebody holds it.
pub(super) struct Principals<T>(Mutex<HashMap<Principal, Weak<T>>>);

impl<T> Default for Principals<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Principals<T> {
    /// What is kept of this one.
    pub(super) fn get(&self, principal: &Principal, new: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get(principal).and_then(Weak::upgrade) {
            return own;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(new());
        known.insert(principal.clone(), Arc::downgrade(&own));
        own
    }
}

/// Turns of calls. Clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    each: Arc<Principals<Semaphore>>,
}

/// A turn, over when it is dropped.
pub(super) struct Turn {
    _all: Option<OwnedSemaphorePermit>,
    _own: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(limits::TURNS)), each: Arc::default() }
    }

    /// Waits for a turn.
    pub(super) async fn take(&self, principal: &Principal) -> Turn {
        let own = self.each.get(principal, || Semaphore::new(limits::TURNS_EACH));
        // Nobody closes them, so that there is a permit in the end.
        let own = own.acquire_owned().await.ok();
        Turn { _all: self.all.clone().acquire_owned().await.ok(), _own: own }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn who(name: &str) -> Principal {
        Principal::Token(name.into())
    }

    #[tokio::test]
    async fn many_calls_of_one_wait_behind_each_other_and_not_before_others() {
        let turns = Turns::new();
        let greedy: Vec<Turn> = std::iter::from_fn(|| turns.take(&who("a")).now_or_never()).take(100).collect();
        assert_eq!(greedy.len(), limits::TURNS_EACH);
        let mut waiting: Vec<_> = (0..100)
            .map(|_| {
                let turns = turns.clone();
                Box::pin(async move { turns.take(&who("a")).await })
            })
            .collect();
        assert!(waiting.iter_mut().all(|call| call.now_or_never().is_none()));
        assert!(turns.take(&who("b")).now_or_never().is_some());
        drop(greedy);
        assert!(waiting[0].as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_flood_of_principals_is_forgotten() {
        let known = Principals::default();
        for i in 0..10_000 {
            known.get(&who(&i.to_string()), || i);
        }
        assert!(known.0.lock().unwrap().len() <= REMEMBERED);
    }
}
