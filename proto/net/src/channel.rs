//! gRPC connections: address, keep-alive and message size, the same for clients and workers.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::credentials::{CredentialError, Credentials};

/// The largest message, in bytes, that a client or a worker sends or accepts. Pages stay below 3 MiB, and measurements
/// with their thumbnails are smaller still.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an address cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The address is malformed.
    #[error("'{url}' cannot be used as an address: {problem}")]
    Url {
        /// The address as it was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The credentials do not fit the address.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

/// The endpoint of `https://HOST:PORT` or `http://HOST:PORT`; an address without a scheme is `http`. Sets up TLS and warns if a
/// token would cross the network unencrypted.
///
/// # Errors
///
/// When the address is malformed, TLS cannot be set up, or certificates were given for an unencrypted address.
pub fn endpoint(url: &str, credentials: &Credentials, connect_timeout: Duration) -> Result<Endpoint, AddressError> {
    let url = normal_url(url)?;
    let wrong = |e: tonic::transport::Error| AddressError::Url { url: url.clone(), problem: e.to_string() };
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(wrong)?
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_keepalive(Some(KEEP_ALIVE_INTERVAL))
        .tcp_nodelay(true)
        .user_agent(concat!("evocache/", env!("CARGO_PKG_VERSION")))
        .map_err(wrong)?;
    let endpoint = credentials.secure(endpoint)?;
    if credentials.is_exposed(&endpoint) {
        tracing::warn!("the token is sent to {url} unencrypted; use https:// to keep it from being read on the way");
    }
    Ok(endpoint)
}

/// The address with its scheme and without a trailing slash.
///
/// # Errors
///
/// When it is not a scheme, a host and a port.
pub fn normal_url(url: &str) -> Result<String, AddressError> {
    let bad = |problem: String| AddressError::Url { url: url.to_owned(), problem };
    let (scheme, rest) = match url.split_once("://") {
        None => ("http", url),
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some((scheme, _)) => return Err(bad(format!("scheme '{scheme}' is neither http nor https"))),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.is_empty() || authority.contains(['/', '?', '#', ' ']) {
        return Err(bad("give host and port only".into()));
    }
    let port = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    if port.is_none() {
        return Err(bad("the port is missing".into()));
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
        assert_eq!(normal_url("127.0.0.1:7447").unwrap(), "http://127.0.0.1:7447");
        for bad in
            ["", "h", "http://", "http://host", "ftp://host:1", "https://host", "http://host:1/path", "host:port"]
        {
            assert!(matches!(normal_url(bad), Err(AddressError::Url { .. })), "{bad}");
        }
    }
}
