//! Principals: in whose name calls, bytes and turns are counted.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Principals beyond which the unused ones are forgotten.
const REMEMBERED: usize = 256;

/// In whose name a call is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Principal {
    /// All holders of tokens with this name.
    Token(Arc<str>),
    /// A caller without a valid token, by address.
    Address(IpAddr),
    /// Everybody beyond the number of principals that are counted apart.
    Others,
}

impl Principal {
    /// A caller at this address. An IPv6 address stands for its /64 network, which its holder has whole.
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
            Self::Others => f.write_str("principals beyond the number that are counted apart"),
        }
    }
}

/// A value for each principal, kept as long as somebody holds it.
pub(super) struct Principals<T>(Mutex<HashMap<Principal, Weak<T>>>);

impl<T> Default for Principals<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Principals<T> {
    /// The principal's value, made if there is none.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_stands_for_its_network_of_64_bits() {
        let of = |text: &str| Principal::address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn a_flood_of_principals_is_forgotten() {
        let known = Principals::default();
        for i in 0..10_000 {
            known.get(&Principal::Token(i.to_string().into()), || i);
        }
        assert!(known.0.lock().unwrap().len() <= REMEMBERED);
    }
}
