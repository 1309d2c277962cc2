//! Request ids and tokens: the only use of randomness in the client.

use evocache_proto::domain::RequestId;
use sha2::{Digest, Sha256};

/// A new request id, made once for each call that changes something; its retries send the same id.
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

/// A new token of 256 unpredictable bits.
#[expect(clippy::disallowed_methods, reason = "a token must be new each time; nothing is replayed from it")]
pub fn new_token() -> String {
    // Each UUID has 122 random bits of the operating system; three have more than the 256 bits of the digest.
    let mut digest = Sha256::new();
    for _ in 0..3 {
        digest.update(uuid::Uuid::new_v4().as_bytes());
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // The prefix identifies the text as a token, for people and for scanners of leaked secrets.
    format!("evocache_{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_never_share_a_request_id() {
        assert_ne!(new_request_id(), new_request_id());
    }

    #[test]
    fn two_tokens_are_never_the_same() {
        let token = new_token();
        assert_eq!(token.len(), "evocache_".len() + 64);
        assert_ne!(token, new_token());
    }
}
