//! Why an agent ends with an error.

use std::time::Duration;

use evocache_net::channel::AddressError;
use evocache_proto::domain::DeclarationError;

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The coordinator's address is malformed, or the certificates or the token do not fit it.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No coordinator answered within the connect timeout.
    #[error("no coordinator answered at {url} within {} s: {last}", .timeout.as_secs_f64())]
    Unreachable {
        /// The coordinator's URL.
        url: String,
        /// The connect timeout.
        timeout: Duration,
        /// The last failure.
        last: String,
    },
    /// The coordinator refused a call for good.
    #[error("the coordinator at {url} refused {call}: {answer}")]
    Refused {
        /// The coordinator's URL.
        url: String,
        /// The name of the call.
        call: &'static str,
        /// The coordinator's answer.
        answer: String,
    },
    /// The coordinator denied access: the token is missing, invalid or lacks the role.
    #[error("the coordinator at {url} denied access to {call}: {answer}")]
    Denied {
        /// The coordinator's URL.
        url: String,
        /// The name of the call.
        call: &'static str,
        /// The coordinator's answer.
        answer: String,
    },
    /// The evaluator's declaration violates a limit of the protocol.
    #[error("the evaluator's declaration is invalid: {0}")]
    Declaration(#[from] DeclarationError),
    /// The evaluator's thread could not be started.
    #[error("cannot start the evaluator's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The evaluator's thread ended unexpectedly.
    #[error("the evaluator's thread ended unexpectedly")]
    EvaluatorGone,
}
