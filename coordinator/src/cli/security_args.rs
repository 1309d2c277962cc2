//! The part of the command line about who may call whom: certificates and tokens, on both sides.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use evocache_proto::credentials::{CredentialError, CredentialSources, Credentials};

use super::units::parse_duration;
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
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token: prints it once, and the entry for the coordinator's file
    #[command(after_help = "\
Examples:
  evocache token new --name ci --role operator --expires 90d
  evocache token new --name gpu-1 --role worker --out gpu-1.token >> tokens.toml

A coordinator that runs reads its file again on SIGHUP. Two entries may have one name: add the new one, hand out the
token, take the old one away.")]
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
