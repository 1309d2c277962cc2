//! The connection: address, credentials, time limits, keep-alive and message sizes.

use std::time::Duration;

use evocache_proto::credentials::Credentials;
use evocache_proto::pb::fleet_service_client::FleetServiceClient;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::store_service_client::StoreServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::{ClientError, RetryPolicy};

/// The largest message that the client sends or takes. Pages end before 3 MiB, so this is a limit on nonsense.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limits of a connection, and what is shown over it.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// For the TCP and HTTP/2 handshakes.
    pub connect_timeout: Duration,
    /// For each attempt of a call.
    pub deadline: Duration,
    /// When to try again.
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

/// A connection that shows the token with each call.
type Shown = InterceptedService<Channel, Credentials>;

/// The services over one shared connection.
#[derive(Debug, Clone)]
pub(super) struct Stubs {
    pub(super) search: SearchServiceClient<Shown>,
    pub(super) fleet: FleetServiceClient<Shown>,
    pub(super) store: StoreServiceClient<Shown>,
}

/// Connects to `https://host:port` or `http://host:port`; without a scheme it is the latter.
pub(super) async fn connect(url: &str, options: &ConnectOptions) -> Result<(Stubs, String), ClientError> {
    let url = normal_url(url)?;
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|e| ClientError::BadUrl { url: url.clone(), problem: e.to_string() })?
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_keepalive(Some(KEEP_ALIVE_INTERVAL))
        .tcp_nodelay(true)
        .user_agent(concat!("evocache/", env!("CARGO_PKG_VERSION")))
        .map_err(|e| ClientError::BadUrl { url: url.clone(), problem: e.to_string() })?;
    let credentials = &options.credentials;
    let endpoint = credentials.secure(endpoint)?;
    if credentials.is_exposed(&endpoint) {
        tracing::warn!("the token goes to {url} unencrypted: whoever listens on the way can use it; use https://");
    }
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

fn normal_url(url: &str) -> Result<String, ClientError> {
    let bad = |problem: &str| ClientError::BadUrl { url: url.to_owned(), problem: problem.to_owned() };
    let (scheme, rest) = match url.split_once("://") {
        None => ("http", url),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some((scheme, _)) => return Err(bad(&format!("scheme '{scheme}' is neither http nor https"))),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.is_empty() || authority.contains(['/', '?', '#', ' ']) {
        return Err(bad("give host and port only"));
    }
    let port = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    if port.is_none() {
        return Err(bad("the port is missing"));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        for good in ["http://127.0.0.1:7447", "127.0.0.1:7447", "https://localhost:1/", "http://[::1]:7447"] {
            assert!(normal_url(good).is_ok(), "{good}");
        }
        for bad in ["", "http://", "http://host", "ftp://host:1", "https://host", "http://host:1/path", "host:port"] {
            assert!(matches!(normal_url(bad), Err(ClientError::BadUrl { .. })), "{bad}");
        }
    }
}
