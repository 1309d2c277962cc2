//! With what a search of `local` was begun: what its store does not know and its workers need. Kept beside the store, so
//! that `--resume` goes on with the same, and refuses what would be another search.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::args::LocalArgs;
use crate::cli::exit::Failure;
use crate::cli::view;
use crate::client::Search;
use evocache_proto::domain::SpecDraft;

const FILE: &str = "local.json";

/// What the workers are started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The model's folder; `None`: the bundled one.
    pub(super) model: Option<PathBuf>,
    /// What they measure beside CLIP score and PSNR.
    pub(super) metrics: Vec<String>,
    /// Where they compute.
    pub(super) device: Option<String>,
}

impl Settings {
    /// Those of the command line.
    pub(super) fn of(args: &LocalArgs) -> Self {
        // Where it cannot be found the model is refused later, by the name that was given.
        let model = args.model.as_ref().map(|model| std::fs::canonicalize(model).unwrap_or_else(|_| model.clone()));
        Self { model, metrics: args.metrics.clone(), device: args.device.clone() }
    }

    /// Those of the search in a folder; `None` if it was begun before they were kept.
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

    /// Keeps them.
    pub(super) fn write(&self, out: &Path) -> Result<(), Failure> {
        let path = out.join(FILE);
        let value = json!({ "model": self.model, "metrics": self.metrics, "device": self.device });
        let text = format!("{}\n", evocache_proto::text::json(&format!("{value:#}")));
        std::fs::write(&path, text).map_err(|e| Failure::file("write", &path, &e))
    }

    /// These, with what the command line leaves open as it was. What it says otherwise is told as differences; another
    /// device changes no result that counts.
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

/// In what a specification differs from that of a search, field by field.
pub(super) fn differences(search: &Search, given: &SpecDraft) -> Vec<String> {
    let mut found = vec![];
    let (ours, theirs) = (view::spec(&search.spec), view::spec(given));
    compare("", &ours, &theirs, &mut found);
    let (ours, theirs) = (&search.spec.prompts, &given.prompts);
    if let Some(i) = (0..ours.len().min(theirs.len())).find(|&i| ours[i] != theirs[i]) {
        let shown = |p: &evocache_proto::domain::Prompt| format!("'{}' with seed {}", p.text, p.seed);
        found.push(format!("prompts[{i}]: it has {}, not {}", shown(&ours[i]), shown(&theirs[i])));
    }
    let (ours, theirs) = (&search.spec.imported, &given.imported);
    if let Some(i) = (0..ours.len().min(theirs.len())).find(|&i| ours[i].schedule != theirs[i].schedule) {
        found.push(format!("import[{i}]: it has another schedule than '{}'", theirs[i].name));
    }
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(&path, ours.get(name).unwrap_or(&Value::Null), theirs.get(name).unwrap_or(&Value::Null), found);
        }
    } else if ours != theirs {
        found.push(format!("{path}: it has {ours}, not {theirs}"));
    }
}

/// What stands in the way of going on.
pub(super) fn refused(out: &Path, differences: &[String]) -> Failure {
    let lines: String = differences.iter().map(|line| format!("\n  {line}")).collect();
    let failure = Failure::usage(format!("the search in '{}' is another one:{lines}", out.display()));
    let budget = differences.iter().any(|line| line.trim_start_matches("--").starts_with("budget"));
    let extend = if budget {
        format!("; to raise its budget, `evocache serve --data {}/store` and `evocache extend local`", out.display())
    } else {
        String::new()
    };
    failure.hint(format!(
        "leave these out to go on with the search as it was begun, or begin a new one in another folder with --out{extend}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::search;

    #[test]
    fn what_is_left_open_is_as_it_was_and_what_differs_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Settings::read(folder.path()).unwrap(), None);
        let begun = Settings { model: Some("/m".into()), metrics: vec!["ssim".into()], device: Some("cuda:0".into()) };
        begun.write(folder.path()).unwrap();
        let read = Settings::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.clone().resumed(Settings::default()), (begun.clone(), vec![]));
        assert_eq!(read.clone().resumed(begun.clone()), (begun, vec![]));
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

    #[test]
    fn another_specification_is_told_field_by_field() {
        let search = search();
        let mut given = search.spec.clone();
        assert_eq!(differences(&search, &given), Vec::<String>::new());
        given.budget.evaluations = Some(7);
        given.seed = 9;
        given.sampling.steps = vec![9];
        given.objectives[1].bound = Some(0.5);
        given.prompts[1].seed = 3;
        let told = differences(&search, &given);
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told[0].starts_with("budget.evaluations: it has ") && told[0].ends_with(", not 7"), "{told:?}");
        assert!(told.contains(&"sampling.steps: it has [4], not [9]".to_owned()), "{told:?}");
        assert!(told[4].starts_with("prompts[1]: it has 'a cat' with seed 0"), "{told:?}");
    }
}
