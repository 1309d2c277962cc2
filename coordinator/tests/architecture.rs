//! Who may import whom: the arrows of ARCHITECTURE.md, held against the `use` lines and paths of every source file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Where, what may not be named there, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "proto/src/domain",
        &["crate::pb", "crate::wire", "crate::formats", "prost", "tonic", "serde"],
        "the domain is pure",
    ),
    (
        "coordinator/domain/src",
        &[
            "tokio",
            "tonic",
            "sled",
            "prost",
            "serde",
            "std::time::Instant",
            "std::time::SystemTime",
            "evocache_proto::pb",
            "evocache_proto::wire",
            "crate::engine",
            "crate::ports",
            "crate::store",
            "crate::server",
            "crate::cli",
            "crate::client",
        ],
        "the search and the lease machine are pure",
    ),
    (
        "coordinator/src/ports",
        &[
            "tokio",
            "tonic",
            "sled",
            "evocache_proto::pb",
            "crate::engine",
            "crate::store",
            "crate::server",
            "crate::cli",
        ],
        "ports know the domain only",
    ),
    (
        "coordinator/src/engine",
        &[
            "tonic",
            "sled",
            "evocache_proto::pb",
            "evocache_proto::wire",
            "crate::store",
            "crate::server",
            "crate::cli",
            "crate::client",
        ],
        "the engine knows ports and domain only",
    ),
    (
        "coordinator/src/store",
        &["tokio", "tonic", "crate::engine", "crate::server", "crate::cli", "crate::client"],
        "stores know ports only",
    ),
    (
        "coordinator/src/server/gate",
        &["sled", "crate::store", "crate::server::grpc", "crate::server::http", "crate::cli", "crate::client"],
        "the gate knows no service",
    ),
    (
        "coordinator/src/server/grpc",
        &["sled", "crate::store", "crate::server::http", "crate::cli", "crate::client"],
        "services know the engine only",
    ),
    ("coordinator/src/server", &["sled", "crate::cli", "crate::client"], "the server knows nothing of its clients"),
    (
        "coordinator/src/client",
        &["sled", "crate::engine", "crate::store", "crate::server", "crate::cli", "evocache_domain"],
        "the client knows the contract only",
    ),
    (
        "coordinator/src/cli",
        &[
            "sled",
            "crate::engine",
            "crate::store",
            "crate::server::grpc",
            "evocache_domain",
            "evocache_proto::pb",
            "evocache_worker",
        ],
        "the command line goes through the client",
    ),
    (
        "coordinator/src/server/http",
        &["sled", "tonic", "crate::store", "crate::server::grpc", "crate::cli", "crate::client"],
        "operators see what engine and services count",
    ),
    (
        "coordinator/src/upkeep",
        &["sled", "tokio", "tonic", "crate::server::grpc", "crate::cli", "crate::client"],
        "the offline tools know store and engine only",
    ),
    ("coordinator/src", &["candle"], "nothing in the coordinator knows candle"),
    (
        "worker/src/agent",
        &["candle", "crate::executor", "crate::models", "crate::samplers"],
        "the agent knows the evaluator's trait only",
    ),
    ("worker/src/models", &["crate::executor", "Schedule", "Decision"], "models know nothing of schedules"),
    (
        "worker/src/executor",
        &[
            "crate::models::dit",
            "crate::models::flux",
            "crate::models::pixart",
            "crate::models::sd3",
            "crate::models::t5",
            "crate::models::vae",
            "crate::models::clip",
            "crate::evaluator",
        ],
        "the executor knows no model by name",
    ),
    ("worker/src/samplers", &["crate::executor", "crate::evaluator", "crate::models"], "samplers know numbers only"),
    (
        "worker/src/metrics",
        &["crate::executor", "crate::evaluator", "crate::agent"],
        "metrics know pictures and prompts only",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The code of a file: no comments, no attributes that carry prose, and nothing after the start of its unit tests.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = before_tests.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" //").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether `code` names `path` as a whole word that is followed by `::` or ends an import, not inside a longer name.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"');
        let is_crate = path.contains("::") || path.starts_with(char::is_uppercase);
        let used = is_crate || code[at + path.len()..].starts_with("::") || path == "candle";
        !word(before) && (path == "candle" || !word(after)) && used
    })
}

#[test]
fn nobody_imports_what_it_may_not_know() {
    let mut wrong = vec![];
    for (folder, forbidden, why) in FORBIDDEN {
        let mut files = vec![];
        sources(&root().join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no source file");
        for file in files.iter().filter(|f| !f.ends_with("_tests.rs")) {
            let code = code(&std::fs::read_to_string(file).unwrap());
            for path in forbidden.iter().filter(|path| names(&code, path)) {
                let shown = file.strip_prefix(root()).unwrap().display();
                wrong.push(format!("{shown} names `{path}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_what_it_is_for() {
    assert!(names("use tokio::sync::mpsc;", "tokio"));
    assert!(names("use candle_core::Tensor;", "candle"));
    assert!(names("let x = crate::engine::State;", "crate::engine"));
    assert!(!names("let tokio_like = 1;", "tokio"));
    assert!(!names(&code("// tokio::spawn is not used here\nlet a = 1;"), "tokio"));
}
