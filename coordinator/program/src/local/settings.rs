//! The settings that a search of `local` was started with and that its store does not hold: the workers need them. They
//! are kept beside the store, so that `--resume` uses them again and refuses others.

use std::path::{Path, PathBuf};

use evocache::cli::kit::exit::Failure;
use serde_json::{Value, json};

use super::args::LocalArgs;

const FILE: &str = "local.json";

/// The settings of the workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Folder of the model; `None` is the bundled one.
    pub(super) model: Option<PathBuf>,
    /// Metrics besides CLIP score and PSNR.
    pub(super) metrics: Vec<String>,
    /// Device; `None` is the CPU.
    pub(super) device: Option<String>,
}

impl Settings {
    /// The settings of the command line.
    pub(super) fn of(args: &LocalArgs) -> Self {
        // A folder that does not exist is refused later, by the name that was given.
        let model = args.model.as_ref().map(|model| std::fs::canonicalize(model).unwrap_or_else(|_| model.clone()));
        Self { model, metrics: args.metrics.clone(), device: args.device.clone() }
    }

    /// The settings of the search in a folder; `None` if the folder has none.
    pub(super) fn read(out: &Path) -> Result<Option<Self>, Failure> {
        let path = out.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::file("read", &path, &e)),
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|e| Failure::new(format!("'{}' is damaged: {e}", path.display())))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Some(Self {
            model: text(&value["model"]).map(PathBuf::from),
            metrics: value["metrics"].as_array().into_iter().flatten().filter_map(text).collect(),
            device: text(&value["device"]),
        }))
    }

    /// Writes them to the folder.
    pub(super) fn write(&self, out: &Path) -> Result<(), Failure> {
        let path = out.join(FILE);
        let value = json!({ "model": self.model, "metrics": self.metrics, "device": self.device });
        let text = format!("{}\n", evocache_proto::text::json(&format!("{value:#}")));
        std::fs::write(&path, text).map_err(|e| Failure::file("write", &path, &e))
    }

    /// The settings of a resumed search, and how those of the command line differ. Another device is allowed: latency ratios
    /// are measured against the uncached run on the same device.
    pub(super) fn resumed(self, given: Self) -> (Self, Vec<String>) {
        let mut differences = vec![];
        let shown = |model: &Option<PathBuf>| {
            model.as_ref().map_or("the bundled model".into(), |m| format!("'{}'", m.display()))
        };
        if given.model.is_some() && given.model != self.model {
            differences.push(format!("--model: it has {}, not {}", shown(&self.model), shown(&given.model)));
        }
        if !given.metrics.is_empty() && given.metrics != self.metrics {
            let ours = if self.metrics.is_empty() { "none".to_owned() } else { self.metrics.join(", ") };
            differences.push(format!("--metric: it has {ours}, not {}", given.metrics.join(", ")));
        }
        (Self { device: given.device.or(self.device), ..self }, differences)
    }
}

/// The failure of a `--resume` whose command line differs from the search.
pub(super) fn refused(out: &Path, differences: &[String]) -> Failure {
    let lines: String = differences.iter().map(|line| format!("\n  {line}")).collect();
    let failure = Failure::usage(format!("the search in '{}' differs:{lines}", out.display()));
    let budget = differences.iter().any(|line| line.trim_start_matches("--").starts_with("budget"));
    let extend = if budget {
        format!("; to raise its budget, `evocache serve --data {}/store` and `evocache extend local`", out.display())
    } else {
        String::new()
    };
    failure.hint(format!(
        "leave these out to go on with the search as it was started, or start a new one in another folder with --out{extend}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_search_keeps_its_settings_and_other_ones_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), None);
        let started =
            Settings { model: Some("/m".into()), metrics: vec!["ssim".into()], device: Some("cuda:0".into()) };
        started.write(folder.path()).unwrap();
        let read = Settings::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.clone().resumed(Settings::default()), (started.clone(), vec![]));
        assert_eq!(read.clone().resumed(started.clone()), (started, vec![]));
        let given = Settings { model: Some("/n".into()), metrics: vec!["fid".into()], device: Some("cpu".into()) };
        let (resumed, differences) = read.resumed(given);
        assert_eq!((resumed.device.as_deref(), differences.len()), (Some("cpu"), 2));
        assert!(
            differences[0].contains("'/m', not '/n'") && differences[1].contains("ssim, not fid"),
            "{differences:?}"
        );
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Settings::read(folder.path()).unwrap_err().message.contains(FILE));
    }
}
