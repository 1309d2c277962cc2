//! `launch --on`, `scale` and `down` with commands of Slurm and Kubernetes that only note how they are called. Real ones
//! are the business of `deploy/slurm/test.sh` and `deploy/kubernetes/test.sh`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Outcome, command, evocache, spec_file, write};

/// A folder for the path, with a command that notes its arguments in `called` and prints a text.
fn engine(folder: &Path, name: &str, prints: &str) {
    let called = folder.join("called");
    let script = format!("#!/bin/sh\necho {name} \"$@\" >>{}\nprintf '{prints}'\n", called.display());
    let path = write(folder, name, &script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn with_path(folder: &Path, args: &[&str]) -> Outcome {
    let mut command = command(args);
    Outcome::of(command.env("PATH", folder), args)
}

fn called(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("called")).unwrap_or_default();
    let _ = std::fs::remove_file(folder.join("called"));
    text
}

#[test]
fn a_dry_run_prints_everything_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let shared = folder.path().join("shared");
    let shared_text = shared.to_str().unwrap();
    let launch = ["launch", &spec, "--id", "s", "--workers", "3", "--dry-run", "--shared", shared_text];
    let slurm = with_path(folder.path(), &[&launch[..], &["--on", "slurm"]].concat());
    for words in [
        "#SBATCH --signal=B:USR1@120",
        "sbatch --job-name=evocache-coordinator",
        "--job-name=evocache-worker-s",
        "--array=0-2 --gres=gpu:1",
    ] {
        assert!(slurm.ok().stdout.contains(words), "'{words}' is not in {}", slurm.stdout);
    }
    assert!(!shared.exists());
    let kubernetes = with_path(folder.path(), &[&launch[..], &["--on", "kubernetes"]].concat());
    assert!(kubernetes.ok().stdout.contains("kind: StatefulSet"));
    assert!(kubernetes.stdout.contains("helm upgrade --install evocache evocache-chart"), "{}", kubernetes.stdout);
}

#[test]
fn workers_are_added_and_taken_away_by_what_slurm_lists() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    engine(folder.path(), "squeue", &format!("5_0 {at}\\n5_1 {at}\\n5_2 {at}\\n6_0 /elsewhere\\n"));
    engine(folder.path(), "sbatch", "");
    engine(folder.path(), "scancel", "");
    let scale = |workers: &str| {
        with_path(folder.path(), &["scale", "s", "--on", "slurm", "--shared", at, "--workers", workers]).ok();
        called(folder.path())
    };
    let more = scale("5");
    assert!(more.contains("--name=evocache-worker-s") && more.contains("--array=0-1"), "{more}");
    assert!(!more.contains("scancel"), "{more}");
    let fewer = scale("1");
    assert!(fewer.contains("scancel 5_1 5_2\n") && !fewer.contains("sbatch"), "{fewer}");
    let same = scale("3");
    assert!(!same.contains("scancel") && !same.contains("sbatch"), "{same}");

    with_path(folder.path(), &["down", "s", "--on", "slurm", "--shared", at]).ok();
    assert!(called(folder.path()).contains("scancel 5_0 5_1 5_2\n"));
}

#[test]
fn a_release_is_scaled_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    engine(folder.path(), "kubectl", "");
    engine(folder.path(), "helm", "");
    with_path(folder.path(), &["scale", "s", "--on", "kubernetes", "--workers", "7"]).ok();
    let scaled = called(folder.path());
    assert_eq!(scaled, "kubectl scale deployment/evocache-worker --namespace=evocache --replicas=7\n");
    with_path(folder.path(), &["down", "s", "--on", "kubernetes", "--all"]).ok();
    assert_eq!(called(folder.path()), "helm uninstall evocache --namespace=evocache\n");
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let at = folder.path().to_str().unwrap();
    let scale = ["scale", "s", "--on", "slurm", "--workers", "1"];
    with_path(folder.path(), &[&scale[..], &["--shared", at]].concat())
        .fails(1, &["there is no 'squeue' on the path", "login node"]);
    evocache(&scale).fails(2, &["no folder that all nodes mount", "EVOCACHE_SHARED"]);
    evocache(&[&scale[..], &["--profile", "nowhere.toml"]].concat()).fails(2, &["read the profile 'nowhere.toml'"]);
    evocache(&["launch", &spec, "--on", "slurm"]).fails(2, &["--workers"]);
    evocache(&["launch", &spec, "--dry-run"]).fails(2, &["--on"]);
    evocache(&["launch", &spec, "--on", "slurm", "--workers", "0"]).fails(2, &["0 is not in 1..=10000"]);
    let profile = write(folder.path(), "site.toml", "[slurm]\nqueue = 'x'\n");
    evocache(&[&scale[..], &["--profile", &profile]].concat()).fails(2, &["site.toml: line 2: unknown field"]);
    // What the engine says is passed on, without acting on the terminal.
    write(folder.path(), "squeue", "#!/bin/sh\nprintf 'no \\033[31mcontroller' >&2; exit 1\n");
    std::fs::set_permissions(folder.path().join("squeue"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = with_path(folder.path(), &[&scale[..], &["--shared", at]].concat());
    refused.fails(1, &["squeue ended with exit status: 1", "what was run: squeue --me"]);
    assert!(!refused.stderr.contains('\u{1b}'), "{}", refused.stderr);
}
