//! Watches a search, across restarts of the coordinator.

use std::time::Duration;

use evocache_net::back_off::BackOff;
use evocache_proto::domain::SearchId;
use evocache_proto::pb;
use tokio::time::Instant;
use tonic::Streaming;

use super::connection::Client;
use super::error::ClientError;
use super::model::search::WatchEvent;
use super::read;
use super::retry::{Retries, RetryPolicy};

const CALL: &str = "WatchSearch";

/// How long a watch waits for the coordinator to come back: longer than a call, as a watch is meant to last.
const PATIENCE: RetryPolicy = RetryPolicy {
    waits: BackOff { first: Duration::from_millis(200), most: Duration::from_secs(5) },
    total: Duration::from_secs(120),
};

/// The events of one search; made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    id: SearchId,
    stream: Option<Streaming<pb::WatchSearchResponse>>,
    retries: Retries,
    resume: Option<Instant>,
    ended: bool,
}

impl Client {
    /// The state now and every change until the search has ended. Reconnects when the connection is lost.
    pub fn watch(&self, id: &SearchId) -> Watch {
        Watch::new(self.clone(), id.clone())
    }
}

impl Watch {
    fn new(client: Client, id: SearchId) -> Self {
        Self { client, id, stream: None, retries: PATIENCE.start(), resume: None, ended: false }
    }

    /// The next event; `None` after the last one or an error.
    ///
    /// Dropping the future loses no event, so it may be used in a `select!`.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, ClientError>> {
        if self.ended {
            return None;
        }
        let result = self.step().await;
        match &result {
            Ok(WatchEvent::State { state, .. }) if state.is_final() => self.ended = true,
            Err(_) => self.ended = true,
            Ok(_) => {}
        }
        Some(result)
    }

    async fn step(&mut self) -> Result<WatchEvent, ClientError> {
        if let Some(resume) = self.resume {
            tokio::time::sleep_until(resume).await;
            self.resume = None;
        }
        let error = match self.message().await {
            Ok(Some(message)) => {
                self.retries.reset();
                return read::watch_event(CALL, &message);
            }
            // A stream that ends without a final state is cut off by a coordinator that stops.
            Ok(None) => ClientError::Unreachable { url: self.client.url.clone(), problem: "the stream ended".into() },
            Err(error) => error,
        };
        self.stream = None;
        match self.retries.next_delay(&error) {
            Some(delay) => {
                self.resume = Some(Instant::now() + delay);
                Ok(WatchEvent::Reconnecting { problem: error.to_string(), delay })
            }
            None => Err(error),
        }
    }

    async fn message(&mut self) -> Result<Option<pb::WatchSearchResponse>, ClientError> {
        let (url, deadline) = (self.client.url.clone(), self.client.deadline);
        let failed = |status: tonic::Status| ClientError::from_status(CALL, &url, deadline, &status);
        let stream = match &mut self.stream {
            Some(stream) => stream,
            closed => {
                let request = pb::WatchSearchRequest { search_id: self.id.to_string() };
                let mut stub = self.client.stubs.search.clone();
                // The deadline is for the first answer. The stream has none; keep-alive probes notice a dead connection.
                let opened = tokio::time::timeout(deadline, stub.watch_search(request)).await;
                let opened = opened.map_err(|_| ClientError::Deadline { call: CALL, url: url.clone(), deadline })?;
                closed.insert(opened.map_err(failed)?.into_inner())
            }
        };
        stream.message().await.map_err(failed)
    }
}
