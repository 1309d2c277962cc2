//! The part of the command line about who may call whom: certificates and tokens, on both sides.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use evocache_net::credentials::{CredentialError, CredentialSources, Credentials};

use super::units::parse_duration;
#[cfg(feature = "server")]
use crate::server::limits::CONNECTIONS_PER_ADDRESS;
use crate::server::{Allowance, Quotas};
use crate::tokens::{Role, check_name};

/// Holds the token itself. No flag does: everybody on a machine can read the command lines of its processes.
const TOKEN_VARIABLE: &str = "EVOCACHE_TOKEN";

/// What a caller shows to the coordinator.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Security")]
pub struct CallerArgs {
    /// Authorities of the coordinator's certificate, for https:// [default: the system's]
    #[arg(long, global = true, env = "EVOCACHE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to a coordinator that asks for one
    #[arg(long, global = true, env = "EVOCACHE_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Private key of that certificate
    #[arg(long, global = true, env = "EVOCACHE_CLIENT_KEY", value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// File with the token for the coordinator; EVOCACHE_TOKEN may hold the token itself
    #[arg(long, global = true, env = "EVOCACHE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// One of the two files of an identity.
    #[error("{given} is given without {missing}")]
    Half {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// A file.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl CallerArgs {
    /// Reads the files.
    pub fn credentials(&self) -> Result<Credentials, CallerError> {
        // Not clap's `requires`: a global flag may stand before the verb and its other half behind it.
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(CallerError::Half { given: "--client-cert", missing: "--client-key" }),
            (None, Some(_)) => return Err(CallerError::Half { given: "--client-key", missing: "--client-cert" }),
        };
        Ok(Credentials::read(&CredentialSources {
            ca: self.ca.clone(),
            identity,
            token_file: self.token_file.clone(),
            token: std::env::var_os(TOKEN_VARIABLE).map(|token| token.to_string_lossy().into_owned()),
        })?)
    }
}

/// Whom a coordinator lets in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Security")]
pub struct GuardArgs {
    /// Speak TLS, with this certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let in only whoever shows a certificate of one of these authorities (PEM)
    #[arg(long, env = "EVOCACHE_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,
    /// Let in only whoever shows a token of this file (TOML); `evocache token new` makes its entries
    #[arg(long, env = "EVOCACHE_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Look at certificates and tokens this often, and read those again that have changed; 0s: only on SIGHUP
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub reload_every: Duration,
    /// How much each caller may ask.
    #[cfg(feature = "server")]
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How much each caller may ask: the holders of a token, or without tokens an address that is not this machine's.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "Limits of each caller, as RATE:BURST:AT_ONCE: calls per second, after a rest, and not yet over"
)]
pub struct LimitArgs {
    /// Calls that change something, or off
    #[arg(long = "limit-changes", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.changes))]
    pub changes: Limit,
    /// Calls that change nothing, watches among them, or off
    #[arg(long = "limit-reads", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.reads))]
    pub reads: Limit,
    /// Calls of workers, or off; enough for 10,000 workers with one token
    #[arg(long = "limit-workers", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.workers))]
    pub workers: Limit,
    /// Calls from one address that are not let in, or off
    #[arg(long = "limit-strangers", value_name = "LIMIT", default_value_t = Limit(Quotas::DEFAULT.strangers))]
    pub strangers: Limit,
    /// Connections from one address
    #[arg(long = "limit-connections", value_name = "N", default_value_t = CONNECTIONS_PER_ADDRESS)]
    pub connections: usize,
}

/// An allowance, or none.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Allowance>);

#[cfg(feature = "server")]
impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(allowance) => allowance.fmt(f),
            None => f.write_str("off"),
        }
    }
}

#[cfg(feature = "server")]
impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|allowance| Self(Some(allowance)))
    }
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token: prints it once, and the entry for the coordinator's file
    #[command(after_help = "\
Examples:
  evocache token new --name ci --role operator --expires 90d
  evocache token new --name gpu-1 --role worker --out gpu-1.token >> tokens.toml

A coordinator that runs reads its file again when it changes. Two entries may
have one name: add the new one, hand out the token, take the old one away.")]
    New(NewTokenArgs),
}

/// Arguments of `token new`.
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// Who will hold it; the coordinator's log says this name
    #[arg(long, value_name = "NAME", value_parser = holder)]
    pub name: String,
    /// What the holder may do
    #[arg(long, value_enum)]
    pub role: Role,
    /// How long it is worth something, such as 90d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub expires: Option<Duration>,
    /// Write the token to a new file, and only the entry to stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

fn holder(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}
