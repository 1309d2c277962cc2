//! Certificates and tokens as whoever runs a coordinator and whoever calls it meet them.

use std::path::Path;

use crate::support::{Coordinator, Outcome, command, evocache, signal, spec_file, write};
use evocache_testkit::certificates::Authority;

/// Makes a token: the file that holds it, and its entry.
fn token(folder: &Path, name: &str, role: &str) -> (String, String) {
    let file = folder.join(format!("{name}.token"));
    let out = file.to_str().unwrap().to_owned();
    let made = evocache(&["token", "new", "--name", name, "--role", role, "--expires", "90d", "--out", &out, "--json"]);
    let entry = made.json()["entry"].as_str().unwrap().to_owned();
    assert!(entry.contains(&format!("name = \"{name}\"")) && entry.contains("expires = \"2"), "{entry}");
    (out, entry)
}

#[test]
fn a_token_is_told_once_and_its_entry_does_not_hold_it() {
    let made = evocache(&["token", "new", "--name", "ci", "--role", "operator", "--json"]).json();
    let (token, entry) = (made["token"].as_str().unwrap(), made["entry"].as_str().unwrap());
    assert!(token.len() >= 64 && !entry.contains(token) && !entry.contains("expires"), "{made}");
    let folder = tempfile::tempdir().unwrap();
    let taken = write(folder.path(), "taken", "another");
    evocache(&["token", "new", "--name", "ci", "--role", "reader", "--out", &taken]).fails(1, &["taken", "exists"]);
    evocache(&["token", "new", "--name", "a b", "--role", "reader"]).fails(2, &["--name"]);
    evocache(&["token", "new", "--name", "a", "--role", "king"]).fails(2, &["reader", "operator", "worker", "admin"]);
}

#[test]
fn a_coordinator_with_tokens_lets_in_who_has_one_and_reads_them_again_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, reader_entry) = token(folder.path(), "looker", "reader");
    let (operator, operator_entry) = token(folder.path(), "ci", "operator");
    let tokens = write(folder.path(), "tokens.toml", &reader_entry);
    let coordinator = Coordinator::start_with(&folder.path().join("data"), &["--tokens", &tokens]);

    coordinator.evocache(&["list"]).fails(1, &["token", "hint:", "--token-file", "EVOCACHE_TOKEN"]);
    coordinator.evocache(&["list", "--token-file", &reader]).ok();
    let spec = spec_file(folder.path());
    coordinator
        .evocache(&["launch", &spec, "--token-file", &reader])
        .fails(1, &["role 'reader'", "CreateSearch", "'operator'", "hint:"]);
    let wrong = write(folder.path(), "wrong.token", "evocache_0000");
    let outcome = coordinator.evocache(&["list", "--token-file", &wrong]);
    assert!(!outcome.fails(1, &["does not know the token", "hint:"]).stderr.contains("evocache_0000"));
    coordinator.evocache(&["list", "--token-file", &operator]).fails(1, &["does not know the token"]);
    coordinator.evocache(&["list", "--token-file", "/no/such"]).fails(2, &["/no/such", "hint:"]);

    // The token itself may stand in the environment, and nowhere else.
    let secret = std::fs::read_to_string(&reader).unwrap();
    let mut list = command(&["--coordinator", &coordinator.url, "list"]);
    assert!(list.env("EVOCACHE_TOKEN", secret.trim()).status().unwrap().success());

    // The new tokens are there as soon as the coordinator has come round to reading them; then the old one is not.
    write(folder.path(), "tokens.toml", &operator_entry);
    signal(&coordinator.child, "HUP");
    let listed = |file: &str| coordinator.evocache(&["list", "--token-file", file]).code;
    assert!((0..500).any(|_| listed(&operator) == 0), "the tokens were not read again");
    assert_eq!(listed(&reader), 1);
    // A file that is wrong changes nothing. The signal may come late; a healthy coordinator stays as it is.
    write(folder.path(), "tokens.toml", "[[token]]\nname = 7");
    signal(&coordinator.child, "HUP");
    for _ in 0..5 {
        assert_eq!((listed(&operator), listed(&reader)), (0, 1));
    }
}

