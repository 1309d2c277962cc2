//! Finds the bundled model: beside the program, in the source tree that the program was built from, or in the user's data
//! folder.
//!
//! Only lists and checks folders: `setup.rs` decides what happens if the model is in none of them.

use std::path::{Path, PathBuf};

/// The model's folder in an installation: `bin/evocache` beside `share/evocache/models/emoji`.
const INSTALLED: &str = "share/evocache/models/emoji";
/// The same below a data folder, which stands for `share`.
const IN_DATA: &str = "evocache/models/emoji";
/// The same in the source tree.
const IN_SOURCE: &str = "worker/models/emoji";
/// The source tree. A release (`deploy/release.sh` sets EVOCACHE_RELEASE) does not remember where it was built.
const SOURCE_TREE: Option<&str> = match option_env!("EVOCACHE_RELEASE") {
    Some(_) => None,
    None => Some(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
};

/// A file that every model folder has.
pub(super) const MARK: &str = "model_index.json";

/// Where the model may be, in the order of the search. `data` is XDG_DATA_HOME, if it is set.
pub(super) fn places(data: Option<&Path>) -> Vec<PathBuf> {
    // Links are followed: the model is beside the program, not beside a link to it.
    let program = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let source = SOURCE_TREE.map(|tree| std::fs::canonicalize(tree).unwrap_or_else(|_| tree.into()));
    places_of(program.as_deref(), source.as_deref(), data, std::env::home_dir().as_deref())
}

/// The source tree comes before the data folder: an installed copy may be older, and a checkout's tests must not use it.
fn places_of(program: Option<&Path>, source: Option<&Path>, data: Option<&Path>, home: Option<&Path>) -> Vec<PathBuf> {
    let folder = program.and_then(Path::parent);
    // The XDG specification ignores relative paths.
    let data = data.filter(|data| data.is_absolute()).map(Path::to_path_buf);
    let data = data.or_else(|| home.map(|home| home.join(".local/share")));
    let places = [
        folder.map(|folder| folder.join(INSTALLED)),
        folder.and_then(Path::parent).map(|prefix| prefix.join(INSTALLED)),
        source.map(|tree| tree.join(IN_SOURCE)),
        data.map(|data| data.join(IN_DATA)),
    ];
    places.into_iter().flatten().collect()
}

/// The first of these folders that holds a model.
pub(super) fn first(places: &[PathBuf]) -> Option<&PathBuf> {
    places.iter().find(|folder| folder.join(MARK).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_beside_the_program_then_the_source_tree_then_the_data_folder() {
        let [program, source] = ["/opt/e/bin/evocache", "/src"].map(Path::new);
        let [data, home] = ["/data", "/home/me"].map(Path::new);
        let places = |data, home| places_of(Some(program), Some(source), data, home);
        let with_last = |last: &str| {
            [
                "/opt/e/bin/share/evocache/models/emoji",
                "/opt/e/share/evocache/models/emoji",
                "/src/worker/models/emoji",
                last,
            ]
            .map(PathBuf::from)
        };
        assert_eq!(places(Some(data), Some(home)), with_last("/data/evocache/models/emoji"));
        let at_home = with_last("/home/me/.local/share/evocache/models/emoji");
        assert_eq!(places(None, Some(home)), at_home);
        assert_eq!(places(Some(Path::new("relative")), Some(home)), at_home);
        assert_eq!(places_of(None, None, None, None), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_copied_program_finds_the_model_that_was_copied_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("bin/evocache");
        let home = folder.path().join("home");
        let places = places_of(Some(&program), None, None, Some(&home));
        assert_eq!(first(&places), None);
        // From the last place to the first: each one then takes precedence over those filled before.
        for place in places.iter().rev() {
            std::fs::create_dir_all(place).unwrap();
            std::fs::write(place.join(MARK), "{}").unwrap();
            assert_eq!(first(&places), Some(place));
        }
    }

    #[test]
    fn a_program_in_its_source_tree_has_a_model() {
        assert!(first(&places(None)).is_some());
    }
}
