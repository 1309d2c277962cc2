//! The arrows of ARCHITECTURE.md, held against every source file: who may name whom, and no circles between files.
//!
//! Reads whole files, unit tests included. A file may name what the row of its module allows and nothing else, so a new
//! dependency between modules, or on a package, is an edit of the table below.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod imports;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imports::{Crate, circles};

/// A module (a crate's name, then the path of a folder or a file in its `src`), the modules of its crate that it may name
/// beside itself, and the packages that it may name.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const TABLE: &[Row] = &[
    // The contract. Its domain knows neither messages nor formats.
    ("evocache_proto/domain", &["text"], &["sha2", "thiserror"]),
    ("evocache_proto/formats", &["domain", "text"], &["serde_json", "thiserror"]),
    ("evocache_proto/text", &[], &[]),
    ("evocache_proto/units", &[], &[]),
    // `lib` holds the generated messages.
    ("evocache_proto/wire", &["domain", "lib"], &["prost_types", "thiserror", "tonic"]),
    ("evocache_proto/lib", &[], &["tonic"]),
    // How both programs speak: knows no message, search or model.
    ("evocache_net/back_off", &[], &["uuid"]),
    ("evocache_net/channel", &["credentials"], &["thiserror", "tonic", "tracing"]),
    ("evocache_net/children", &["back_off"], &["rustix", "tokio", "tracing"]),
    ("evocache_net/credentials", &[], &["thiserror", "tonic"]),
    ("evocache_net/log", &["telemetry"], &["clap", "evocache_proto", "tracing", "tracing_subscriber"]),
    ("evocache_net/pace", &[], &[]),
    ("evocache_net/signals", &[], &["tokio"]),
    (
        "evocache_net/telemetry",
        &[],
        &[
            "opentelemetry",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "thiserror",
            "tokio",
            "tonic",
            "tracing",
            "tracing_opentelemetry",
            "tracing_subscriber",
        ],
    ),
    ("evocache_net/tls", &["credentials"], &["tokio_rustls", "tracing", "x509_cert"]),
    ("evocache_net/tokens", &["pace"], &["clap", "prost_types", "serde", "sha2", "thiserror", "toml"]),
    ("evocache_net/lib", &[], &[]),
    // The pure domain. Its Cargo.toml is the wall; the rows say who stands on whom.
    ("evocache_domain/archive", &["hypervolume", "pareto"], &["evocache_proto"]),
    ("evocache_domain/estimate", &[], &[]),
    ("evocache_domain/evaluation", &["search", "time"], &["evocache_proto"]),
    ("evocache_domain/hypervolume", &["pareto"], &[]),
    ("evocache_domain/lease", &["time"], &["evocache_proto", "thiserror"]),
    ("evocache_domain/objective", &["pareto"], &["evocache_proto", "thiserror"]),
    ("evocache_domain/pareto", &[], &[]),
    ("evocache_domain/query", &["evaluation"], &["evocache_proto", "thiserror"]),
    ("evocache_domain/reference", &[], &[]),
    ("evocache_domain/rng", &[], &["rand_chacha", "rand_core", "sha2"]),
    (
        "evocache_domain/search",
        &["archive", "estimate", "hypervolume", "objective", "pareto", "rng"],
        &["evocache_proto", "thiserror"],
    ),
    ("evocache_domain/time", &[], &[]),
    ("evocache_domain/trust", &[], &["evocache_proto"]),
    ("evocache_domain/lib", &[], &[]),
    // The coordinator. Ports know the domain only, the engine ports and domain, stores ports and domain.
    ("evocache/faults", &["ports"], &["rustix", "thiserror", "tracing"]),
    ("evocache/ports", &[], &["evocache_domain", "evocache_proto", "thiserror"]),
    (
        "evocache/engine",
        &["engine/commands", "engine/state", "faults", "ports"],
        &["evocache_domain", "evocache_proto", "thiserror", "tokio", "tracing"],
    ),
    // Decisions are pure: no runtime, no log.
    ("evocache/engine/state", &["ports"], &["evocache_domain", "evocache_proto", "thiserror"]),
    ("evocache/engine/commands", &["engine", "engine/state", "ports"], &["evocache_domain", "evocache_proto"]),
    ("evocache/store", &["ports", "store/codec", "store/sled"], &["evocache_proto", "prost", "sha2", "thiserror"]),
    ("evocache/store/codec", &["ports", "store"], &["evocache_domain", "evocache_proto", "prost"]),
    // What a replacement of sled would replace.
    (
        "evocache/store/sled",
        &["faults", "ports", "store", "store/codec"],
        &["evocache_proto", "rustix", "sled", "tracing", "twox_hash"],
    ),
    // The server: what is said of a call, and who may make it, below the services; nothing of stores but in `start`.
    (
        "evocache/server",
        &["engine", "ports", "server/gate", "server/grpc", "server/http"],
        &[
            "evocache_domain",
            "evocache_net",
            "evocache_proto",
            "futures",
            "governor",
            "rustix",
            "sha2",
            "thiserror",
            "tokio",
            "tokio_rustls",
            "tokio_stream",
            "tonic",
            "tonic_types",
            "tracing",
            "uuid",
        ],
    ),
    (
        "evocache/server/error",
        &["engine", "faults", "ports", "store"],
        &["evocache_net", "thiserror", "tonic_reflection"],
    ),
    (
        "evocache/server/start",
        &[
            "engine",
            "faults",
            "ports",
            "server",
            "server/error",
            "server/gate",
            "server/grpc",
            "server/http",
            "store",
            "store/sled",
        ],
        &["evocache_domain", "evocache_net", "tokio", "tonic", "tracing"],
    ),
    (
        "evocache/server/gate",
        &["engine", "ports", "server"],
        &["evocache_net", "evocache_proto", "governor", "http_body", "tokio", "tonic", "tower_layer", "tracing"],
    ),
    (
        "evocache/server/grpc",
        &["engine", "engine/state", "ports", "server", "server/gate"],
        &[
            "evocache_domain",
            "evocache_net",
            "evocache_proto",
            "futures",
            "prost",
            "prost_types",
            "sha2",
            "tokio",
            "tokio_stream",
            "tonic",
            "tonic_health",
            "tonic_reflection",
            "tower_layer",
            "tracing",
        ],
    ),
    (
        "evocache/server/http",
        &["engine", "engine/state", "server", "server/gate"],
        &["axum", "evocache_domain", "evocache_proto", "tokio"],
    ),
    ("evocache/upkeep", &["engine/state", "ports", "store", "store/sled"], &["evocache_domain", "thiserror"]),
    // The client and the command line know the contract only; `serve` and `store` start what they are for.
    (
        "evocache/client",
        &[],
        &[
            "evocache_net",
            "evocache_proto",
            "prost_types",
            "sha2",
            "thiserror",
            "tokio",
            "tonic",
            "tonic_types",
            "tracing",
            "uuid",
        ],
    ),
    (
        "evocache/cli/kit",
        &["client"],
        &["clap", "evocache_net", "evocache_proto", "indicatif", "serde_json", "strsim", "thiserror", "tokio"],
    ),
    ("evocache/cli/results", &["cli/kit", "client"], &["clap", "evocache_proto", "plotters", "png"]),
    ("evocache/cli/cluster", &["cli/kit"], &["evocache_proto", "serde", "tokio", "toml"]),
    ("evocache/cli/spec", &["cli/kit", "client"], &["evocache_proto", "serde", "serde_json", "toml"]),
    (
        "evocache/cli/commands",
        &["cli/cluster", "cli/kit", "cli/results", "cli/spec", "client"],
        &["clap", "clap_complete", "evocache_net", "evocache_proto", "serde_json", "tokio"],
    ),
    (
        "evocache/cli/commands/serve",
        &["cli/kit", "server", "server/error", "server/gate", "server/start"],
        &["clap", "evocache_net", "evocache_proto", "serde_json", "tokio"],
    ),
    (
        "evocache/cli/commands/store",
        &["cli/commands/backup_file", "cli/kit", "store", "upkeep"],
        &["clap", "evocache_proto", "serde_json"],
    ),
    ("evocache/cli/commands/backup_file", &["cli/kit", "client", "store", "upkeep"], &["evocache_proto", "serde_json"]),
    (
        "evocache/cli/commands/backup",
        &["cli/commands/backup_file", "cli/kit", "client", "upkeep"],
        &["clap", "evocache_proto", "serde_json", "tokio"],
    ),
    ("evocache/cli/commands/token", &["cli/kit", "client"], &["clap", "evocache_net", "evocache_proto", "serde_json"]),
    ("evocache/cli/mod", &[], &[]),
    (
        "evocache/simulate",
        &["cli/kit", "client", "upkeep"],
        &["clap", "evocache_domain", "evocache_net", "evocache_proto", "prost_types", "serde_json", "tokio", "tonic"],
    ),
    ("evocache/lib", &[], &[]),
    // The program: the only crate that knows coordinator and worker.
    ("program/args", &["local"], &["clap", "evocache", "evocache_proto"]),
    ("program/dispatch", &["args", "local", "log"], &["clap", "evocache", "evocache_proto", "tokio"]),
    (
        "program/local",
        &[],
        &["clap", "evocache", "evocache_net", "evocache_proto", "evocache_worker", "serde_json", "tokio"],
    ),
    ("program/log", &["args"], &["evocache", "evocache_net", "tracing_subscriber"]),
    ("program/main", &["dispatch", "args", "local", "log"], &["evocache_worker"]),
    // The worker. The agent knows the evaluator's trait only, and nothing of candle.
    (
        "evocache_worker/agent",
        &["cancel", "evaluator/api"],
        &["evocache_net", "evocache_proto", "thiserror", "tokio", "tonic", "tonic_types", "tracing", "uuid"],
    ),
    ("evocache_worker/allocator", &[], &["libmimalloc_sys", "mimalloc"]),
    ("evocache_worker/cancel", &[], &[]),
    (
        "evocache_worker/cli",
        &[
            "agent",
            "cancel",
            "evaluator",
            "evaluator/api",
            "executor",
            "files",
            "metrics",
            "models",
            "models/block_model",
            "picture",
            "samplers",
            "serve",
        ],
        &[
            "candle_core",
            "clap",
            "evocache_net",
            "evocache_proto",
            "safetensors",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tokio",
            "tracing",
            "tracing_subscriber",
        ],
    ),
    ("evocache_worker/evaluator/api", &["cancel"], &["evocache_proto", "thiserror"]),
    (
        "evocache_worker/evaluator",
        &[
            "cancel",
            "evaluator/api",
            "executor",
            "files",
            "layers",
            "metrics",
            "models",
            "models/block_model",
            "picture",
            "samplers",
        ],
        &["candle_core", "evocache_proto", "nvml_wrapper", "rayon", "thiserror", "tracing"],
    ),
    // The executor alone knows schedules; models do not.
    (
        "evocache_worker/executor",
        &["cancel", "files", "models/block_model", "samplers"],
        &["candle_core", "evocache_proto", "thiserror"],
    ),
    (
        "evocache_worker/files",
        &[],
        &["candle_core", "evocache_proto", "half", "safetensors", "serde_json", "sha2", "thiserror"],
    ),
    ("evocache_worker/layers", &["files"], &["candle_core", "candle_nn", "gemm", "rayon"]),
    ("evocache_worker/metrics", &["files", "layers", "models"], &["candle_core", "evocache_proto", "nalgebra"]),
    ("evocache_worker/models/block_model", &["files", "layers", "models"], &["candle_core", "evocache_proto"]),
    (
        "evocache_worker/models",
        &["files", "layers", "models/block_model", "samplers"],
        &["base64", "candle_core", "evocache_proto", "fancy_regex", "prost", "serde", "serde_json", "tokenizers"],
    ),
    ("evocache_worker/picture", &["files"], &["candle_core", "png"]),
    ("evocache_worker/samplers", &["files"], &["candle_core", "evocache_proto"]),
    // The image server: a user of the pipeline beside the agent, and of HTTP.
    (
        "evocache_worker/serve",
        &["cancel", "evaluator", "executor", "files", "models/block_model", "picture"],
        &[
            "axum",
            "base64",
            "candle_core",
            "evocache_net",
            "evocache_proto",
            "hyper",
            "hyper_util",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_rustls",
            "tonic",
            "tracing",
            "uuid",
        ],
    ),
    ("evocache_worker/lib", &[], &[]),
    ("evocache_worker/main", &[], &["clap", "evocache_proto", "evocache_worker"]),
];

