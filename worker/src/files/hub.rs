//! Finds models of the Hugging Face hub in its local cache, by name.
//!
//! **Invariant:** never accesses the network. The error for a missing model contains the command that downloads it.

use std::path::{Path, PathBuf};

use super::error::{ModelError, Result};

/// The cache folder of the hub's tools: `cache` (`HF_HUB_CACHE`), or `hub` in `home` (`HF_HOME`), or the default in
/// `user`, the user's home.
pub fn cache_folder(cache: Option<&Path>, home: Option<&Path>, user: Option<&Path>) -> PathBuf {
    match (cache, home) {
        (Some(cache), _) => cache.to_owned(),
        (None, Some(home)) => home.join("hub"),
        (None, None) => user.unwrap_or(Path::new(".")).join(".cache/huggingface/hub"),
    }
}

/// The folder of `model`. An existing path is returned unchanged; for `OWNER/NAME[@REVISION]`, the cached snapshot of
/// the revision (by default `main`). Anything else is returned unchanged too, and fails when it is opened.
pub fn resolve(model: &Path, cache: &Path) -> Result<PathBuf> {
    let Some(name) = model.to_str().filter(|_| !model.exists()).and_then(HubName::read) else {
        return Ok(model.to_owned());
    };
    let folder = cache.join(format!("models--{}--{}", name.owner, name.repository));
    let revision = name.revision.unwrap_or("main");
    let missing = || ModelError::NotDownloaded {
        name: format!("{}/{}", name.owner, name.repository),
        revision: name.revision.map(str::to_owned),
        cache: cache.to_owned(),
    };
    let snapshot = |commit: &str| Some(folder.join("snapshots").join(commit)).filter(|folder| folder.is_dir());
    // A revision is a branch or tag, whose file in `refs` contains the commit, or a commit itself.
    let commit = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
    let commit = commit.as_deref().map_or(revision, str::trim);
    HubName::is_part(commit).then(|| snapshot(commit)).flatten().ok_or_else(missing)
}

/// The repository's name if `folder` is a snapshot in such a cache.
pub fn repository_of(folder: &Path) -> Option<String> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    let (_, name) = repository.strip_prefix("models--")?.split_once("--")?;
    (snapshots.file_name()? == "snapshots").then(|| name.to_owned())
}

struct HubName<'a> {
    owner: &'a str,
    repository: &'a str,
    revision: Option<&'a str>,
}

impl<'a> HubName<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let (owner, repository) = name.split_once('/')?;
        let parts = [Some(owner), Some(repository), revision];
        parts.into_iter().flatten().all(Self::is_part).then_some(Self { owner, repository, revision })
    }

    /// Allows letters, digits, '-', '_' and '.', but no leading '.', so that a name cannot lead out of the cache.
    fn is_part(part: &str) -> bool {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_by_branch_tag_or_commit() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--owner--some.model-1");
        for commit in ["abc123", "def456"] {
            std::fs::create_dir_all(folder.join("snapshots").join(commit)).unwrap();
        }
        std::fs::create_dir(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), "abc123\n").unwrap();
        std::fs::write(folder.join("refs/v2"), "def456").unwrap();
        std::fs::write(folder.join("refs/out"), "../../..").unwrap();
        let found = |name: &str| resolve(Path::new(name), cache.path());
        for (name, commit) in [
            ("owner/some.model-1", "abc123"),
            ("owner/some.model-1@v2", "def456"),
            ("owner/some.model-1@def456", "def456"),
        ] {
            let path = found(name).unwrap();
            assert_eq!(path, folder.join("snapshots").join(commit), "{name}");
            assert_eq!(repository_of(&path).as_deref(), Some("some.model-1"));
        }
        for name in ["owner/other", "owner/some.model-1@v3", "owner/some.model-1@out"] {
            let error = found(name).unwrap_err();
            assert!(error.to_string().contains("is not a folder, and not in the hub's cache"), "{error}");
        }
        let hint = |name: &str| found(name).unwrap_err().hint().unwrap();
        assert!(hint("owner/other").contains(r#"`hf download owner/other --include model_index.json "*/*"`"#));
        assert!(hint("owner/other@v3").contains("--revision v3"));
        // A text that is not a valid name is a path.
        for path in ["nothing", "a/b/c", "../up", "/absolute/path", "owner/..", "owner/a b"] {
            assert_eq!(found(path).unwrap(), Path::new(path));
        }
        assert_eq!(repository_of(Path::new("models/emoji")), None);
    }

    #[test]
    fn the_cache_is_where_the_hubs_tools_keep_it() {
        let (a, b, c) = (Some(Path::new("a")), Some(Path::new("b")), Some(Path::new("c")));
        assert_eq!(cache_folder(a, b, c), Path::new("a"));
        assert_eq!(cache_folder(None, b, c), Path::new("b/hub"));
        assert_eq!(cache_folder(None, None, c), Path::new("c/.cache/huggingface/hub"));
    }
}
