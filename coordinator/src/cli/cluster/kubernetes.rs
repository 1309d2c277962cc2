//! Kubernetes: a release of the chart of `deploy/kubernetes`, which is compiled in, by `helm` and `kubectl`.

use super::profile::KubernetesSection;
use super::step::{Program, Step};

macro_rules! chart {
    ($($path:literal),* $(,)?) => {
        /// The chart's files.
        const CHART: &[(&str, &str)] =
            &[$(($path, include_str!(concat!("../../../../deploy/kubernetes/evocache/", $path)))),*];
    };
}

chart!(
    "Chart.yaml",
    "values.yaml",
    "values.schema.json",
    "templates/_helpers.tpl",
    "templates/NOTES.txt",
    "templates/coordinator.yaml",
    "templates/policies.yaml",
    "templates/secrets.yaml",
    "templates/worker.yaml",
    "templates/tests/best.yaml",
);

/// A release.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    section: KubernetesSection,
}

impl Kubernetes {
    /// The release of a profile.
    pub fn new(section: KubernetesSection) -> Self {
        Self { section }
    }

    /// Installs or upgrades the release with so many workers, and waits for the coordinator.
    pub fn install(&self, workers: u32, gpus: u32) -> Vec<Step> {
        let KubernetesSection { release, values, chart, .. } = &self.section;
        let write = |(path, text): &(&str, &'static str)| Step::Write { path: chart.join(path), text };
        let mut args = ["upgrade", "--install", release].map(str::to_owned).to_vec();
        args.push(chart.to_string_lossy().into_owned());
        args.extend(self.namespace());
        args.push("--create-namespace".into());
        args.extend(values.iter().map(|file| format!("--values={}", file.display())));
        args.push(format!("--set=worker.replicas={workers},worker.gpus={gpus}"));
        let helm = Step::Run(Program::new("helm", args));
        let mut rollout = vec!["rollout".to_owned(), "status".to_owned(), format!("statefulset/{}", self.name())];
        rollout.extend(self.namespace());
        rollout.push("--timeout=15m".into());
        let wait = Step::Run(Program::new("kubectl", rollout));
        CHART.iter().map(write).chain([helm, wait]).collect()
    }

    /// Changes the number of workers.
    pub fn scale(&self, workers: u32) -> Step {
        let mut args = vec!["scale".to_owned(), format!("deployment/{}-worker", self.name())];
        args.extend(self.namespace());
        args.push(format!("--replicas={workers}"));
        Step::Run(Program::new("kubectl", args))
    }

    /// Removes the release. The volume of the store stays.
    pub fn uninstall(&self) -> Step {
        let mut args = vec!["uninstall".to_owned(), self.section.release.clone()];
        args.extend(self.namespace());
        Step::Run(Program::new("helm", args))
    }

    /// How to reach the coordinator from here.
    pub fn notes(&self) -> String {
        let notes = ["get".to_owned(), "notes".to_owned(), self.section.release.clone()];
        format!("`{}` says how to reach it from here", Program::new("helm", notes.into_iter().chain(self.namespace())))
    }

    /// The name of the coordinator's objects, as the chart makes it.
    fn name(&self) -> String {
        let release = &self.section.release;
        if release.contains("evocache") {
            return release.clone();
        }
        let name: String = format!("{release}-evocache").chars().take(40).collect();
        name.trim_end_matches('-').to_owned()
    }

    fn namespace(&self) -> [String; 1] {
        [format!("--namespace={}", self.section.namespace)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn last(steps: &[Step], from_end: usize) -> String {
        steps[steps.len() - from_end].to_string()
    }

    #[test]
    fn a_release_is_installed_with_its_values_and_workers() {
        let section =
            KubernetesSection { release: "trial".into(), values: vec!["gpu.yaml".into()], ..Default::default() };
        let kubernetes = Kubernetes::new(section);
        let steps = kubernetes.install(3, 1);
        assert_eq!(
            last(&steps, 2),
            "helm upgrade --install trial evocache-chart --namespace=evocache --create-namespace --values=gpu.yaml \
             --set=worker.replicas=3,worker.gpus=1"
        );
        assert_eq!(
            last(&steps, 1),
            "kubectl rollout status statefulset/trial-evocache --namespace=evocache --timeout=15m"
        );
        assert_eq!(
            kubernetes.scale(0).to_string(),
            "kubectl scale deployment/trial-evocache-worker --namespace=evocache --replicas=0"
        );
    }

    #[test]
    fn the_whole_chart_is_compiled_in() {
        fn files(folder: &Path, below: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    files(&path, below, found);
                } else {
                    found.insert(path.strip_prefix(below).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/evocache");
        let mut found = BTreeSet::new();
        files(&root, &root, &mut found);
        found.remove(".helmignore");
        assert_eq!(found, CHART.iter().map(|(path, _)| (*path).to_owned()).collect());
    }
}
