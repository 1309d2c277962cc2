//! Rate limits: calls per second and concurrent calls of each principal.
//!
//! A principal is a token's name, or an address for callers without a valid token. Each has a token bucket for each kind
//! of call. The memory for them is bounded: full buckets are forgotten, and if there are still too many principals, all
//! later ones share one bucket. How large a message may be is `limits.rs`; how many connections there may be is
//! `connections.rs`.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::InMemoryState;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::principal::Principal;

/// Principals that are counted apart for each kind of call.
const PRINCIPALS: usize = 10_000;

/// The kinds of calls that have limits of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Changes something; made by operators and admins.
    Changes,
    /// Changes nothing; made by readers and above.
    Reads,
    /// Made by workers.
    Workers,
    /// Refused for lack of a valid token or role.
    Strangers,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Changes, Self::Reads, Self::Workers, Self::Strangers];

    /// The name in labels, flags and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::Workers => "workers",
            Self::Strangers => "strangers",
        }
    }
}

/// The limits of one principal for one kind of call. Written `RATE:BURST:AT_ONCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Calls per second, on average.
    pub per_second: NonZeroU32,
    /// Calls in a burst after a pause.
    pub burst: NonZeroU32,
    /// Concurrent calls; a watch counts until it ends.
    pub at_once: NonZeroU32,
}

impl Allowance {
    const fn new(per_second: u32, burst: u32, at_once: u32) -> Self {
        const fn least_one(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_second: least_one(per_second), burst: least_one(burst), at_once: least_one(at_once) }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.per_second, self.burst, self.at_once)
    }
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not RATE:BURST:AT_ONCE, three whole numbers above 0 such as 50:200:64");
        let numbers: Result<Vec<NonZeroU32>, _> = text.split(':').map(str::parse).collect();
        match numbers.map_err(|_| wrong())?.as_slice() {
            &[per_second, burst, at_once] => Ok(Self { per_second, burst, at_once }),
            _ => Err(wrong()),
        }
    }
}

/// The limits of each principal; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// For calls that change something.
    pub changes: Option<Allowance>,
    /// For calls that read.
    pub reads: Option<Allowance>,
    /// For calls of workers. A whole fleet may share a token, and reconnects at once after a restart.
    pub workers: Option<Allowance>,
    /// For refused calls.
    pub strangers: Option<Allowance>,
}

impl Quotas {
    /// No limits.
    pub const NONE: Self = Self { changes: None, reads: None, workers: None, strangers: None };
    /// The defaults. A worker makes three calls per evaluation and one more every 20 s: one token serves 10,000 workers
    /// that all reconnect in the same moment.
    pub const DEFAULT: Self = Self {
        changes: Some(Allowance::new(50, 200, 64)),
        reads: Some(Allowance::new(200, 1000, 512)),
        workers: Some(Allowance::new(5000, 50_000, 20_000)),
        strangers: Some(Allowance::new(10, 100, 64)),
    };