/// The packages that unit tests may name beside their module's row.
const TESTS: &[&str] = &[
    "evocache_domain",
    "evocache_proto",
    "evocache_testkit",
    "futures",
    "half",
    "proptest",
    "prost",
    "prost_types",
    "rcgen",
    "serde_json",
    "sha2",
    "tempfile",
    "tokio",
    "tonic",
];

/// The crates: their names in paths, and their folders.
const CRATES: &[(&str, &str)] = &[
    ("evocache_proto", "proto"),
    ("evocache_net", "proto/net"),
    ("evocache_domain", "coordinator/domain"),
    ("evocache", "coordinator"),
    ("program", "coordinator/program"),
    ("evocache_worker", "worker"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every package that a manifest of the workspace names, as it stands in paths.
fn packages() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["evocache", "evocache_worker"].map(str::to_owned).into();
    for folder in CRATES.iter().map(|(_, folder)| *folder).chain(["."]) {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let workspace = manifest.get("workspace").and_then(|w| w.as_table());
        for table in [Some(&manifest), workspace].into_iter().flatten() {
            for (key, value) in table {
                if key.ends_with("dependencies")
                    && let Some(dependencies) = value.as_table()
                {
                    names.extend(dependencies.keys().map(|name| name.replace('-', "_")));
                }
            }
        }
    }
    names
}

fn all() -> Vec<Crate> {
    let packages = packages();
    let read = |(name, folder): &(&str, &str)| {
        // A crate does not name itself by its package.
        let others = packages.iter().filter(|p| *p != name).cloned().collect();
        imports::read(name, &root().join(folder), &others)
    };
    CRATES.iter().map(read).collect()
}

/// The row of a file: the longest that it begins with.
fn row(crate_name: &str, file: &str) -> Option<&'static Row> {
    let path = format!("{crate_name}/{}", file.replace("_tests.rs", ".rs"));
    let fits =
        |row: &&Row| path == row.0 || path == format!("{}.rs", row.0) || path.starts_with(&format!("{}/", row.0));
    TABLE.iter().filter(fits).max_by_key(|row| row.0.len())
}

