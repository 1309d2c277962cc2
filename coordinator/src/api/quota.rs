//! How much each principal may ask: calls per second, calls at once.
//!
//! A principal is a token's name, or the address where no token is asked for or none is good. Each has a bucket for each
//! kind of call. What is kept is bounded: buckets that are full again are forgotten, and when there are too many
//! principals all the same, those that come after share one. Absent on purpose: how large a message may be, which is
//! `limits.rs`, and how many connections, which is `incoming.rs`.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::InMemoryState;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Principals that are kept apart, of each kind of call.
const PRINCIPALS: usize = 10_000;

/// What a call costs whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes something, and no worker makes it.
    Changes,
    /// It changes nothing, and no worker makes it.
    Reads,
    /// Workers make it.
    Workers,
    /// It was not let in.
    Strangers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Changes, Self::Reads, Self::Workers, Self::Strangers];

    /// As a label and in flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::Workers => "workers",
            Self::Strangers => "strangers",
        }
    }
}

/// What one principal may ask of one kind. Written `RATE:BURST:AT_ONCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Calls per second, in the long run.
    pub per_second: NonZeroU32,
    /// Calls at any moment, after a rest.
    pub burst: NonZeroU32,
    /// Calls that are not over yet; a watch is not over until it ends.
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

/// What each principal may ask; `None`: anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of what people change.
    pub changes: Option<Allowance>,
    /// Of what people look at.
    pub reads: Option<Allowance>,
    /// Of what workers call. A whole fleet may have one token, and comes back at once after a restart.
    pub workers: Option<Allowance>,
    /// Of calls that are not let in.
    pub strangers: Option<Allowance>,
}

impl Quotas {
    /// Anything, for everybody.
    pub const NONE: Self = Self { changes: None, reads: None, workers: None, strangers: None };
    /// If nobody says anything else. An honest worker makes three calls per evaluation and one every 20 s beside them:
    /// a token is enough for 10,000 workers that all come back in the same moment.
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

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Principal {
    /// The holders of tokens of this name.
    Token(Arc<str>),
    /// Whoever calls from there.
    Address(IpAddr),
    /// Those that came when there were too many.
    Others,
}

impl Principal {
    /// An address. Who has one of IPv6 has the whole /64.
    pub(super) fn address(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
            near @ IpAddr::V4(_) => near,
        })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => write!(f, "token '{name}'"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Others => f.write_str("those that came when there were too many"),
        }
    }
}

/// Why a call may not go on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// Too many in a while; one will be welcome after this time.
    Rate(Duration),
    /// Too many at once.
    AtOnce,
}

type Direct = RateLimiter<governor::state::NotKeyed, InMemoryState, DefaultClock>;
type Buckets = RateLimiter<Principal, HashMapStateStore<Principal>, DefaultClock>;

struct Limited {
    allowance: Allowance,
    buckets: Buckets,
    /// How often it is looked which buckets are full again: that goes through all of them.
    looks: Direct,
    running: Mutex<HashMap<Principal, u32>>,
}

struct Inner {
    /// By kind.
    limited: [Option<Limited>; 4],
    /// By kind: too often, too many at once.
    refused: [[AtomicU64; 2]; 4],
    /// So that who floods the coordinator does not flood its log.
    told: Direct,
}

/// Counts the calls of principals. Clones count together.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

impl Limiter {
    /// With nobody counted yet.
    pub fn new(quotas: &Quotas) -> Self {
        let limited = Kind::ALL.map(|kind| {
            quotas.of(kind).map(|allowance| Limited {
                allowance,
                buckets: RateLimiter::hashmap(Quota::per_second(allowance.per_second).allow_burst(allowance.burst)),
                looks: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN)),
                running: Mutex::default(),
            })
        });
        let told = RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN.saturating_add(5)));
        Self(Arc::new(Inner { limited, refused: Default::default(), told }))
    }

    /// How many calls of each kind were refused: kind, `rate` or `at_once`, number.
    pub fn read(&self) -> Vec<(Kind, &'static str, u64)> {
        let of = |kind: Kind| {
            let [rate, at_once] = &self.0.refused[kind as usize];
            [(kind, "rate", rate.load(Ordering::Relaxed)), (kind, "at_once", at_once.load(Ordering::Relaxed))]
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    /// Counts a call. The place is held until the call is over.
    pub(super) fn enter(&self, kind: Kind, principal: Principal) -> Result<Option<Place>, Excess> {
        let entered = self.try_enter(kind, principal.clone());
        if let Err(excess) = &entered {
            let index = usize::from(matches!(excess, Excess::AtOnce));
            self.0.refused[kind as usize][index].fetch_add(1, Ordering::Relaxed);
            if self.0.told.check().is_ok() {
                tracing::warn!(%principal, kind = kind.as_str(), ?excess, "calls are refused: there are too many");
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
    /// The principal, or what stands for it when there are too many.
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

/// A call that is not over yet.
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
            // As large as what runs, and no larger.
            if *here == 0 {
                running.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert!(limiter.enter(Kind::Changes, address(1)).is_ok(), "of this kind anything goes");
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
        // An hour until a bucket is full again: nothing can be forgotten.
        let limiter = limiter("1:3600:9");
        let held: Vec<_> = (0..3 * PRINCIPALS as u32).map(|n| limiter.enter(Kind::Reads, address(n))).collect();
        let limited = limiter.0.limited[Kind::Reads as usize].as_ref().unwrap();
        assert!(limited.buckets.len() <= PRINCIPALS + 1, "{}", limited.buckets.len());
        assert!(limited.running.lock().unwrap().len() <= PRINCIPALS + 1);
        drop(held);
        assert!(limited.running.lock().unwrap().is_empty());
    }

    #[test]
    fn whoever_has_an_address_of_ipv6_has_64_bits_of_them() {
        let of = |text: &str| Principal::address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
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
