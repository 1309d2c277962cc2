//! Reads prompts from the lines of a file. Prompts within a specification are read by `resolve.rs`.

use std::path::Path;

use evocache_proto::domain::{MAX_PROMPTS, Prompt};
use evocache_proto::text::without_mark;

use crate::cli::kit::exit::Failure;

/// The setting at fault, by its name in a specification file, and the problem.
pub(crate) type PromptsError = (&'static str, String);

/// Reads the first `wanted` non-blank lines of a file (`None`: all of them), with the noise seeds `first_seed`,
/// `first_seed + 1`, ...
pub(crate) fn read(file: &Path, wanted: Option<usize>, first_seed: u64) -> Result<Vec<Prompt>, PromptsError> {
    let text = std::fs::read_to_string(file).map_err(|e| ("prompts_file", Failure::file("read", file, &e).message))?;
    let lines: Vec<&str> = without_mark(&text).lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if wanted.is_none() && lines.len() > MAX_PROMPTS {
        let problem = format!(
            "'{}' has {} prompts, and a search takes {MAX_PROMPTS} at most; set how many to use (prompts)",
            file.display(),
            lines.len()
        );
        return Err(("prompts_file", problem));
    }
    let wanted = wanted.unwrap_or(lines.len());
    if wanted > lines.len() {
        return Err(("prompts", format!("{wanted} are wanted, '{}' has {}", file.display(), lines.len())));
    }
    let seeded = |(i, text): (usize, &str)| Prompt { text: text.to_owned(), seed: first_seed.wrapping_add(i as u64) };
    Ok(lines.into_iter().take(wanted).enumerate().map(seeded).collect())
}
