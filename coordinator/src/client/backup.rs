//! A backup of the coordinator's store, as it comes. A call that was cut off is not repeated: the store has changed since.

use std::time::Duration;

use evocache_proto::pb;
use tonic::Streaming;

use super::{Client, ClientError};

const CALL: &str = "BackUpStore";

/// The bytes of a backup; made by [`Client::back_up`].
#[derive(Debug)]
pub struct Backup {
    stream: Streaming<pb::BackUpStoreResponse>,
    url: String,
    deadline: Duration,
}

/// Some of the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPiece {
    /// What follows on those before.
    pub bytes: Vec<u8>,
    /// Records read so far.
    pub done: u64,
    /// Of so many.
    pub records: u64,
}

impl Backup {
    pub(super) async fn begin(client: &Client) -> Result<Self, ClientError> {
        let (url, deadline) = (client.url.clone(), client.deadline);
        let mut stub = client.stubs.store.clone();
        let opened = tokio::time::timeout(deadline, stub.back_up_store(pb::BackUpStoreRequest {})).await;
        let opened = opened.map_err(|_| ClientError::Deadline { call: CALL, url: url.clone(), deadline })?;
        let opened = opened.map_err(|status| ClientError::from_status(CALL, &url, deadline, &status))?;
        Ok(Self { stream: opened.into_inner(), url, deadline })
    }

    /// The next bytes; `None` after the last ones. The deadline is for each piece, as the whole may take long.
    pub async fn next(&mut self) -> Result<Option<BackupPiece>, ClientError> {
        let Self { stream, url, deadline } = self;
        let next = tokio::time::timeout(*deadline, stream.message()).await;
        let next = next.map_err(|_| ClientError::Deadline { call: CALL, url: url.clone(), deadline: *deadline })?;
        let next = next.map_err(|status| ClientError::from_status(CALL, url, *deadline, &status))?;
        Ok(next.map(|m| BackupPiece { bytes: m.piece.into(), done: m.done, records: m.records }))
    }
}
