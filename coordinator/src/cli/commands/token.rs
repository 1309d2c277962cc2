//! The verb `token`: makes tokens. Calls no coordinator: write access to its file of tokens is what permits it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::units::parse_duration;
use crate::client::{new_token, rfc3339};
use evocache_net::tokens::{Role, check_name, entry};

/// Make tokens for a coordinator with --tokens
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The verb.
    #[command(subcommand)]
    pub verb: TokenVerb,
}

/// What to do about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token: prints it once, and the entry for the coordinator's file
    #[command(after_help = "\
Examples:
  evocache token new --name ci --role operator --expires 90d
  evocache token new --name gpu-1 --role worker --out gpu-1.token >> tokens.toml

A running coordinator reads its file again when it changes. Two entries may have
one name: add the new one, hand out the token, then remove the old one.")]
    New(NewTokenArgs),
}

/// Arguments of `token new`.
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// Name of the holder, as the coordinator's log shows it
    #[arg(long, value_name = "NAME", value_parser = holder)]
    pub name: String,
    /// What the holder may do
    #[arg(long, value_enum)]
    pub role: Role,
    /// How long the token is valid, such as 90d [default: forever]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub expires: Option<Duration>,
    /// Write the token to a new file, and only the entry to stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

fn holder(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// Runs the verb.
pub fn token(args: TokenArgs, printer: Printer) -> Result<Exit, Failure> {
    let TokenVerb::New(args) = args.verb;
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

#[expect(clippy::disallowed_methods, reason = "a token is valid from now; nothing is replayed from it")]
fn end(life: Duration) -> Result<String, Failure> {
    // Whole seconds, as in the file; an end after the year 9999 has no RFC 3339 form.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.checked_add(life.as_secs()).filter(|&seconds| seconds < 253_402_300_800);
    let end = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    end.map(rfc3339).ok_or_else(|| Failure::usage("--expires ends after the year 9999"))
}

/// Writes a new file that only its owner can read. An existing file is refused: it may hold another token.
fn write_secret(path: &Path, token: &str) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{token}"));
    written.map_err(|e| Failure::file("write", path, &e))
}
