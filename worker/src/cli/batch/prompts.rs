//! The prompts of a batch: lines of text, or objects with the fields of a request to `serve`.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cli::{CliError, Result};
use crate::files::text;
use crate::serve::Sketch;

/// Most prompts of a file, which six digits number.
const MOST: usize = 1_000_000;

/// A line of a .jsonl file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u64>,
    size: Option<String>,
    num_inference_steps: Option<u32>,
    guidance_scale: Option<f64>,
}

/// The prompts of a file and the digest of its text. Blank lines are left out.
pub(super) fn read(file: &Path, seed: u64, negative: &str) -> Result<(Vec<Sketch>, String)> {
    let text = text::read(file).map_err(|e| CliError::new(format!("cannot read prompts '{}': {e}", file.display())))?;
    let objects = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    let mut sketches = Vec::new();
    for (place, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let number = sketches.len();
        let line = if objects {
            serde_json::from_str(line).map_err(|e| wrong(file, place, &e.to_string()))?
        } else {
            Line {
                prompt: line.to_owned(),
                negative_prompt: None,
                seed: None,
                size: None,
                num_inference_steps: None,
                guidance_scale: None,
            }
        };
        sketches.push(sketch(number, line, seed, negative).map_err(|problem| wrong(file, place, problem))?);
    }
    if sketches.is_empty() || sketches.len() > MOST {
        let found = sketches.len();
        return Err(CliError::new(format!("'{}' has {found} prompts", file.display()))
            .hint(format!("write one prompt per line, at most {MOST}")));
    }
    let digest = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((sketches, digest))
}

fn wrong(file: &Path, place: usize, problem: &str) -> CliError {
    CliError::new(format!("'{}', line {}: {problem}", file.display(), place + 1))
}

fn sketch(number: usize, line: Line, seed: u64, negative: &str) -> std::result::Result<Sketch, &'static str> {
    let size = match line.size.as_deref() {
        None | Some("auto") => None,
        Some(text) => {
            let sides =
                text.split_once('x').and_then(|(width, height)| Some((height.parse().ok()?, width.parse().ok()?)));
            Some(sides.ok_or("'size' must be WIDTHxHEIGHT in pixels, such as '512x512'")?)
        }
    };
    if line.num_inference_steps.is_some_and(|steps| !(1..=1000).contains(&steps)) {
        return Err("'num_inference_steps' must be 1 to 1000");
    }
    if line.guidance_scale.is_some_and(|scale| !(0.0..=100.0).contains(&scale)) {
        return Err("'guidance_scale' must be 0 to 100");
    }
    Ok(Sketch {
        number,
        prompt: line.prompt,
        negative: line.negative_prompt.unwrap_or_else(|| negative.to_owned()),
        seed: line.seed.unwrap_or_else(|| seed.wrapping_add(number as u64)),
        size,
        steps: line.num_inference_steps,
        guidance: line.guidance_scale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_objects_are_read_and_mistakes_are_named_by_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            read(&path, 7, "fog").map(|(sketches, _)| sketches)
        };
        let plain = read("p.txt", "an owl\n\n  a cat \n").unwrap();
        assert_eq!((plain[1].number, plain[1].prompt.as_str(), plain[1].seed), (1, "a cat", 8));
        assert_eq!(plain[0].negative, "fog");
        let objects = read(
            "p.jsonl",
            "{\"prompt\": \"an owl\"}\n{\"prompt\": \"a cat\", \"seed\": 1, \"size\": \"64x32\", \"negative_prompt\": \"\"}\n",
        );
        let objects = objects.unwrap();
        assert_eq!((objects[0].seed, objects[0].size), (7, None));
        assert_eq!((objects[1].seed, objects[1].size, objects[1].negative.as_str()), (1, Some((32, 64)), ""));
        for (text, wanted) in [
            ("\n", "has 0 prompts"),
            ("{\"prompt\": \"a\"}\n{}", "line 2: missing field `prompt`"),
            ("{\"prompt\": \"a\", \"sed\": 1}", "line 1: unknown field `sed`"),
            ("{\"prompt\": \"a\", \"size\": \"64\"}", "line 1: 'size' must be"),
            ("{\"prompt\": \"a\", \"guidance_scale\": -1}", "line 1: 'guidance_scale' must be"),
            ("{\"prompt\": \"a\", \"num_inference_steps\": 0}", "line 1: 'num_inference_steps' must be"),
        ] {
            let said = read("p.jsonl", text).unwrap_err().to_string();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }
}
