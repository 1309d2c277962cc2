//! TLS of the server, from PEM files.
//!
//! Absent on purpose: reading them again. A certificate that is renewed needs a restart, which costs nobody anything:
//! workers and watches come back by themselves.

use std::path::PathBuf;
use std::time::Duration;

use evocache_proto::credentials::{CredentialError, read_certificates, read_private_key};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// How long a stranger may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where the server's certificates are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Its certificate, with those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of the callers' certificates; with it a caller without one is not let in.
    pub client_ca: Option<PathBuf>,
}

/// Makes a server speak TLS.
pub(super) fn secure(server: Server, files: &TlsFiles) -> Result<Server, CredentialError> {
    let identity = Identity::from_pem(read_certificates(&files.certificate)?, read_private_key(&files.key)?);
    let mut config = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE);
    if let Some(ca) = &files.client_ca {
        config = config.client_ca_root(Certificate::from_pem(read_certificates(ca)?));
    }
    server.tls_config(config).map_err(|e| CredentialError::pair(&files.certificate, &files.key, &e))
}
