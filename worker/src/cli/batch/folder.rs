//! The folder of a batch: what was asked for, the pictures, and a line about each.
//!
//! A picture is renamed to its name when it is whole, and its line is written after that. A process that is killed
//! between the two leaves a picture without a line, which the next one draws again: every picture has one line. A line
//! that was cut off is dropped.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{CliError, Result};
use crate::files::text;
use crate::picture::Picture;

/// What a folder's pictures were asked for with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) model: String,
    /// The digest of the file of prompts.
    pub(super) prompts: String,
    pub(super) schedule: String,
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
    pub(super) seed: u64,
    pub(super) negative_prompt: String,
}

/// A line of results.jsonl, as far as it is read.
#[derive(Deserialize)]
struct Line {
    number: usize,
}

/// The folder of a batch, which no other process uses meanwhile.
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _settings: File,
    results: File,
    there: BTreeSet<usize>,
}

impl Folder {
    /// Opens or creates a folder for these settings.
    pub(super) fn open(path: &Path, settings: &Settings) -> Result<Self> {
        let failed =
            |what: &str, e: std::io::Error| CliError::new(format!("cannot {what} in '{}': {e}", path.display()));
        std::fs::create_dir_all(path).map_err(|e| CliError::new(format!("cannot create '{}': {e}", path.display())))?;
        let job = path.join("job.json");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&job).map_err(|e| failed("write job.json", e))?;
        if file.try_lock().is_err() {
            return Err(CliError::new(format!("another process draws into '{}'", path.display())));
        }
        let before = text::read(&job).map_err(|e| failed("read job.json", e))?;
        if before.is_empty() {
            let text = serde_json::to_string_pretty(settings).map_err(|e| CliError::new(e.to_string()))?;
            file.write_all(format!("{text}\n").as_bytes()).map_err(|e| failed("write job.json", e))?;
        } else {
            let before: Settings = serde_json::from_str(&before)
                .map_err(|e| CliError::new(format!("'{}' is not the settings of a batch: {e}", job.display())))?;
            if before != *settings {
                return Err(CliError::new(format!(
                    "'{}' has pictures that were asked for with other settings",
                    path.display()
                ))
                .hint(format!("give another folder, or the settings of '{}'", job.display())));
            }
        }
        let log = path.join("results.jsonl");
        let mut results = options.open(&log).map_err(|e| failed("write results.jsonl", e))?;
        let text = text::read(&log).map_err(|e| failed("read results.jsonl", e))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let cut = |e| failed("write results.jsonl", e);
        results.set_len(whole as u64).map_err(cut)?;
        results.seek(SeekFrom::End(0)).map_err(cut)?;
        let lines = text
            .get(..whole)
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).map(|line: Line| line.number));
        let there = lines.collect::<std::result::Result<BTreeSet<usize>, _>>();
        let there =
            there.map_err(|e| CliError::new(format!("'{}' has a line of another format: {e}", log.display())))?;
        let there = there.into_iter().filter(|number| path.join(name(*number)).is_file()).collect();
        Ok(Self { path: path.into(), _settings: file, results, there })
    }

    /// Whether a picture is there.
    pub(super) fn has(&self, number: usize) -> bool {
        self.there.contains(&number)
    }

    /// The number of pictures.
    pub(super) fn count(&self) -> usize {
        self.there.len()
    }

    /// Adds a picture.
    pub(super) fn add(&mut self, number: usize, picture: &Picture, schedule: &str) -> Result<()> {
        let (name, part) = (name(number), self.path.join("picture.part"));
        let failed =
            |e: std::io::Error| CliError::new(format!("cannot write '{name}' in '{}': {e}", self.path.display()));
        std::fs::write(&part, picture.png()?).map_err(failed)?;
        std::fs::rename(&part, self.path.join(&name)).map_err(failed)?;
        let line = json!({
            "number": number, "file": name, "schedule": schedule, "width": picture.width, "height": picture.height
        });
        self.results.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
        self.there.insert(number);
        Ok(())
    }
}

/// The file of a picture.
fn name(number: usize) -> String {
    format!("{number:06}.png")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_on_where_it_was_and_for_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("out");
        let settings = Settings {
            model: "m".into(),
            prompts: "p".into(),
            schedule: "none".into(),
            steps: Some(4),
            guidance: Some(0.1 + 0.2),
            seed: u64::MAX,
            negative_prompt: String::new(),
        };
        let picture = Picture { width: 1, height: 1, rgb: vec![1, 2, 3] };
        let mut folder = Folder::open(&path, &settings).unwrap();
        folder.add(0, &picture, "none").unwrap();
        folder.add(2, &picture, "none").unwrap();
        let said = Folder::open(&path, &settings).err().unwrap().to_string();
        assert!(said.contains("another process"), "{said}");
        drop(folder);

        // Killed in the middle of a line, and a picture was deleted.
        let log = path.join("results.jsonl");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, format!("{text}{{\"number\": 1, \"fi")).unwrap();
        std::fs::remove_file(path.join("000002.png")).unwrap();
        let mut folder = Folder::open(&path, &settings).unwrap();
        assert_eq!([0, 1, 2].map(|number| folder.has(number)), [true, false, false]);
        folder.add(1, &picture, "none").unwrap();
        assert_eq!(folder.count(), 2);
        drop(folder);
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("{\"number\":1,") && line.ends_with('}')).count(),
            1,
            "{text}"
        );

        let others = Settings { steps: None, ..settings };
        let said = Folder::open(&path, &others).err().unwrap().to_string();
        assert!(said.contains("settings"), "{said}");
    }
}
