//! Tokens and TLS.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use evocache_net::tokens::{Role, entry};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::{Answer, Server};

/// Writes a certificate of a server, its key, and the authority that signed it.
fn certificates(folder: &Path) -> [String; 3] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let texts = [("server.pem", certificate.pem()), ("server.key", key.serialize_pem()), ("ca.pem", authority.pem())];
    texts.map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

/// Sends a request over TLS.
fn send(server: &Server, ca: &str, text: &str) -> Answer {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect(&server.address).unwrap());
    stream.write_all(text.as_bytes()).unwrap();
    Answer::read(stream)
}

#[test]
fn over_tls_a_token_of_a_client_gets_pictures_and_no_other_does() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key, ca] = certificates(folder.path());
    let tokens = folder.path().join("tokens.toml");
    let write = |secret: &str| {
        let entries = entry("ada", Role::Client, secret, None) + &entry("eve", Role::Reader, "reads", None);
        std::fs::write(&tokens, entries).unwrap();
    };
    write("first");
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--tokens", tokens.to_str().unwrap()];
    let server = Server::start(&[&tls[..], &["--steps", "2"]].concat());
    let body = json!({ "prompt": "an owl", "response_format": "url" }).to_string();
    let ask = |token: &str| send(&server, &ca, &server.request(&format!("authorization: Bearer {token}\r\n"), &body));
    let url = ask("first").json()["data"][0]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert_eq!(ask("reads").refusal(), (403, "role_needed".into(), String::new()));
    assert_eq!(ask("other").refusal(), (401, "invalid_api_key".into(), String::new()));
    assert_eq!(send(&server, &ca, &server.request("", &body)).status, 401);
    let get = |path: &str| send(&server, &ca, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
    // The name of a picture is as good as a token for it.
    let picture = url.splitn(4, '/').nth(3).unwrap();
    let open = ["/healthz", "/readyz", &format!("/{picture}"), "/metrics", "/v1/models"].map(|path| get(path).status);
    assert_eq!(open, [200, 200, 200, 401, 401]);

    // Without TLS there is nothing, and it harms nobody.
    assert_eq!(server.get("/healthz").status, 0);

    write("second");
    server.signal("-HUP");
    while ask("second").status == 401 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(ask("first").status, 401);
    for secret in ["first", "second", "owl"] {
        assert!(!server.log().contains(secret), "{}", server.log());
    }
}