#[test]
fn tokens_that_cannot_be_used_are_told_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = |tokens: &str| {
        evocache(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--tokens", tokens])
    };
    serve("/no/such").fails(1, &["/no/such", "no such file", "hint:", "evocache token new"]);
    let empty = write(folder.path(), "empty.toml", "");
    serve(&empty).fails(1, &["empty.toml", "[[token]]"]);
    let leaky = write(folder.path(), "leaky.toml", "[[token]]\nname = \"a\"\nrole = \"reader\"\nsecret = \"hush\"\n");
    let outcome = serve(&leaky);
    assert!(!outcome.fails(1, &["leaky.toml", "line 4", "secret"]).stderr.contains("hush"), "{outcome:?}");
    assert!(!data.exists());
}

struct Encrypted {
    folder: tempfile::TempDir,
    authority: Authority,
    coordinator: Coordinator,
}

impl Encrypted {
    fn start(asks_for_certificates: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let (certificate, key) = authority.sign(folder.path(), "server");
        let mut flags = vec!["--tls-cert", &certificate, "--tls-key", &key];
        if asks_for_certificates {
            flags.extend(["--client-ca", &authority.file]);
        }
        let coordinator = Coordinator::start_with(&folder.path().join("data"), &flags);
        assert!(coordinator.url.starts_with("https://"), "{}", coordinator.url);
        Self { folder, authority, coordinator }
    }

    fn list(&self, flags: &[&str]) -> Outcome {
        self.coordinator.evocache(&[&["list"], flags].concat())
    }
}

#[test]
fn a_coordinator_with_a_certificate_is_called_over_tls_alone() {
    let encrypted = Encrypted::start(false);
    let ca = encrypted.authority.file.as_str();
    encrypted.list(&["--ca", ca]).ok();
    let by_name = encrypted.coordinator.url.replace("127.0.0.1", "localhost");
    evocache(&["--coordinator", &by_name, "--ca", ca, "list"]).ok();

    let other = Authority::new(encrypted.folder.path(), "other");
    encrypted.list(&["--ca", &other.file]).fails(1, &["unknownissuer", "hint:", "--ca FILE"]);
    let plain = encrypted.coordinator.url.replace("https://", "http://");
    evocache(&["--coordinator", &plain, "list"]).fails(1, &["not reachable", "hint:"]);
    // Certificates for an address that is not encrypted are a mistake, and a dangerous one.
    evocache(&["--coordinator", &plain, "--ca", ca, "list"]).fails(2, &["not encrypted", "hint:", "https://"]);
}

#[test]
fn a_coordinator_that_speaks_no_tls_is_told_from_one_that_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let coordinator = Coordinator::start(&folder.path().join("data"));
    let url = coordinator.url.replace("http://", "https://");
    evocache(&["--coordinator", &url, "--ca", &authority.file, "list"]).fails(1, &["hint:", "does not speak TLS"]);
}

#[test]
fn a_coordinator_with_client_certificates_lets_no_stranger_in() {
    let encrypted = Encrypted::start(true);
    let (folder, ca) = (encrypted.folder.path(), encrypted.authority.file.as_str());
    let (certificate, key) = encrypted.authority.sign(folder, "caller");
    encrypted.list(&["--ca", ca, "--client-cert", &certificate, "--client-key", &key]).ok();
    encrypted.list(&["--ca", ca]).fails(1, &["hint:", "--client-cert"]);
    let other = Authority::new(folder, "other");
    let (certificate, key) = other.sign(folder, "stranger");
    encrypted
        .list(&["--ca", ca, "--client-cert", &certificate, "--client-key", &key])
        .fails(1, &["hint:", "--client-cert"]);
    let (certificate, key) = encrypted.authority.sign_until(folder, "former", 2020);
    encrypted
        .list(&["--ca", ca, "--client-cert", &certificate, "--client-key", &key])
        .fails(1, &["hint:", "--client-cert"]);
    encrypted.list(&["--ca", ca, "--client-cert", &certificate]).fails(2, &["--client-key", "hint:"]);
}

