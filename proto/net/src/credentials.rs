//! What a caller presents to a coordinator: certificates for TLS and a bearer token, read from files.
//!
//! Client and worker read the same files with the same checks and the same error messages. Does not look for the paths:
//! they come from the command line or the environment.
//!
//! **Invariant:** never prints a token or a key.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Where to read a caller's credentials.
#[derive(Clone, Default)]
pub struct CredentialSources {
    /// PEM file with the authorities that may sign the coordinator's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// PEM files with the caller's certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// The token itself, used if there is no `token_file`.
    pub token: Option<String>,
}

/// Why credentials cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CredentialError {
    problem: String,
    hint: String,
}

impl CredentialError {
    /// What the user can do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    fn new(problem: String, hint: impl Into<String>) -> Self {
        Self { problem, hint: hint.into() }
    }

    fn unreadable(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        let problem = format!("cannot read {what} '{}': {reason}", path.display());
        Self::new(problem, "check the path and its permissions")
    }

    /// TLS refused a certificate with its key.
    pub fn pair(certificate: &Path, key: &Path, error: &(dyn std::error::Error + 'static)) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let reason = innermost(error);
        if reason.contains("KeyMismatch") {
            let problem = format!("private key '{key}' does not match certificate '{certificate}'");
            return Self::new(problem, "give the key of the file's first certificate");
        }
        let problem = format!("certificate '{certificate}' with private key '{key}' cannot be used: {reason}");
        Self::new(problem, "give both as complete PEM files, as `openssl` writes them")
    }

    /// A certificate that expired `seconds_ago`, so that no caller would accept it.
    pub fn expired(path: &Path, seconds_ago: u64) -> Self {
        let problem = format!("certificate '{}' expired {} h ago", path.display(), seconds_ago / 3600);
        Self::new(problem, "renew it; `openssl x509 -enddate -noout -in FILE` shows when a certificate expires")
    }

    /// TLS refused a file of authorities' certificates.
    pub fn authority(path: &Path, error: &(dyn std::error::Error + 'static)) -> Self {
        let problem = format!("the certificates in '{}' cannot be used: {}", path.display(), innermost(error));
        Self::new(problem, "give a complete PEM file, as `openssl` writes it")
    }
}

/// Reads a PEM file of certificates.
///
/// # Errors
///
/// When the file cannot be read or contains no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let pem = std::fs::read(path).map_err(|e| CredentialError::unreadable("certificate", path, &e))?;
    if holds(&pem, "-----BEGIN CERTIFICATE-----") {
        return Ok(pem);
    }
    let problem = format!("'{}' contains no PEM certificate", path.display());
    Err(if holds(&pem, "PRIVATE KEY-----") {
        CredentialError::new(problem, "it contains a private key: check that certificate and key are not swapped")
    } else {
        CredentialError::new(problem, "give a PEM file; `openssl x509` converts other formats")
    })
}

/// Reads a PEM file with a private key.
///
/// # Errors
///
/// When the file cannot be read, contains no key, or the key is encrypted.
pub fn read_private_key(path: &Path) -> Result<Vec<u8>, CredentialError> {
    let pem = std::fs::read(path).map_err(|e| CredentialError::unreadable("private key", path, &e))?;
    if holds(&pem, "ENCRYPTED") {
        let problem = format!("private key '{}' is encrypted", path.display());
        return Err(CredentialError::new(problem, "decrypt it with `openssl pkey -in FILE -out FILE`"));
    }
    if holds(&pem, "PRIVATE KEY-----") {
        return Ok(pem);
    }
    let problem = format!("'{}' contains no PEM private key", path.display());
    Err(if holds(&pem, "-----BEGIN CERTIFICATE-----") {
        CredentialError::new(problem, "it contains a certificate: check that certificate and key are not swapped")
    } else {
        CredentialError::new(problem, "give a PEM file; `openssl pkey` converts other formats")
    })
}

