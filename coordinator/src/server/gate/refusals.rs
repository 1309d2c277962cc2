//! What the gate refuses, in words.

use std::time::Duration;

use evocache_proto::wire::Reason;
use tonic::Status;

use super::quota::{Excess, Kind};
use crate::server::{limits, status};

/// The call has no token. Does not say whether a token would suffice.
pub(super) fn token_missing() -> Status {
    let text = "this coordinator requires a token in the header 'authorization: Bearer TOKEN'";
    status::with(Reason::TokenMissing, text, &[])
}

/// The token is in no entry of the file.
pub(super) fn token_unknown() -> Status {
    status::with(Reason::TokenUnknown, "this coordinator does not know the token", &[])
}

/// The token has expired. Its holder may see its name.
pub(super) fn token_expired(name: &str) -> Status {
    let text = format_args!("the token of '{name}' has expired");
    status::with(Reason::TokenExpired, text, &[("name", name.to_owned())])
}

/// The token's role does not allow the call.
pub(super) fn role_needed(method: &str, role: &str, needed: &str) -> Status {
    let text = format_args!("a token of role '{role}' may not call {method}; it requires role '{needed}'");
    let facts = [("method", method.to_owned()), ("role", role.to_owned()), ("needed", needed.to_owned())];
    status::with(Reason::RoleNeeded, text, &facts)
}

/// The principal makes more calls than it may.
pub(super) fn too_many_calls(excess: Excess, kind: Kind) -> Status {
    let kind = kind.as_str();
    match excess {
        Excess::Rate(wait) => {
            // Rounded up, so that a caller that waits exactly this long is not early.
            let wait = Duration::from_millis(wait.as_millis() as u64 + 1);
            let text = format_args!("rate limit for {kind} exceeded; retry in {wait:?}");
            status::retry(Reason::RateLimited, text, wait)
        }
        Excess::AtOnce => {
            let text =
                format_args!("limit of concurrent calls for {kind} exceeded; retry when some of them have ended");
            status::with(Reason::TooManyCalls, text, &[])
        }
    }
}

/// The message is larger than its call allows.
pub(super) fn message_too_large(bytes: usize, most: usize) -> Status {
    let text = format_args!("a message of {bytes} bytes is too large: this call takes at most {most}");
    let facts = [("bytes", bytes.to_string()), ("most", most.to_string())];
    status::with(Reason::MessageTooLarge, text, &facts)
}

/// The principal holds too many bytes of requests or answers.
pub(super) fn too_many_bytes(bytes: usize, most: usize) -> Status {
    let text = format_args!(
        "no room for {bytes} bytes: pending requests and unread answers of one caller may hold {most}; read some answers first"
    );
    status::with(Reason::TooManyBytes, text, &[])
}

/// The request did not arrive completely in time.
pub(super) fn not_heard() -> Status {
    let text = format_args!("the message did not arrive within {:?}", limits::HEARING);
    status::with(Reason::NotHeard, text, &[])
}