    fn of(&self, kind: Kind) -> Option<Allowance> {
        match kind {
            Kind::Changes => self.changes,
            Kind::Reads => self.reads,
            Kind::Workers => self.workers,
            Kind::Strangers => self.strangers,
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which limit a call exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Too many calls per second; the next is allowed after this time.
    Rate(Duration),
    /// Too many concurrent calls.
    AtOnce,
}

type Direct = RateLimiter<governor::state::NotKeyed, InMemoryState, DefaultClock>;
type Buckets = RateLimiter<Principal, HashMapStateStore<Principal>, DefaultClock>;

struct Limited {
    allowance: Allowance,
    buckets: Buckets,
    /// How often full buckets are looked for: that goes through all of them.
    looks: Direct,
    running: Mutex<HashMap<Principal, u32>>,
}

struct Inner {
    /// By kind.
    limited: [Option<Limited>; 4],
    /// Refused calls by kind: rate, concurrency.
    refused: [[AtomicU64; 2]; 4],
    /// Bounds log lines, so that a flood of calls does not flood the log.
    log_lines: Direct,
}

/// Counts the calls of principals. Clones share the counts.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

impl Limiter {
    /// A limiter without any calls counted.
    pub fn new(quotas: &Quotas) -> Self {
        let limited = Kind::ALL.map(|kind| {
            quotas.of(kind).map(|allowance| Limited {
                allowance,
                buckets: RateLimiter::hashmap(Quota::per_second(allowance.per_second).allow_burst(allowance.burst)),
                looks: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN)),
                running: Mutex::default(),
            })
        });
        let log_lines = RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN.saturating_add(5)));
        Self(Arc::new(Inner { limited, refused: Default::default(), log_lines }))
    }

    /// Refused calls so far: kind, `rate` or `at_once`, number.
    pub fn read(&self) -> Vec<(Kind, &'static str, u64)> {
        let of = |kind: Kind| {
            let [rate, at_once] = &self.0.refused[kind as usize];
            [(kind, "rate", rate.load(Ordering::Relaxed)), (kind, "at_once", at_once.load(Ordering::Relaxed))]
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    /// Counts a call; the place is held until the call is over. `None` if the kind has no limits.
    pub(super) fn enter(&self, kind: Kind, principal: Principal) -> Result<Option<Place>, Excess> {
        let entered = self.try_enter(kind, principal.clone());
        if let Err(excess) = &entered {
            let index = usize::from(matches!(excess, Excess::AtOnce));
            self.0.refused[kind as usize][index].fetch_add(1, Ordering::Relaxed);
            if self.0.log_lines.check().is_ok() {
                tracing::warn!(%principal, kind = kind.as_str(), ?excess, "rate limit exceeded: calls are refused");
            }
        }
        entered
    }

    fn try_enter(&self, kind: Kind, principal: Principal) -> Result<Option<Place>, Excess> {
        let Some(limited) = &self.0.limited[kind as usize] else { return Ok(None) };
        let principal = limited.known(principal);
        if let Err(until) = limited.buckets.check_key(&principal) {
            return Err(Excess::Rate(until.wait_time_from(DefaultClock::default().now())));
        }
        let mut running = limited.running.lock().unwrap_or_else(PoisonError::into_inner);
        let here = running.entry(principal.clone()).or_default();
        if *here >= limited.allowance.at_once.get() {
            return Err(Excess::AtOnce);
        }
        *here += 1;
        Ok(Some(Place { limiter: self.clone(), kind, principal }))
    }
}

impl Limited {
    /// The principal, or [`Principal::Others`] if there are too many.
    fn known(&self, principal: Principal) -> Principal {
        if self.buckets.len() < PRINCIPALS {
            return principal;
        }
        if self.looks.check().is_ok() {
            self.buckets.retain_recent();
        }
        if self.buckets.len() < PRINCIPALS { principal } else { Principal::Others }
    }
}

/// The place of a running call.
pub(super) struct Place {
    limiter: Limiter,
    kind: Kind,
    principal: Principal,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(limited) = &self.limiter.0.limited[self.kind as usize] else { return };
        let mut running = limited.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = running.get_mut(&self.principal) {
            *here -= 1;
            // The map holds running calls only.
            if *here == 0 {
                running.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn limiter(text: &str) -> Limiter {
        Limiter::new(&Quotas { reads: Some(text.parse().unwrap()), ..Quotas::NONE })
    }

    fn address(last: u32) -> Principal {
        Principal::address(IpAddr::from((0x0a00_0000 + last).to_be_bytes()))
    }

    #[test]
    fn each_principal_has_a_bucket_of_its_own() {
        let limiter = limiter("1:3:9");
        for _ in 0..3 {
            assert!(limiter.enter(Kind::Reads, address(1)).is_ok());
        }
        let Err(Excess::Rate(wait)) = limiter.enter(Kind::Reads, address(1)).map(drop) else { panic!("too many") };
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert!(limiter.enter(Kind::Reads, address(2)).is_ok());
        assert!(limiter.enter(Kind::Reads, Principal::Token("ci".into())).is_ok());
        assert!(limiter.enter(Kind::Changes, address(1)).is_ok(), "this kind has no limits");
        assert_eq!(limiter.read()[2], (Kind::Reads, "rate", 1));
    }

    #[test]
    fn a_call_that_is_over_makes_room() {
        let limiter = limiter("1000:1000:2");
        let first = limiter.enter(Kind::Reads, address(1)).ok().unwrap();
        let _second = limiter.enter(Kind::Reads, address(1)).ok().unwrap();
        assert_eq!(limiter.enter(Kind::Reads, address(1)).err(), Some(Excess::AtOnce));
        drop(first);
        assert!(limiter.enter(Kind::Reads, address(1)).is_ok());
        assert_eq!(limiter.read()[3], (Kind::Reads, "at_once", 1));
    }

    #[test]
    fn a_flood_of_addresses_is_kept_in_bounded_memory() {
        // A bucket takes an hour to fill up again: none can be forgotten.
        let limiter = limiter("1:3600:9");
        let held: Vec<_> = (0..3 * PRINCIPALS as u32).map(|n| limiter.enter(Kind::Reads, address(n))).collect();
        let limited = limiter.0.limited[Kind::Reads as usize].as_ref().unwrap();
        assert!(limited.buckets.len() <= PRINCIPALS + 1, "{}", limited.buckets.len());
        assert!(limited.running.lock().unwrap().len() <= PRINCIPALS + 1);
        drop(held);
        assert!(limited.running.lock().unwrap().is_empty());
    }

    #[test]
    fn an_allowance_is_read_as_it_is_written() {
        let allowance: Allowance = "50:200:64".parse().unwrap();
        assert_eq!(allowance.to_string(), "50:200:64");
        for wrong in ["", "50", "50:200", "0:1:1", "1:1:1:1", "a:b:c", "-1:1:1"] {
            assert!(wrong.parse::<Allowance>().unwrap_err().contains("RATE:BURST:AT_ONCE"), "{wrong}");
        }
    }
}
