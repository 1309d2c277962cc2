//! The one place of the client where chance comes in: request ids.

use evocache_proto::domain::RequestId;

/// A new request id. Made once per call that changes something; a retry sends the same one again.
#[expect(
    clippy::disallowed_methods,
    reason = "a request id must differ between processes and hosts; nothing is replayed from it"
)]
pub fn new_request_id() -> RequestId {
    let uuid = uuid::Uuid::new_v4().hyphenated().to_string();
    match RequestId::new(uuid) {
        Ok(id) => id,
        Err(error) => unreachable!("a hyphenated UUID is a request id: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_never_share_a_request_id() {
        assert_ne!(new_request_id(), new_request_id());
    }
}
