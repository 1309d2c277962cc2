//! The credentials that a caller presents to a coordinator.

use std::path::PathBuf;

use clap::Args;
use evocache_net::credentials::{CredentialError, CredentialSources, Credentials};

use super::exit::Failure;

/// Holds the token itself. No flag does: every user of a machine can read the command lines of its processes.
const TOKEN_VARIABLE: &str = "EVOCACHE_TOKEN";

/// Credentials for the coordinator.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Security")]
pub struct CallerArgs {
    /// Authorities of the coordinator's certificate, for https:// [default: the system's]
    #[arg(long, global = true, env = "EVOCACHE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to present to a coordinator that asks for one
    #[arg(long, global = true, env = "EVOCACHE_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Private key of that certificate
    #[arg(long, global = true, env = "EVOCACHE_CLIENT_KEY", value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// File with the token for the coordinator; EVOCACHE_TOKEN may hold the token itself
    #[arg(long, global = true, env = "EVOCACHE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// A certificate without its key, or a key without its certificate.
    #[error("{given} is given without {missing}")]
    Half {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// A file cannot be read or does not hold what it should.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl CallerArgs {
    /// Reads the files.
    pub fn credentials(&self) -> Result<Credentials, CallerError> {
        // Not clap's `requires`: a global flag may stand before the verb, and its other half after it.
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

impl From<CallerError> for Failure {
    fn from(error: CallerError) -> Self {
        let failure = Self::usage(&error);
        match error {
            CallerError::Half { missing, .. } => failure.hint(format!("give both; {missing} FILE is missing")),
            CallerError::Credentials(error) => failure.hint(error.hint()),
        }
    }
}
