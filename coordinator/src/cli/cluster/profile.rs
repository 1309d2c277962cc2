//! The profile: what a site always says, in one TOML file for all engines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cli::kit::exit::{Exit, Failure};

/// A profile as written. Everything may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What Slurm is told.
    #[serde(default)]
    pub slurm: SlurmSection,
    /// What Helm is told.
    #[serde(default)]
    pub kubernetes: KubernetesSection,
}

/// What Slurm is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlurmSection {
    /// The folder that all nodes mount; otherwise `EVOCACHE_SHARED` names it.
    pub shared: Option<PathBuf>,
    /// Arguments of `sbatch` for the coordinator's job, such as `--partition=cpu`.
    #[serde(default)]
    pub coordinator: Vec<String>,
    /// Arguments of `sbatch` for the workers' array.
    #[serde(default)]
    pub worker: Vec<String>,
    /// Arguments of `evocache-worker run`; `--model` is the one that must be there.
    #[serde(default)]
    pub run: Vec<String>,
    /// Variables of the jobs, such as `EVOCACHE_IDLE`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// What Helm is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSection {
    /// The release.
    pub release: String,
    /// Its namespace.
    pub namespace: String,
    /// Files of values, relative to the profile.
    pub values: Vec<PathBuf>,
    /// The folder that the chart is written to, relative to the current one.
    pub chart: PathBuf,
}

impl Default for KubernetesSection {
    fn default() -> Self {
        Self {
            release: "evocache".into(),
            namespace: "evocache".into(),
            values: vec![],
            chart: PathBuf::from("evocache-chart"),
        }
    }
}

impl Profile {
    /// Reads a profile; without a file it is empty.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or says something that no profile says.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text =
            std::fs::read_to_string(path).map_err(|e| Failure::file("read the profile", path, &e).exit(Exit::Usage))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).map_err(|problem| Failure::usage(format!("{}: {problem}", path.display())))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let mut profile: Self = toml::from_str(text).map_err(|e| {
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", 1 + before.matches('\n').count(), e.message())
        })?;
        for values in &mut profile.kubernetes.values {
            *values = folder.join(&*values);
        }
        let KubernetesSection { release, namespace, .. } = &profile.kubernetes;
        for (field, name, most) in [("release", release, 40), ("namespace", namespace, 63)] {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let ends = name.starts_with('-') || name.ends_with('-');
            if name.is_empty() || name.len() > most || ends || !name.chars().all(is_name) {
                return Err(format!("kubernetes.{field}: '{name}' is not a name of a-z, 0-9 and '-', up to {most}"));
            }
        }
        if let Some(name) = profile.slurm.environment.keys().find(|name| !is_variable(name)) {
            return Err(format!("slurm.environment: '{name}' is not the name of a variable"));
        }
        Ok(profile)
    }
}

fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_what_a_site_always_says() {
        let text = r#"
            [slurm]
            shared = "/shared/me"
            worker = ["--partition=a100"]
            run = ["--model=/models/x", "--device=cuda:0"]
            environment = { EVOCACHE_IDLE = "30m" }
            [kubernetes]
            namespace = "search"
            values = ["gpu.yaml"]
        "#;
        let profile = Profile::parse(text, Path::new("/site")).unwrap();
        assert_eq!(profile.slurm.worker, ["--partition=a100"]);
        assert_eq!(profile.kubernetes.values, [PathBuf::from("/site/gpu.yaml")]);
        assert_eq!(
            (profile.kubernetes.release.as_str(), profile.kubernetes.namespace.as_str()),
            ("evocache", "search")
        );
        assert_eq!(Profile::read(None).unwrap(), Profile::default());
    }

    #[test]
    fn what_no_profile_says_is_refused_with_its_line() {
        let wrong = |text: &str| Profile::parse(text, Path::new(".")).unwrap_err();
        assert!(wrong("\n[slurm]\npartition = 1").starts_with("line 3: unknown field `partition`"));
        assert!(wrong("[kubernetes]\nrelease = \"A b\"").contains("kubernetes.release: 'A b'"));
        assert!(wrong("[slurm.environment]\n\"A=B\" = \"c\"").contains("'A=B' is not the name"));
    }
}
