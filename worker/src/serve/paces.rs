//! How many pictures a minute each holder of a token, or each address where no token is asked for, may have.
//!
//! The generic cell rate algorithm (ITU-T I.371): for each holder, the time at which it will have paid for what it had.
//! What was not let in by the queue is given back, so that an overloaded server does not use up anybody's pictures.
//!
//! **Invariant:** reads no clock.

use std::collections::HashMap;
use std::time::Duration;

use evocache_net::pace::Pace;
use tokio::time::Instant;

/// Holders that are counted apart. Beyond that, all others share one account: memory is bounded.
const HOLDERS: usize = 10_000;
/// The name of that account; no holder and no address has it.
const OTHERS: &str = "";

/// Why a holder may not have so many now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooFast {
    /// In this time it may.
    Wait(Duration),
    /// More than it may ever have at once.
    Never(u32),
}

/// The accounts.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// When each will have paid for what it had; those who have are not in it.
    paid: HashMap<String, Instant>,
}

impl Paces {
    /// Takes so many pictures from a holder's account.
    pub(super) fn take(&mut self, holder: &str, pace: Pace, count: u32, now: Instant) -> Result<(), TooFast> {
        let burst = pace.burst.get();
        if count > burst {
            return Err(TooFast::Never(burst));
        }
        let interval = pace.interval();
        let account = self.account(holder, now).to_owned();
        let paid = self.paid.get(&account).copied().unwrap_or(now).max(now) + interval * count;
        let ahead = paid.saturating_duration_since(now);
        let most = interval * burst;
        if ahead > most {
            return Err(TooFast::Wait(ahead - most));
        }
        self.paid.insert(account, paid);
        Ok(())
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, holder: &str, pace: Pace, count: u32) {
        let account = if self.paid.contains_key(holder) { holder } else { OTHERS };
        if let Some(paid) = self.paid.get_mut(account) {
            *paid = paid.checked_sub(pace.interval() * count).unwrap_or(*paid);
        }
    }

    /// The account of a holder.
    fn account<'a>(&mut self, holder: &'a str, now: Instant) -> &'a str {
        if self.paid.len() >= HOLDERS && !self.paid.contains_key(holder) {
            self.paid.retain(|_, paid| *paid > now);
            if self.paid.len() >= HOLDERS {
                return OTHERS;
            }
        }
        holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_a_burst_and_then_one_after_the_other() {
        let (pace, start) = ("60:4".parse().unwrap(), Instant::now());
        let second = Duration::from_secs(1);
        let mut paces = Paces::default();
        assert_eq!(paces.take("ada", pace, 5, start), Err(TooFast::Never(4)));
        assert_eq!(paces.take("ada", pace, 4, start), Ok(()));
        assert_eq!(paces.take("ada", pace, 2, start), Err(TooFast::Wait(second * 2)));
        assert_eq!(paces.take("eve", pace, 4, start), Ok(()));
        assert_eq!(paces.take("ada", pace, 1, start + second), Ok(()));
        assert_eq!(paces.take("ada", pace, 1, start + second), Err(TooFast::Wait(second)));
        paces.give_back("ada", pace, 1);
        assert_eq!(paces.take("ada", pace, 1, start + second), Ok(()));
        assert_eq!(paces.take("ada", pace, 4, start + second * 100), Ok(()));
    }

    #[test]
    fn strangers_without_number_take_no_memory() {
        let (pace, start) = ("1:1".parse().unwrap(), Instant::now());
        let mut paces = Paces::default();
        let refused = (0..2 * HOLDERS).filter(|i| paces.take(&i.to_string(), pace, 1, start).is_err()).count();
        assert_eq!((paces.paid.len(), refused), (HOLDERS + 1, HOLDERS - 1));
        // Once the others have paid there is room again.
        assert_eq!(paces.take("new", pace, 1, start + Duration::from_secs(61)), Ok(()));
        assert_eq!(paces.paid.len(), 1);
    }
}
