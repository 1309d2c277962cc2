//! The client's connection, and how a call goes over it.

use std::time::Duration;

use super::channel::{self, ConnectOptions, Stubs};
use super::error::ClientError;
use super::retry::RetryPolicy;

/// A connection to one coordinator. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) stubs: Stubs,
    pub(super) url: String,
    pub(super) deadline: Duration,
    retry: RetryPolicy,
}

impl Client {
    /// Connects with the default options.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        Self::connect_with(url, ConnectOptions::default()).await
    }

    /// Connects. Fails at once if nothing listens at the address.
    pub async fn connect_with(url: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        let (stubs, url) = channel::connect(url, &options).await?;
        Ok(Self { stubs, url, deadline: options.deadline, retry: options.retry })
    }

    /// The coordinator's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request until it is answered or refused, or the retries are used up. Each attempt sends the same message, and
    /// so the same request id.
    pub(super) async fn call<Req: Clone, Res>(
        &self,
        call: &'static str,
        message: &Req,
        send: impl AsyncFn(&mut Stubs, tonic::Request<Req>) -> Result<tonic::Response<Res>, tonic::Status>,
    ) -> Result<Res, ClientError> {
        let mut retries = self.retry.start();
        let mut stubs = self.stubs.clone();
        loop {
            let mut request = tonic::Request::new(message.clone());
            request.set_timeout(self.deadline);
            let error = match tokio::time::timeout(self.deadline, send(&mut stubs, request)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => ClientError::from_status(call, &self.url, self.deadline, &status),
                Err(_) => ClientError::Deadline { call, url: self.url.clone(), deadline: self.deadline },
            };
            match retries.next_delay(&error) {
                Some(delay) => {
                    tracing::debug!(call, ?delay, %error, "retrying");
                    tokio::time::sleep(delay).await;
                }
                None => return Err(error),
            }
        }
    }
}
