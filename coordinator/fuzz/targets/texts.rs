//! Specifications and token files: any text.

#![no_main]

use std::path::Path;

use evocache::cli::spec::SpecFile;
use evocache::tokens::Tokens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Not resolved: that reads the files which the text names.
    drop(SpecFile::parse(text, Path::new("fuzz.toml")));
    drop(Tokens::parse(text));
});
