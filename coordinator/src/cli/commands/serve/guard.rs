//! How `serve` authenticates and limits its callers: certificates, tokens and rate limits on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::kit::units::parse_duration;
use crate::server::limits::CONNECTIONS_PER_ADDRESS;
use crate::server::{Allowance, Quotas, Security, TlsFiles};

/// How a coordinator authenticates and limits its callers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub struct GuardArgs {
    /// Serve over TLS with this certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Require a client certificate of one of these authorities (PEM)
    #[arg(long, env = "EVOCACHE_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Require a token of this file (TOML); `evocache token new` makes its entries
    #[arg(long, env = "EVOCACHE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// How often to check certificates and tokens and reload those that changed; 0s: only on SIGHUP
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub reload_every: Duration,
    /// Rate limits.
    #[command(flatten)]
    pub limits: RateArgs,
}

/// Rate limits of each caller: a holder of a token or, without tokens, an address other than this machine's.
#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "Limits of each caller, as RATE:BURST:AT_ONCE: calls per second, in a burst, and at once"
)]
pub struct RateArgs {
    /// Calls that change something, or off
    #[arg(long = "limit-changes", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.changes))]
    pub changes: Limit,
    /// Calls that change nothing, including watches, or off
    #[arg(long = "limit-reads", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.reads))]
    pub reads: Limit,
    /// Calls of workers, or off; enough for 10,000 workers with one token
    #[arg(long = "limit-workers", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.workers))]
    pub workers: Limit,
    /// Refused calls from one address, or off
    #[arg(long = "limit-strangers", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.strangers))]
    pub strangers: Limit,
    /// Connections from one address
    #[arg(long = "limit-connections", value_name = "N", default_value_t = CONNECTIONS_PER_ADDRESS)]
    pub connections: usize,
}

/// A rate limit, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Allowance>);

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(allowance) => allowance.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|allowance| Self(Some(allowance)))
    }
}

impl From<GuardArgs> for Security {
    fn from(args: GuardArgs) -> Self {
        // clap requires both or neither.
        let tls = args.tls_cert.zip(args.tls_key);
        let client_ca = args.client_ca;
        let limits = args.limits;
        Self {
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key, client_ca }),
            tokens: args.tokens,
            reload_every: args.reload_every,
            quotas: Quotas {
                changes: limits.changes.0,
                reads: limits.reads.0,
                workers: limits.workers.0,
                strangers: limits.strangers.0,
            },
            connections: limits.connections,
        }
    }
}
