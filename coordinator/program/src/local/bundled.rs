//! Finds the bundled model: beside an installed program, or in the source tree of a development build.
//!
//! A release is packed as `bin/evocache` and `share/evocache/models/emoji`, so the model is found wherever both are unpacked.
//! A build with EVOCACHE_RELEASE set does not remember its source tree.

use std::path::{Path, PathBuf};

use evocache::cli::kit::exit::Failure;

/// A file that every model folder has.
pub(super) const MARK: &str = "model_index.json";

/// The model, relative to the folder above that of the program.
const INSTALLED: &str = "share/evocache/models/emoji";

/// The model in the source tree that this program was built from.
const IN_SOURCE_TREE: Option<&str> = match option_env!("EVOCACHE_RELEASE") {
    Some(_) => None,
    None => Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker/models/emoji")),
};

/// The folder of the bundled model.
pub(super) fn find() -> Result<PathBuf, Failure> {
    // A link to the program, such as one in /usr/local/bin, leads to where it was unpacked.
    let program = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let places: Vec<PathBuf> =
        program.as_deref().and_then(installed).into_iter().chain(IN_SOURCE_TREE.map(PathBuf::from)).collect();
    if let Some(model) = places.iter().find(|place| place.join(MARK).is_file()) {
        return std::fs::canonicalize(model).map_err(|e| Failure::file("find the model folder", model, &e));
    }
    let places: Vec<String> = places.iter().map(|place| format!("'{}'", place.display())).collect();
    Err(Failure::usage(format!("the bundled model is not in {}", places.join(" or ")))
        .hint(format!("keep {INSTALLED} of the release beside bin, or pass a model folder with --model")))
}

/// Where the model of an installed program is.
fn installed(program: &Path) -> Option<PathBuf> {
    Some(program.parent()?.parent()?.join(INSTALLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_looked_for_beside_the_program() {
        assert_eq!(
            installed(Path::new("/opt/evocache/bin/evocache")),
            Some("/opt/evocache/share/evocache/models/emoji".into())
        );
        assert_eq!(installed(Path::new("/")), None);
        assert!(find().unwrap().join(MARK).is_file());
    }
}
