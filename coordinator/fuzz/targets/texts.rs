//! Reads arbitrary text as a specification and as a token file.

#![no_main]

use std::path::Path;

use evocache::cli::spec::SpecFile;
use evocache_net::tokens::Tokens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Not resolved, because that would read the files that the text names.
    drop(SpecFile::parse(text, Path::new("fuzz.toml")));
    drop(Tokens::parse(text));
});
