//! A coordinator in a process of its own, so that its cost can be told from that of the simulated workers.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::cli::kit::exit::Failure;
use crate::client::new_request_id;
use crate::upkeep::folder_size;

/// Ticks per second in `/proc/PID/stat`: the same on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// A running coordinator with its folder.
pub(super) struct Own {
    /// The address that it listens on.
    pub(super) url: String,
    child: Child,
    /// Kept open, because the coordinator may write to it.
    _stdout: BufReader<ChildStdout>,
    lease_ttl: Duration,
    scratch: Scratch,
}

/// A folder that is removed on drop.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the system clears its temporary folder in time.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Own {
    /// Starts this program again, with the verb `serve`.
    pub(super) async fn start(lease_ttl: Duration) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("evocache-simulate-{}", new_request_id()));
        std::fs::create_dir_all(&folder).map_err(|e| Failure::file("create", &folder, &e))?;
        Self::over(Scratch(folder), lease_ttl).await
    }

    /// Kills it and starts it again on its store.
    pub(super) async fn restart(mut self) -> Result<Self, Failure> {
        self.child.kill().await.map_err(|e| Failure::new(format!("cannot kill the coordinator: {e}")))?;
        let Self { scratch, lease_ttl, .. } = self;
        Self::over(scratch, lease_ttl).await
    }

    async fn over(scratch: Scratch, lease_ttl: Duration) -> Result<Self, Failure> {
        let log = scratch.0.join("log");
        let mut child = command(&scratch.0, &log, lease_ttl)
            .and_then(|mut command| command.spawn())
            .map_err(|e| Failure::new(format!("cannot start a coordinator: {e}")))?;
        let mut text = String::new();
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("the coordinator has no stdout"))?;
        let mut stdout = BufReader::new(stdout);
        // Ends also if the coordinator dies: its stdout closes.
        let read = stdout.read_line(&mut text).await;
        let line: Option<Value> = read.ok().and_then(|_| serde_json::from_str(&text).ok());
        let url = line.as_ref().and_then(|line| line["url"].as_str()).map(str::to_owned).ok_or_else(|| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            Failure::new(format!("the coordinator did not start: {}", log.trim()))
        })?;
        Ok(Self { url, child, _stdout: stdout, lease_ttl, scratch })
    }

    /// What it has used so far; `None` if the system does not report it.
    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(self.child.id()?)
    }

    /// Size of its store in bytes.
    pub(super) fn store_bytes(&self) -> Option<u64> {
        folder_size(&self.scratch.0.join("store")).ok()
    }

    /// Kills it. Its store is thrown away, so nothing has to be flushed.
    pub(super) async fn stop(mut self) {
        // Fails if it has already exited.
        let _ = self.child.kill().await;
    }
}

fn command(folder: &Path, log: &Path, lease_ttl: Duration) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--json", "serve", "--listen", "127.0.0.1:0", "--lease-ttl"])
        .arg(format!("{}ms", lease_ttl.as_millis()))
        .arg("--data")
        .arg(folder.join("store"))
        // The environment may configure a real coordinator on this machine.
        .env_remove("EVOCACHE_HTTP")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(log)?)
        .kill_on_drop(true);
    // Ctrl-C is for the simulation, which stops the coordinator after the report.
    #[cfg(unix)]
    command.process_group(0);
    Ok(command)
}

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// CPU seconds, in user and kernel mode.
    pub(super) cpu: f64,
    /// Largest resident memory in bytes.
    pub(super) memory: u64,
}

impl Usage {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::read(&stat, &status)
    }

    fn read(stat: &str, status: &str) -> Option<Self> {
        // The name in parentheses may contain anything; utime and stime are the 12th and 13th fields after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let cpu = (ticks()? + ticks()?) as f64 / TICKS;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { cpu, memory: kib * 1024 })
    }

    /// CPU time between two moments; the peak of memory is that of the whole life.
    pub(super) fn between(before: &Self, after: &Self) -> Option<Self> {
        (after.cpu >= before.cpu).then_some(Self { cpu: after.cpu - before.cpu, memory: after.memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_past_any_name() {
        let stat = "42 (evo) cache)) S 1 42 42 0 -1 4194304 900 0 0 0 150 50 0 0 20 0 9 0 100 1 1";
        let usage = Usage::read(stat, "Name:\tevocache\nVmHWM:\t    2048 kB\n").unwrap();
        assert_eq!(usage, Usage { cpu: 2.0, memory: 2 * 1024 * 1024 });
        assert_eq!(Usage::read("nonsense", ""), None);
    }
}
