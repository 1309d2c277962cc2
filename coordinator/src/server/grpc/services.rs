//! What all services share.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::Status;

use crate::engine::{Handle, Request};
use crate::server::status;

/// What the services need.
#[derive(Clone)]
pub struct Services {
    /// The engine.
    pub engine: Handle,
    /// How long a lease lives without renewal.
    pub lease_ttl: Duration,
    /// Turns true when the coordinator begins to stop: long polls and watches end.
    pub stopping: watch::Receiver<bool>,
}

impl Services {
    /// Returns when the coordinator begins to stop.
    pub(super) async fn stopped(&self) {
        // An error means that the sender is gone: that is a stop as well.
        let _ = self.stopping.clone().wait_for(|&stopping| stopping).await;
    }
}

/// The request id and content of a call that changes something; `None` if the caller gave no id, so that a repeat of the
/// call is carried out again.
pub(super) fn request<M: prost::Message>(id: &str, message: &M) -> Result<Option<Request>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = id.parse().map_err(|e| status::invalid("request_id", e))?;
    Ok(Some(Request { id, digest: Sha256::digest(message.encode_to_vec()).into() }))
}
