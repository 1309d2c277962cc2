//! How a coordinator runs, and who is admitted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::gate::Quotas;
use super::limits::CONNECTIONS_PER_ADDRESS;
use evocache_net::tls::TlsFiles;

/// How a coordinator runs.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The address for gRPC; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The store's folder.
    pub data: PathBuf,
    /// Bytes to keep free on the disk of the store; 0 disables the check.
    pub reserve: u64,
    /// Open a store that has lost acknowledged records, instead of refusing it.
    pub accept_loss: bool,
    /// How long a lease lives without renewal.
    pub lease_ttl: Duration,
    /// Listen without TLS on an address that other machines reach.
    pub allow_remote_plaintext: bool,
    /// The address for health and metrics over HTTP; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Who is admitted.
    pub security: Security,
}

/// Who is admitted to a coordinator; by default everybody who can reach it.
#[derive(Debug, Clone)]
pub struct Security {
    /// The certificates for TLS; without them, nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; without it, no token is required.
    pub tokens: Option<PathBuf>,
    /// Interval at which changed files are reloaded; zero reloads on request only.
    pub reload_every: Duration,
    /// The rate limits of each principal.
    pub quotas: Quotas,
    /// Connections from one address.
    pub connections: usize,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            tls: None,
            tokens: None,
            reload_every: Duration::from_secs(10),
            quotas: Quotas::DEFAULT,
            connections: CONNECTIONS_PER_ADDRESS,
        }
    }
}