fn holds(pem: &[u8], mark: &str) -> bool {
    pem.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// A caller's credentials, ready for use. By default there is no token and no certificate, and TLS trusts the system's
/// authorities.
#[derive(Clone, Default)]
pub struct Credentials {
    tls: ClientTlsConfig,
    has_ca: bool,
    has_identity: bool,
    token: Option<MetadataValue<Ascii>>,
}

impl fmt::Debug for Credentials {
    /// Prints the type's name only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads and checks the files.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is malformed; the error names the file.
    pub fn read(sources: &CredentialSources) -> Result<Self, CredentialError> {
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &sources.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read_certificates(ca)?));
        }
        if let Some((certificate, key)) = &sources.identity {
            tls = tls.identity(Identity::from_pem(read_certificates(certificate)?, read_private_key(key)?));
            // No connection is made: this checks the pair here, where an error can name the files.
            let checked = Endpoint::from_static("https://localhost:1").tls_config(tls.clone());
            checked.map_err(|e| CredentialError::pair(certificate, key, &e))?;
        }
        let token = match (&sources.token_file, &sources.token) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).map_err(|e| CredentialError::unreadable("token", path, &e))?;
                Some(bearer(&text, &format!("'{}'", path.display()))?)
            }
            (None, Some(text)) => Some(bearer(text, "EVOCACHE_TOKEN")?),
            (None, None) => None,
        };
        Ok(Self { tls, has_ca: sources.ca.is_some(), has_identity: sources.identity.is_some(), token })
    }

    /// Sets up TLS if the address is `https://`.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up, or certificates were given for an `http://` address.
    pub fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, CredentialError> {
        let url = endpoint.uri().to_string();
        if endpoint.uri().scheme_str() == Some("https") {
            let tls = if self.has_ca { self.tls.clone() } else { self.tls.clone().with_enabled_roots() };
            return endpoint.tls_config(tls).map_err(|e| {
                let problem = format!("TLS to {url} cannot be set up: {}", innermost(&e));
                CredentialError::new(problem, "give the authority that signed its certificate with --ca FILE")
            });
        }
        if self.has_ca || self.has_identity {
            let problem = format!("certificates were given, but {url} is not encrypted");
            return Err(CredentialError::new(problem, "write the address as https://HOST:PORT"));
        }
        Ok(endpoint)
    }

    /// Whether the token would cross a network unencrypted.
    pub fn is_exposed(&self, endpoint: &Endpoint) -> bool {
        let uri = endpoint.uri();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_near = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.token.is_some() && uri.scheme_str() != Some("https") && !is_near
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

fn bearer(text: &str, place: &str) -> Result<MetadataValue<Ascii>, CredentialError> {
    let token = text.trim();
    let hint = "give the token alone, as `evocache token new` prints it";
    if token.is_empty() {
        return Err(CredentialError::new(format!("there is no token in {place}"), hint));
    }
    // The message does not show the text: it may be a secret, or part of one.
    let wrong = || CredentialError::new(format!("{place} contains something other than a token"), hint);
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| wrong())?;
    // Keeps it out of logs and of header compression.
    value.set_sensitive(true);
    Ok(value)
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::from_shared(url.to_owned()).unwrap()
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let sources = CredentialSources { token: Some(" secret-1\n".into()), ..CredentialSources::default() };
        let mut credentials = Credentials::read(&sources).unwrap();
        let request = credentials.call(Request::new(())).unwrap();
        let sent = request.metadata().get("authorization").unwrap();
        assert_eq!(sent.to_str().unwrap(), "Bearer secret-1");
        let shown = format!("{credentials:?} {:?}", request.metadata());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_malformed_token_is_refused_and_not_shown() {
        for (text, expected) in
            [("", "there is no token"), ("two words", "other than a token"), ("tökén", "other than a token")]
        {
            let sources = CredentialSources { token: Some(text.into()), ..CredentialSources::default() };
            let error = Credentials::read(&sources).unwrap_err();
            assert!(error.to_string().contains(expected) && error.to_string().contains("EVOCACHE_TOKEN"), "{error}");
            assert!(!error.to_string().contains("words"), "{error}");
        }
    }

    #[test]
    fn a_token_on_an_unencrypted_network_is_exposed() {
        let sources = CredentialSources { token: Some("t".into()), ..CredentialSources::default() };
        let credentials = Credentials::read(&sources).unwrap();
        for near in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://far:1"] {
            assert!(!credentials.is_exposed(&endpoint(near)), "{near}");
        }
        assert!(credentials.is_exposed(&endpoint("http://far:1")));
        assert!(!Credentials::default().is_exposed(&endpoint("http://far:1")), "there is nothing to read");
    }

    #[test]
    fn a_missing_file_is_named() {
        let ca = Some(PathBuf::from("/no/such/ca.pem"));
        let error = Credentials::read(&CredentialSources { ca, ..CredentialSources::default() }).unwrap_err();
        assert_eq!(error.to_string(), "cannot read certificate '/no/such/ca.pem': no such file or directory");
    }
}
