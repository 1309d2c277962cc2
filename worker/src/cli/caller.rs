//! The worker's credentials for the coordinator, from the command line and the environment.

use std::path::PathBuf;

use clap::Args;
use evocache_net::credentials::{CredentialError, CredentialSources, Credentials};

use super::CliError;

/// The variable with the token itself. There is no flag for it, because every user of a machine can read the command
/// lines of its processes.
const TOKEN_VARIABLE: &str = "EVOCACHE_TOKEN";

/// Certificates and token for the coordinator.
#[derive(Debug, Clone, Default, Args)]
pub struct CallerArgs {
    /// Certificate authorities to verify the coordinator with, for https:// [default: the system's]
    #[arg(long, env = "EVOCACHE_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate, if the coordinator requires one
    #[arg(long, env = "EVOCACHE_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key of the client certificate
    #[arg(long, env = "EVOCACHE_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// File with a token of role worker [default: the token in EVOCACHE_TOKEN]
    #[arg(long, env = "EVOCACHE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl CallerArgs {
    /// Reads the files and the variable.
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