#[test]
fn certificates_are_read_again_on_sighup_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(folder.path(), "first"), Authority::new(folder.path(), "second"));
    let (certificate, key) = first.sign(folder.path(), "server");
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--reload-every", "0s", "--http", "127.0.0.1:0"];
    let coordinator = Coordinator::start_with(&folder.path().join("data"), &tls);
    let listed = |authority: &Authority| coordinator.evocache(&["list", "--ca", &authority.file]).code == 0;
    assert!(listed(&first) && !listed(&second));
    second.sign(folder.path(), "server");
    signal(&coordinator.child, "HUP");
    assert!((0..500).any(|_| listed(&second)), "the certificate was not read again");
    assert!(!listed(&first));
    write(folder.path(), "server.pem", "no certificate");
    signal(&coordinator.child, "HUP");
    let failed = "evocache_reload_failures_total{files=\"certificates\"} 1";
    assert!((0..500).any(|_| coordinator.metrics().contains(failed)), "{}", coordinator.metrics());
    assert!(coordinator.metrics().contains("evocache_reload_last_successful{files=\"certificates\"} 0"));
    assert!(listed(&second));
}

#[test]
fn limits_are_read_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, entry) = token(folder.path(), "looker", "reader");
    let tokens = write(folder.path(), "tokens.toml", &entry);
    let data = folder.path().join("data");
    let coordinator =
        Coordinator::start_with(&data, &["--tokens", &tokens, "--limit-reads", "1:1:1", "--limit-changes", "off"]);
    let list = || coordinator.evocache(&["list", "--token-file", &reader]).code;
    // Who is told to wait does: the client comes back by itself.
    assert_eq!([list(), list(), list()], [0, 0, 0]);
    evocache(&["serve", "--limit-reads", "many"]).fails(2, &["--limit-reads", "RATE:BURST:AT_ONCE"]);
}

#[test]
fn an_expired_certificate_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (certificate, key) = authority.sign_until(folder.path(), "server", 2020);
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let listen = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--tls-cert", &certificate, "--tls-key", &key];
    evocache(&listen).fails(1, &[&certificate, "expired", "hint:", "renew it"]);
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let authority = Authority::new(folder.path(), "authority");
    let (certificate, key) = authority.sign(folder.path(), "server");
    let (_, other_key) = authority.sign(folder.path(), "other");
    let garbage = write(folder.path(), "garbage.pem", "not a certificate");
    let serve = |certificate: &str, key: &str| {
        let data = data.to_str().unwrap();
        let listen = ["serve", "--listen", "127.0.0.1:0", "--data", data];
        evocache(&[&listen[..], &["--tls-cert", certificate, "--tls-key", key]].concat())
    };
    serve("/no/such.pem", &key).fails(1, &["/no/such.pem", "no such file", "hint:"]);
    serve(&garbage, &key).fails(1, &["garbage.pem", "PEM", "hint:"]);
    serve(&key, &certificate).fails(1, &["server.key", "hint:", "swapped"]);
    serve(&certificate, &other_key).fails(1, &["other.key", "does not match", "server.pem", "hint:"]);
    evocache(&["serve", "--tls-cert", &certificate]).fails(2, &["--tls-key"]);
    evocache(&["serve", "--client-ca", &authority.file]).fails(2, &["--tls-cert"]);
    assert!(!data.exists());
    let url = ["--coordinator", "https://127.0.0.1:1", "list", "--ca"];
    evocache(&[&url[..], &[&garbage]].concat()).fails(2, &["garbage.pem", "hint:"]);
}