#[test]
fn nothing_names_what_its_row_does_not_allow() {
    let mut wrong = vec![];
    for one in all() {
        assert!(one.files.len() > 3, "{} has no source files", one.name);
        for (file, named) in &one.files {
            let Some(own) = row(&one.name, file) else {
                wrong.push(format!("{}/{file} is in no row of the table", one.name));
                continue;
            };
            // What a `mod.rs` names below itself is what it re-exports.
            let below = file.strip_suffix("mod.rs").map(|folder| format!("{}/{folder}", one.name));
            let allowed = |module: &str| {
                let is_below = below.as_ref().is_some_and(|below| module.starts_with(below.as_str()));
                module == own.0 || is_below || own.1.iter().any(|a| module == format!("{}/{a}", one.name))
            };
            for other in named.files.iter().filter(|_| !is_root(file)) {
                let module = row(&one.name, other).map_or("no row", |row| row.0);
                if !allowed(module) {
                    wrong.push(format!("{}/{file} names {other}: its row does not allow {module}", one.name));
                }
            }
            for package in named.packages.iter().filter(|p| !own.2.contains(&p.as_str())) {
                wrong.push(format!("{}/{file} names the package {package}, which its row does not allow", one.name));
            }
            let in_tests = |p: &&String| !own.2.contains(&p.as_str()) && !TESTS.contains(&p.as_str());
            for package in named.tests_packages.iter().filter(in_tests) {
                wrong.push(format!("{}/{file} names the package {package} in its unit tests", one.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The root of a crate may name all of it, to say what is public.
fn is_root(file: &str) -> bool {
    matches!(file, "lib.rs" | "main.rs")
}

#[test]
fn no_files_import_each_other() {
    let mut told = String::new();
    for one in all() {
        for circle in circles(&one) {
            told += &format!("\n{}: a circle of\n", one.name);
            for file in &circle {
                let to: Vec<&String> = one.files[file].files.iter().filter(|other| circle.contains(other)).collect();
                told += &format!("  {file} -> {to:?}\n");
            }
        }
    }
    assert!(told.is_empty(), "{told}");
}

/// A model runs a component when it is told to; what is cached, and when, is the executor's.
#[test]
fn models_know_nothing_of_schedules() {
    let folder = root().join("worker/src/models");
    for file in imports::files(&folder) {
        let code = imports::code(&std::fs::read_to_string(&file).unwrap());
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let named = words.find(|word| ["Schedule", "ScheduleId", "Decision"].contains(word));
        assert_eq!(named, None, "{}", file.display());
    }
}

#[test]
fn every_row_is_of_something() {
    let crates = all();
    for (path, ..) in TABLE {
        let found = crates.iter().any(|c| c.files.keys().any(|file| row(&c.name, file).is_some_and(|r| r.0 == *path)));
        assert!(found, "{path} is in the table and not in the source");
    }
}

/// What the check must see, on a crate of three files that breaks both rules.
#[test]
fn the_check_sees_what_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join("src").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "pub mod a;\nmod b;\npub use b::B;\n");
    write(
        "a.rs",
        "use crate::B;\n// use sled::Db;\nfn f() { tokio::spawn(async {}); }\nconst S: &str = \"tonic::x\";\n",
    );
    write(
        "b.rs",
        "use super::a::{f, g as h};\npub struct B;\n#[cfg(test)]\nmod tests {\n  use super::*;\n  use proptest::prelude::*;\n}\n",
    );
    let packages = ["sled", "tokio", "tonic", "proptest"].map(str::to_owned).into();
    let read = imports::read("toy", folder.path(), &packages);
    assert_eq!(read.files["a.rs"].packages.iter().collect::<Vec<_>>(), ["tokio"]);
    assert_eq!(read.files["b.rs"].tests_packages.iter().collect::<Vec<_>>(), ["proptest"]);
    assert!(read.files["b.rs"].packages.is_empty());
    assert_eq!(circles(&read), [["a.rs", "b.rs"]], "through the name that lib.rs exports");
}
