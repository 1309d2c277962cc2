//! The verb that makes tokens. It asks no coordinator: whoever may write the file of tokens may make one.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::security_args::{NewTokenArgs, TokenVerb};
use crate::client::{new_token, rfc3339};
use crate::tokens::entry;

pub(super) fn token(verb: TokenVerb, printer: Printer) -> Result<Exit, Failure> {
    let TokenVerb::New(args) = verb;
    new(&args, printer)
}

fn new(args: &NewTokenArgs, printer: Printer) -> Result<Exit, Failure> {
    let expires = args.expires.map(end).transpose()?;
    let token = new_token();
    let entry = entry(&args.name, args.role, &token, expires.as_deref());
    if let Some(path) = &args.out {
        write_secret(path, &token)?;
        printer
            .note(&format!("token in '{}'; the entry goes into the file of `evocache serve --tokens`", path.display()));
        printer.answer(|| json!({ "token_file": path, "entry": entry }), || entry.clone())?;
    } else {
        printer.answer(|| json!({ "token": token, "entry": entry }), || format!("{token}\n\n{entry}"))?;
        printer
            .note("the first line is the token and is not shown again; the rest goes into the coordinator's --tokens");
    }
    Ok(Exit::Ok)
}

#[expect(clippy::disallowed_methods, reason = "a token's life begins now; nothing is replayed from it")]
fn end(life: Duration) -> Result<String, Failure> {
    // Whole seconds, as the file has them; a life that ends after all calendars is a mistake.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.checked_add(life.as_secs()).filter(|&seconds| seconds < 253_402_300_800);
    let end = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    end.map(rfc3339).ok_or_else(|| Failure::usage("--expires lies beyond the year 9999"))
}

/// A new file that only its owner reads. One that is there already is somebody's token.
fn write_secret(path: &Path, token: &str) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{token}"));
    written.map_err(|e| Failure::file("write", path, &e))
}
