//! Slurm: the coordinator as a job, workers as an array. The scripts are those of `deploy/slurm`.
//!
//! Nothing is remembered: which jobs there are, Slurm is asked, by their name and their folder.

use std::path::PathBuf;

use evocache_proto::domain::SearchId;

use super::profile::SlurmSection;
use super::step::{Program, Step};
use crate::cli::kit::exit::Failure;

const PREPARE: &str = include_str!("../../../../deploy/slurm/prepare.sh");
const COORDINATOR: &str = include_str!("../../../../deploy/slurm/coordinator.sbatch");
const WORKER: &str = include_str!("../../../../deploy/slurm/worker.sbatch");

/// The name of the coordinator's job.
const COORDINATOR_JOB: &str = "evocache-coordinator";

/// A site's Slurm.
#[derive(Debug, Clone)]
pub struct Slurm {
    shared: PathBuf,
    section: SlurmSection,
}

impl Slurm {
    /// The Slurm of a profile; `shared` is the folder if the profile names none.
    ///
    /// # Errors
    ///
    /// Without a folder, or with one that is not absolute: jobs start elsewhere.
    pub fn new(section: SlurmSection, shared: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(shared) = section.shared.clone().or(shared) else {
            return Err(Failure::usage("there is no folder that all nodes mount")
                .hint("name it in the profile, as `shared` under [slurm], or in the variable EVOCACHE_SHARED"));
        };
        if !shared.is_absolute() || shared.to_str().is_none_or(|path| path.contains(char::is_whitespace)) {
            return Err(Failure::usage(format!(
                "the shared folder '{}' is no absolute path in plain text",
                shared.display()
            )));
        }
        Ok(Self { shared, section })
    }

    /// The file with the coordinator's address.
    pub fn address(&self) -> PathBuf {
        self.shared.join("coordinator.url")
    }

    /// The authority of the coordinator's certificate, and the operator's token.
    pub fn credentials(&self) -> (PathBuf, PathBuf) {
        (self.shared.join("ca.pem"), self.shared.join("operator.token"))
    }

    /// Writes the scripts and makes certificates and tokens, where there are none.
    pub fn prepare(&self) -> Vec<Step> {
        let scripts = [("prepare.sh", PREPARE), ("coordinator.sbatch", COORDINATOR), ("worker.sbatch", WORKER)];
        let write = |(name, text)| Step::Write { path: self.script(name), text };
        let prepare = Program::new(self.script("prepare.sh").to_string_lossy(), [""; 0]).with([self.variable()]);
        scripts.into_iter().map(write).chain([Step::Run(prepare)]).collect()
    }

    /// Starts the coordinator. The address of an earlier one goes first, as it leads nowhere.
    pub fn start(&self) -> Vec<Step> {
        vec![
            Step::Remove(self.address()),
            Step::Run(self.sbatch(COORDINATOR_JOB, "coordinator.sbatch", &self.section.coordinator, &[])),
        ]
    }

    /// Adds workers for a search.
    pub fn add(&self, search: &str, workers: u32, gpus: u32) -> Step {
        let mut options = vec![format!("--array=0-{}", workers.saturating_sub(1))];
        // Without GPUs there is no such resource to ask for.
        options.push(if gpus > 0 { format!("--gres=gpu:{gpus}") } else { "--gres=none".to_owned() });
        options.extend(self.section.worker.iter().cloned());
        Step::Run(self.sbatch(&job(search), "worker.sbatch", &options, &self.section.run))
    }

    /// Cancels jobs, so that workers give their candidates back.
    pub fn cancel(&self, jobs: &[String]) -> Step {
        Step::Run(Program::new("scancel", jobs))
    }

    /// Lists the jobs of the coordinator, one a line.
    pub fn list_coordinator(&self) -> Program {
        list(COORDINATOR_JOB)
    }

    /// Lists the tasks of a search's workers, one a line.
    pub fn list_workers(&self, search: &SearchId) -> Program {
        list(&job(search.as_str()))
    }

    /// The jobs of such a list that are of this folder.
    pub fn jobs(&self, listed: &str) -> Vec<String> {
        let own = |line: &str| {
            let (id, folder) = line.trim().split_once(' ')?;
            (folder.trim() == self.shared.to_string_lossy()).then(|| id.to_owned())
        };
        listed.lines().filter_map(own).collect()
    }

    fn script(&self, name: &str) -> PathBuf {
        self.shared.join("scripts").join(name)
    }

    fn variable(&self) -> (String, String) {
        ("EVOCACHE_SHARED".to_owned(), self.shared.to_string_lossy().into_owned())
    }

    fn sbatch(&self, job: &str, script: &str, options: &[String], arguments: &[String]) -> Program {
        let mut args = vec![format!("--job-name={job}"), format!("--chdir={}", self.shared.display())];
        args.extend(options.iter().cloned());
        args.push(self.script(script).to_string_lossy().into_owned());
        args.extend(arguments.iter().cloned());
        let environment = self.section.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        Program::new("sbatch", args).with(environment).with([self.variable()])
    }
}

/// The name of the jobs of a search's workers.
fn job(search: &str) -> String {
    format!("evocache-worker-{search}")
}

/// Asks for the tasks of this name that run or wait: id and folder.
fn list(job: &str) -> Program {
    let states = "--states=PENDING,RUNNING,CONFIGURING,SUSPENDED,REQUEUED";
    Program::new("squeue", ["--me", "--noheader", "--array", states, &format!("--name={job}"), "--format=%i %Z"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slurm(section: SlurmSection) -> Slurm {
        Slurm::new(section, Some("/shared/me".into())).unwrap()
    }

    #[test]
    fn workers_are_an_array_with_what_the_site_says() {
        let section = SlurmSection {
            worker: vec!["--partition=a100".into()],
            run: vec!["--model=/models/x y".into()],
            environment: [("EVOCACHE_IDLE".to_owned(), "30m".to_owned())].into(),
            ..SlurmSection::default()
        };
        assert_eq!(
            slurm(section).add("nightly", 4, 1).to_string(),
            "EVOCACHE_IDLE=30m EVOCACHE_SHARED=/shared/me sbatch --job-name=evocache-worker-nightly --chdir=/shared/me \
             --array=0-3 --gres=gpu:1 --partition=a100 /shared/me/scripts/worker.sbatch '--model=/models/x y'"
        );
    }

    #[test]
    fn jobs_of_another_folder_are_not_ours() {
        let listed = "7_0 /shared/me\n7_1 /shared/me\n9 /shared/other\n\n";
        assert_eq!(slurm(SlurmSection::default()).jobs(listed), ["7_0", "7_1"]);
    }

    #[test]
    fn a_folder_is_needed_and_is_absolute() {
        let refused = |shared: Option<&str>| Slurm::new(SlurmSection::default(), shared.map(Into::into)).unwrap_err();
        assert!(refused(None).hint.unwrap().contains("EVOCACHE_SHARED"));
        assert!(refused(Some("here")).message.contains("absolute"));
        assert!(refused(Some("/a b")).message.contains("plain text"));
    }

    #[test]
    fn no_script_ends_the_text_that_a_dry_run_prints() {
        for text in [PREPARE, COORDINATOR, WORKER] {
            assert!(text.ends_with('\n') && !text.lines().any(|line| line == "END_OF_FILE"));
        }
    }
}
