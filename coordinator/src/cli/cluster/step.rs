//! Steps: files to write and programs to run. A dry run prints as shell what would be carried out; both are one value.
//!
//! Knows no engine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::cli::kit::exit::Failure;

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes a file, and the folders above it, for their owner alone.
    Write {
        /// Where.
        path: PathBuf,
        /// What.
        text: &'static str,
    },
    /// Removes a file if it is there.
    Remove(PathBuf),
    /// Runs a program to its end.
    Run(Program),
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    name: String,
    args: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Program {
    /// A program with these arguments.
    pub fn new<T: Into<String>>(name: impl Into<String>, args: impl IntoIterator<Item = T>) -> Self {
        Self { name: name.into(), args: args.into_iter().map(Into::into).collect(), environment: vec![] }
    }

    /// Adds variables.
    #[must_use]
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Runs it and returns what it wrote to stdout.
    ///
    /// # Errors
    ///
    /// If it is not there, or ends with an error, which is told.
    pub async fn run(&self) -> Result<String, Failure> {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        let mut command = Command::new(&self.name);
        command.args(&self.args).envs(environment).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Failure::new(format!("there is no '{}' on the path", self.name))
                .hint("run this where the engine's own commands are, such as on a login node"),
            _ => Failure::new(format!("cannot run '{}': {e}", self.name)),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        let said = if said.is_empty() { "it said nothing" } else { said };
        Err(Failure::new(format!("{} ended with {}: {said}", self.name, output.status))
            .hint(format!("what was run: {self}")))
    }
}

impl Step {
    /// Carries the step out.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub async fn carry_out(&self) -> Result<(), Failure> {
        match self {
            Self::Write { path, text } => write(path, text).map_err(|e| Failure::file("write", path, &e)),
            Self::Remove(path) => match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", path, &e)),
                _ => Ok(()),
            },
            Self::Run(program) => program.run().await.map(|_| ()),
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut folders = std::fs::DirBuilder::new();
    folders.recursive(true);
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o700);
    }
    folders.create(path.parent().unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut file.open(path)?, text.as_bytes())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=,@%+-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&quoted(&self.name))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, text } => {
                let folder = path.parent().unwrap_or(Path::new(".")).to_string_lossy();
                let path = quoted(&path.to_string_lossy());
                // No file of `deploy` has a line that is this word.
                write!(
                    f,
                    "mkdir -p {}\ncat >{path} <<'END_OF_FILE'\n{text}END_OF_FILE\nchmod 700 {path}",
                    quoted(&folder)
                )
            }
            Self::Remove(path) => write!(f, "rm -f {}", quoted(&path.to_string_lossy())),
            Self::Run(program) => program.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_would_be_run() {
        let program = Program::new("sbatch", ["--array=0-3", "it's", ""]);
        let program = program.with([("A".to_owned(), "b c".to_owned())]);
        assert_eq!(program.to_string(), r"A='b c' sbatch --array=0-3 'it'\''s' ''");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_what_it_said() {
        let failure = Program::new("sh", ["-c", "echo no partition >&2; exit 3"]).run().await.unwrap_err();
        assert!(failure.message.contains("no partition") && failure.message.contains("exit status: 3"), "{failure:?}");
        let failure = Program::new("no-such-sbatch", ["x"]).run().await.unwrap_err();
        assert_eq!(failure.message, "there is no 'no-such-sbatch' on the path");
        assert_eq!(Program::new("echo", ["a"]).run().await.unwrap(), "a\n");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.sh");
        let step = Step::Write { path: path.clone(), text: "x\n" };
        step.carry_out().await.unwrap();
        step.carry_out().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x\n");
        for path in [&path, path.parent().unwrap()] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        Step::Remove(path.clone()).carry_out().await.unwrap();
        Step::Remove(path.clone()).carry_out().await.unwrap();
        assert!(!path.exists());
    }
}
