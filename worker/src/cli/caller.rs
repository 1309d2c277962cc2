//! What the worker shows to the coordinator, as the command line and the environment say it.

use std::path::PathBuf;

use clap::Args;
use evocache_proto::credentials::{CredentialError, CredentialSources, Credentials};

use super::CliError;

/// Holds the token itself. No flag does: everybody on a machine can read the command lines of its processes.
const TOKEN_VARIABLE: &str = "EVOCACHE_TOKEN";

/// Certificates and token.
#[derive(Debug, Clone, Default, Args)]
pub struct CallerArgs {
    /// Authorities of the coordinator's certificate, for https:// [default: the system's]
    #[arg(long, env = "EVOCACHE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to a coordinator that asks for one
    #[arg(long, env = "EVOCACHE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of that certificate
    #[arg(long, env = "EVOCACHE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// File with a token of role worker; EVOCACHE_TOKEN may hold the token itself
    #[arg(long, env = "EVOCACHE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl CallerArgs {
    /// Reads the files.
    pub(super) fn credentials(&self) -> Result<Credentials, CredentialError> {
        Credentials::read(&CredentialSources {
            ca: self.ca.clone(),
            identity: self.client_cert.clone().zip(self.client_key.clone()),
            token_file: self.token_file.clone(),
            token: std::env::var_os(TOKEN_VARIABLE).map(|token| token.to_string_lossy().into_owned()),
        })
    }
}

impl From<CredentialError> for CliError {
    fn from(error: CredentialError) -> Self {
        Self::new(error.to_string()).hint(error.hint())
    }
}
