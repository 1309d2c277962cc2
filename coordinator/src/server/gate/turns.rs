//! Turns: how many calls are processed at the same time, in all and for each principal.
//!
//! A principal with hundreds of calls waits behind itself; one with a single call waits behind a few of each other
//! principal at most. How often a principal may call is `quota.rs`; how many bytes its calls may hold is `budget.rs`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::principal::{Principal, Principals};
use crate::server::limits;

/// Hands out turns. Clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    each: Arc<Principals<Semaphore>>,
}

/// The turn of one call; it ends when this is dropped.
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
        // Neither semaphore is ever closed, so a permit always comes.
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
}
