//! A backup of the coordinator's store as a stream. It is not resumed after an interruption: the store has changed since.

use std::time::Duration;

use evocache_proto::pb;
use tonic::Streaming;

use super::connection::Client;
use super::error::ClientError;

const CALL: &str = "BackUpStore";

/// The bytes of a backup; made by [`Client::back_up`].
#[derive(Debug)]
pub struct Backup {
    stream: Streaming<pb::BackUpStoreResponse>,
    url: String,
    deadline: Duration,
}

/// A piece of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPiece {
    /// The next bytes of the backup.
    pub bytes: Vec<u8>,
    /// Records read so far.
    pub done: u64,
    /// All records of the backup.
    pub records: u64,
}

impl Client {
    /// Streams a backup of the coordinator's store at this moment.
    pub async fn back_up(&self) -> Result<Backup, ClientError> {
        Backup::begin(self).await
    }
}

impl Backup {
    async fn begin(client: &Client) -> Result<Self, ClientError> {
        let (url, deadline) = (client.url.clone(), client.deadline);
        let mut stub = client.stubs.store.clone();
        let opened = tokio::time::timeout(deadline, stub.back_up_store(pb::BackUpStoreRequest {})).await;
        let opened = opened.map_err(|_| ClientError::Deadline { call: CALL, url: url.clone(), deadline })?;
        let opened = opened.map_err(|status| ClientError::from_status(CALL, &url, deadline, &status))?;
        Ok(Self { stream: opened.into_inner(), url, deadline })
    }

    /// The next piece; `None` after the last one. Each piece has the deadline of a call, as the whole may take long.
    pub async fn next(&mut self) -> Result<Option<BackupPiece>, ClientError> {
        let Self { stream, url, deadline } = self;
        let next = tokio::time::timeout(*deadline, stream.message()).await;
        let next = next.map_err(|_| ClientError::Deadline { call: CALL, url: url.clone(), deadline: *deadline })?;
        let next = next.map_err(|status| ClientError::from_status(CALL, url, *deadline, &status))?;
        Ok(next.map(|m| BackupPiece { bytes: m.piece.into(), done: m.done, records: m.records }))
    }
}
