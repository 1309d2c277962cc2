//! What people write: a search as TOML, and the file of tokens.

#![no_main]

use std::path::Path;

use evocache::cli::spec::SpecFile;
use evocache::tokens::Tokens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &str)| {
    let (tokens, text) = input;
    if tokens {
        let path = std::env::temp_dir().join(format!("evocache-fuzz-tokens-{}", std::process::id()));
        std::fs::write(&path, text).expect("the system's folder for what is temporary can be written");
        drop(Tokens::read(&path));
    } else {
        drop(SpecFile::parse(text, Path::new("fuzz.toml")));
    }
});
