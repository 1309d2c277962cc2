//! The connection: address, credentials, time limits, keep-alive and message sizes.

use std::time::Duration;

use evocache_net::channel::{self, MAX_MESSAGE_BYTES, normal_url};
use evocache_net::credentials::Credentials;
use evocache_proto::pb::fleet_service_client::FleetServiceClient;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::store_service_client::StoreServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::error::ClientError;
use super::retry::RetryPolicy;

/// Time limits and credentials of a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The time limit of the TCP and HTTP/2 handshakes.
    pub connect_timeout: Duration,
    /// The time limit of each attempt of a call.
    pub deadline: Duration,
    /// When calls are retried.
    pub retry: RetryPolicy,
    /// Certificates and token.
    pub credentials: Credentials,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            credentials: Credentials::default(),
        }
    }
}

/// A channel that sends the token with each call.
type Authenticated = InterceptedService<Channel, Credentials>;

/// The services over one shared connection.
#[derive(Debug, Clone)]
pub(super) struct Stubs {
    pub(super) search: SearchServiceClient<Authenticated>,
    pub(super) fleet: FleetServiceClient<Authenticated>,
    pub(super) store: StoreServiceClient<Authenticated>,
}

/// Connects to `https://host:port` or `http://host:port`; without a scheme, to the latter.
pub(super) async fn connect(url: &str, options: &ConnectOptions) -> Result<(Stubs, String), ClientError> {
    let endpoint = channel::endpoint(url, &options.credentials, options.connect_timeout)?;
    let url = normal_url(url)?;
    let credentials = &options.credentials;
    // The endpoint's own limit covers the TCP handshake only.
    let connected = tokio::time::timeout(options.connect_timeout, endpoint.connect()).await;
    let channel = match connected {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Err(ClientError::unreachable(&url, &error)),
        Err(_) => {
            let problem = format!("no answer within {} s", options.connect_timeout.as_secs_f64());
            return Err(ClientError::Unreachable { url, problem });
        }
    };
    let stubs = Stubs {
        search: SearchServiceClient::with_interceptor(channel.clone(), credentials.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        fleet: FleetServiceClient::with_interceptor(channel.clone(), credentials.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        store: StoreServiceClient::with_interceptor(channel, credentials.clone()),
    };
    Ok((stubs, url))
}
