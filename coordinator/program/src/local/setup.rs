//! Plans a run of `local`: which model, which search, which folder. Mistakes are refused before anything starts.

use std::path::{Path, PathBuf};

use evocache::cli::kit::exit::{Exit, Failure};
use evocache::cli::spec::{SpecFile, Specification, load};
use evocache_proto::domain::SearchSpec;

use super::args::LocalArgs;
use super::bundled;
use super::settings::{Settings, refused};

/// The search that `local` runs by default: the example, unchanged.
const DEFAULT_SPEC: &str = include_str!("../../../../deploy/examples/emoji.toml");
const DEFAULT_SPEC_NAME: &str = "deploy/examples/emoji.toml";

/// What a run is going to do.
#[derive(Debug)]
pub(super) struct Plan {
    /// Folder of the model.
    pub(super) model: PathBuf,
    /// Specification of the search; `None` only if a resumed search brings its own.
    pub(super) spec: Option<SearchSpec>,
    /// Whether --spec gave the specification.
    pub(super) is_given: bool,
    /// The settings of the workers.
    pub(super) settings: Settings,
    /// Warnings about the specification.
    pub(super) warnings: Vec<String>,
    /// Folder of results, store and logs.
    pub(super) out: PathBuf,
}

impl Plan {
    /// The coordinator's store.
    pub(super) fn store(&self) -> PathBuf {
        self.out.join("store")
    }
}

/// Reads and checks what the command line names, and creates the folder.
pub(super) fn plan(args: &LocalArgs) -> Result<Plan, Failure> {
    check_folder(&args.out, args.resume)?;
    let given = Settings::of(args);
    let previous = if args.resume { Settings::read(&args.out)? } else { None };
    let (settings, differences) = match previous {
        Some(previous) => previous.resumed(given),
        None => (given, vec![]),
    };
    if !differences.is_empty() {
        return Err(refused(&args.out, &differences));
    }
    // A name from the command line comes first, so that errors quote it.
    let named = args.model.as_deref().or(settings.model.as_deref());
    let model = model(named, &bundled::places(args.data_home.as_deref()))?;
    let (spec, mut warnings) = match spec(args, &model) {
        Ok(Specification { spec, warnings, .. }) => (Some(spec), warnings),
        // The resumed search has one.
        Err(_) if args.resume && args.spec.is_none() => (None, vec![]),
        Err(failure) => return Err(failure),
    };
    if let Some(spec) = spec.as_ref().filter(|_| named.is_none())
        && !model.ends_with(&spec.model.name)
    {
        let name = &spec.model.name;
        warnings.push(format!("the specification is for model '{name}'; without --model the bundled model is used"));
    }
    std::fs::create_dir_all(&args.out).map_err(|e| Failure::file("create", &args.out, &e))?;
    settings.write(&args.out)?;
    Ok(Plan { model, spec, is_given: args.spec.is_some(), settings, warnings, out: args.out.clone() })
}

fn check_folder(out: &Path, resume: bool) -> Result<(), Failure> {
    let is_empty = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(Failure::file("read the folder", out, &e)),
    };
    if resume && !out.join("store").is_dir() {
        return Err(Failure::new(format!("no search in '{}' to resume", out.display()))
            .hint("leave out --resume to start one, or name its folder with --out")
            .exit(Exit::NotFound));
    }
    if !resume && !is_empty {
        return Err(Failure::usage(format!("'{}' is not empty", out.display()))
            .hint("--resume goes on with the search in it; --out sets another folder for a new one"));
    }
    Ok(())
}

/// The given folder, or the first of `places` that holds a model.
fn model(given: Option<&Path>, places: &[PathBuf]) -> Result<PathBuf, Failure> {
    let folder = match given {
        Some(folder) if folder.join(bundled::MARK).is_file() => folder,
        Some(folder) => {
            let (folder, mark) = (folder.display(), bundled::MARK);
            return Err(Failure::usage(format!("'{folder}' is not a model folder: it has no {mark}"))
                .hint("--model takes a folder in the layout of diffusers' save_pretrained"));
        }
        None => bundled::first(places).ok_or_else(|| no_bundled_model(places))?,
    };
    std::fs::canonicalize(folder).map_err(|e| Failure::file("find the model folder", folder, &e))
}

