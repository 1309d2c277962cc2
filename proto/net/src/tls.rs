//! A server's TLS, from PEM files that can be reloaded while it runs.
//!
//! tonic's own TLS reads certificates at the start only, so rustls is used directly. When the files are reloaded, and
//! who accepts the connections, is each server's own business.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use crate::credentials::{CredentialError, read_certificates, read_private_key};

/// The protocol of a server, as TLS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, and so gRPC.
    Http2,
    /// HTTP/1.1.
    Http1,
}

impl Protocol {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

/// The server's certificate files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Authorities of client certificates; if given, every client needs one.
    pub client_ca: Option<PathBuf>,
}

/// When certificates expire, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// The first of the server's chain to expire.
    pub certificate: i64,
    /// The first of the clients' authorities to expire.
    pub client_ca: Option<i64>,
}

/// The certificates in use. Clones share them.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    protocol: Protocol,
    current: Arc<RwLock<(Arc<ServerConfig>, Expiry)>>,
}

impl Tls {
    /// Reads the files. Times are in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// If a file cannot be used, or the server's certificate has expired at `now`; the error names the file.
    pub fn read(files: TlsFiles, protocol: Protocol, now: u64) -> Result<Self, CredentialError> {
        let current = Arc::new(RwLock::new(load(&files, protocol, now)?));
        Ok(Self { files, protocol, current })
    }

    /// Reads the files again, for new connections. Open ones stay as they are.
    ///
    /// # Errors
    ///
    /// If a file cannot be used or has expired; the previous certificates stay in use.
    pub fn reload(&self, now: u64) -> Result<Expiry, CredentialError> {
        let loaded = load(&self.files, self.protocol, now)?;
        let expiry = loaded.1;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(expiry)
    }

    /// When the certificates in use expire.
    pub fn expiry(&self) -> Expiry {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// The configuration of a new connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

fn load(files: &TlsFiles, protocol: Protocol, now: u64) -> Result<(Arc<ServerConfig>, Expiry), CredentialError> {
    let TlsFiles { certificate, key, client_ca } = files;
    let unusable = |e: &(dyn std::error::Error + 'static)| CredentialError::pair(certificate, key, e);
    let chain = parse(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read_private_key(key)?).map_err(|e| unusable(&e))?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone());
    let config = config.with_safe_default_protocol_versions().map_err(|e| unusable(&e))?;
    let mut expiry = Expiry { certificate: first_end(certificate, &chain)?, client_ca: None };
    let now = i64::try_from(now / 1000).unwrap_or(i64::MAX);
    if expiry.certificate < now {
        return Err(CredentialError::expired(certificate, now.abs_diff(expiry.certificate)));
    }
    let config = match client_ca {
        Some(path) => {
            let authorities = parse(path)?;
            let end = first_end(path, &authorities)?;
            if end < now {
                // Other authorities in the file may be valid; certificates signed by this one are refused one by one.
                tracing::warn!(file = %path.display(), ended = end, "an authority of client certificates has expired");
            }
            expiry.client_ca = Some(end);
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|e| CredentialError::authority(path, &e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.map_err(|e| CredentialError::authority(path, &e))?)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain, private).map_err(|e| unusable(&e))?;
    config.alpn_protocols = vec![protocol.name().to_vec()];
    Ok((Arc::new(config), expiry))
}

fn parse(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let pem = read_certificates(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.map_err(|e| CredentialError::authority(path, &e))
}

/// When the first of these certificates expires.
fn first_end(path: &Path, certificates: &[CertificateDer<'_>]) -> Result<i64, CredentialError> {
    let mut first = i64::MAX;
    for certificate in certificates {
        // The raw profile: what rustls accepts is not refused here for a long serial number.
        let parsed =
            CertificateInner::<Raw>::from_der(certificate).map_err(|e| CredentialError::authority(path, &e))?;
        let end = parsed.tbs_certificate().validity().not_after.to_unix_duration();
        first = first.min(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
    }
    Ok(first)
}
