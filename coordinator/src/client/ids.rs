//! The one place of the client where chance comes in: request ids and tokens.

use evocache_proto::domain::RequestId;
use sha2::{Digest, Sha256};

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

/// A new token: 256 bits that nobody can guess.
#[expect(clippy::disallowed_methods, reason = "a token must be new each time; nothing is replayed from it")]
pub fn new_token() -> String {
    // Each has 122 bits of the operating system's; three have more than the digest takes in.
    let mut digest = Sha256::new();
    for _ in 0..3 {
        digest.update(uuid::Uuid::new_v4().as_bytes());
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // The prefix lets people, and those who look for leaked secrets, see what it is.
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