fn no_bundled_model(places: &[PathBuf]) -> Failure {
    let lines: String = places.iter().map(|place| format!("\n  {}", place.display())).collect();
    Failure::usage(format!("the bundled model is in none of these folders:{lines}"))
        .hint("copy it to one of them from the release, or pass a model folder with --model")
}

fn spec(args: &LocalArgs, model: &Path) -> Result<Specification, Failure> {
    let specification = match &args.spec {
        Some(file) if args.budget.is_none() && args.seed.is_none() => load(file)?,
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| Failure::file("read the specification", file, &e).exit(Exit::Usage))?;
            SpecFile::parse(&text, file)?.with(args.budget, args.seed).resolve(file)?
        }
        None => {
            let prompts = model.join("prompts.txt");
            if !prompts.is_file() {
                return Err(Failure::usage(format!("'{}' has no prompts.txt to measure with", model.display()))
                    .hint("describe the search, prompts included, in a file and name it with --spec"));
            }
            let name = model.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
            let file = Path::new(DEFAULT_SPEC_NAME);
            let spec = SpecFile::parse(DEFAULT_SPEC, file)?.for_model(name, prompts);
            spec.with(args.budget, args.seed).resolve(file)?
        }
    };
    Ok(specification)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(out: &Path) -> LocalArgs {
        LocalArgs {
            budget: Some(7),
            workers: None,
            model: None,
            spec: None,
            out: out.to_owned(),
            resume: false,
            seed: Some(5),
            device: None,
            metrics: vec![],
            data_home: None,
        }
    }

    #[test]
    fn the_default_search_is_the_example_with_the_command_lines_budget() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&args(&folder.path().join("new"))).unwrap();
        let spec = plan.spec.unwrap();
        assert_eq!(spec.budget.evaluations, Some(7));
        assert_eq!(spec.seed, 5);
        assert_eq!(spec.model.name, "emoji");
        assert_eq!(spec.prompts.len(), 16);
        assert!(!spec.forecast, "ECAD's format could not express what it finds");
        assert!(plan.out.is_dir());
    }

    #[test]
    fn a_specification_for_another_model_than_the_bundled_one_gives_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
        let warnings = |spec: &str, out: &str| {
            let spec = Some(examples.join(spec));
            plan(&LocalArgs { spec, ..args(&folder.path().join(out)) }).unwrap().warnings
        };
        assert_eq!(warnings("emoji.toml", "a"), Vec::<String>::new());
        let warnings = warnings("pixart-alpha-512.toml", "b");
        assert!(
            warnings.iter().any(|text| text.contains("'pixart-alpha-512'") && text.contains("--model")),
            "{warnings:?}"
        );
    }

    #[test]
    fn results_of_another_run_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("front.json"), "{}").unwrap();
        let failure = plan(&args(folder.path())).unwrap_err();
        assert!(failure.hint.unwrap().contains("--resume"));
        let failure = plan(&LocalArgs { resume: true, ..args(folder.path()) }).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
    }

    #[test]
    fn a_missing_bundled_model_is_refused_with_all_places() {
        let places = ["/nonexistent/share/evocache/models/emoji", "/nonexistent/data"].map(PathBuf::from);
        let failure = model(None, &places).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.hint.as_ref().unwrap().contains("--model"), "{failure:?}");
        for place in &places {
            assert!(failure.message.contains(&*place.to_string_lossy()), "{failure:?}");
        }
    }

    #[test]
    fn a_folder_without_a_model_is_refused_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let failure =
            plan(&LocalArgs { model: Some(folder.path().into()), ..args(&folder.path().join("o")) }).unwrap_err();
        assert!(failure.message.contains(bundled::MARK) && failure.exit == Exit::Usage, "{failure:?}");
        std::fs::write(folder.path().join(bundled::MARK), "{}").unwrap();
        let failure =
            plan(&LocalArgs { model: Some(folder.path().into()), ..args(&folder.path().join("o")) }).unwrap_err();
        assert!(failure.message.contains("prompts.txt") && failure.hint.unwrap().contains("--spec"));
        assert!(!folder.path().join("o").exists());
    }
}
