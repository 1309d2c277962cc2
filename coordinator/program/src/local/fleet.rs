//! The worker processes of `local`: starts, supervises and stops them.
//!
//! Each is this program again, with a hidden verb. It runs in a process group of its own, so that Ctrl-C reaches only
//! the parent, which then stops the workers in order; and it watches its stdin, so that it never outlives the parent.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use evocache::cli::kit::exit::Failure;
use evocache::cli::kit::follow::Message;
use evocache::cli::kit::names;
use evocache::client::{Client, SearchState};
use evocache_proto::domain::SearchId;
pub(crate) use evocache_worker::cli::run::RunArgs as WorkerArgs;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::UnboundedSender;

use super::args::LocalArgs;
use super::setup::Plan;

/// The most restarts of one worker.
const RESTARTS: u32 = 3;
/// How long a worker may take to release its candidate and exit.
const GRACE: Duration = Duration::from_secs(10);
/// How often the logs are read for what the workers do.
const NARRATE_EVERY: Duration = Duration::from_millis(100);
/// The level that precedes such a message in a log.
const INFO: &str = " INFO ";
/// The last lines of a log that are shown when its worker dies.
const TAIL: usize = 12;
/// Variables of the environment that hold credentials.
const CREDENTIALS: [&str; 5] =
    ["EVOCACHE_CA", "EVOCACHE_CLIENT_CERT", "EVOCACHE_CLIENT_KEY", "EVOCACHE_TOKEN_FILE", "EVOCACHE_TOKEN"];
/// More workers than this do not improve a search on one machine; they only disturb its timings.
const MAX_DEFAULT_WORKERS: usize = 4;

/// How the workers are started.
#[derive(Debug, Clone)]
pub(super) struct WorkerSettings {
    program: PathBuf,
    url: String,
    model: PathBuf,
    model_name: String,
    device: String,
    metrics: Vec<String>,
    logs: PathBuf,
    /// Number of workers.
    pub(super) count: usize,
}

impl WorkerSettings {
    /// One worker per core for the CPU, one in all for a GPU, unless the command line says otherwise.
    pub(super) fn new(plan: &Plan, args: &LocalArgs, url: &str, model_name: String) -> Result<Self, Failure> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let device = plan.settings.device.clone().unwrap_or_else(|| "cpu".into());
        let default = if device == "cpu" { cores.min(MAX_DEFAULT_WORKERS) } else { 1 };
        Ok(Self {
            program: std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?,
            url: url.to_owned(),
            model: plan.model.clone(),
            model_name,
            device,
            metrics: plan.settings.metrics.clone(),
            logs: plan.out.clone(),
            count: args.workers.map_or(default, usize::from),
        })
    }

    fn log(&self, number: usize) -> PathBuf {
        self.logs.join(format!("worker-{number}.log"))
    }

    fn command(&self, number: usize, log: &File) -> std::io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg("worker-process")
            .args(["--coordinator", &self.url, "--model-name", &self.model_name, "--device", &self.device])
            .args(["--name", &format!("local/{number}")])
            .args(self.metrics.iter().flat_map(|metric| ["--metric", metric]))
            .arg("--model")
            .arg(&self.model)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .kill_on_drop(true);
        // Credentials in the environment are for other coordinators.
        for name in CREDENTIALS {
            command.env_remove(name);
        }
        if self.device == "cpu" {
            // One thread each: workers that share cores would disturb each other's timings.
            command.args(["--threads", "1"]).env("RAYON_NUM_THREADS", "1").env("CANDLE_NUM_THREADS", "1");
        }
        #[cfg(unix)]
        command.process_group(0);
        Ok(command)
    }
}

#[derive(Debug)]
struct Member {
    number: usize,
    child: Child,
    /// Its end tells the worker to exit.
    stdin: Option<ChildStdin>,
    /// Offset in the log where this process started.
    log_start: u64,
    restarts: u32,
}

/// The running workers.
#[derive(Debug)]
pub(super) struct Fleet {
    settings: WorkerSettings,
    client: Client,
    members: Vec<Member>,
}

impl Fleet {
    /// Starts all workers.
    pub(super) fn start(settings: WorkerSettings, client: Client) -> Result<Self, Failure> {
        let members = (1..=settings.count).map(|number| spawn(&settings, number, 0)).collect::<Result<_, _>>()?;
        Ok(Self { settings, client, members })
    }

    /// Restarts workers that die, a few times each. Returns when no worker is left.
    pub(super) async fn supervise(&mut self, notes: UnboundedSender<Message>) -> Failure {
        loop {
            if self.members.is_empty() {
                return Failure::new("all workers exited before the search ended")
                    .hint(format!("their logs are in {}", self.settings.logs.display()));
            }
            let (index, status) = self.next_exit().await;
            let member = self.members.remove(index);
            let log = self.settings.log(member.number);
            let end = ending(member.number, status, &log, member.log_start);
            if status.success() {
                // It was drained: it is not restarted.
                let _ = notes.send(Message::Warning(format!("worker {} has exited", member.number)));
                continue;
            }
            // If no worker has ever registered, a restarted one will not either.
            let registered = self.client.workers().await.is_ok_and(|workers| !workers.is_empty());
            if !registered || (member.restarts >= RESTARTS && self.members.is_empty()) {
                return Failure::new(end).hint(format!("the complete log is {}", log.display()));
            }
            if member.restarts >= RESTARTS {
                let left = self.members.len();
                let _ = notes.send(Message::Warning(format!("{end}\n  it is not restarted; {left} go on")));
                continue;
            }
            let _ = notes.send(Message::Warning(format!("{end}\n  it is restarted")));
            tokio::time::sleep(Duration::from_secs(1 << member.restarts)).await;
            match spawn(&self.settings, member.number, member.restarts + 1) {
                Ok(member) => self.members.push(member),
                Err(failure) => return failure,
            }
        }
    }

    /// Waits for one of them to exit. There must be at least one.
    async fn next_exit(&mut self) -> (usize, ExitStatus) {
        let waits = self.members.iter_mut().map(|member| Box::pin(member.child.wait()));
        match futures::future::select_all(waits).await {
            (Ok(status), index, _) => (index, status),
            // A child that cannot be waited for counts as gone.
            (Err(_), index, _) => (index, ExitStatus::default()),
        }
    }

    /// Asks all workers to exit, waits, and kills those that do not.
    pub(super) async fn stop(mut self) {
        for member in &mut self.members {
            #[cfg(unix)]
            if let Some(pid) = member.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
                // Fails if it has already exited.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            member.stdin = None;
        }
        let all = futures::future::join_all(self.members.iter_mut().map(|member| member.child.wait()));
        if tokio::time::timeout(GRACE, all).await.is_err() {
            for member in &mut self.members {
                // Fails for those that have exited.
                let _ = member.child.kill().await;
            }
        }
    }
}

/// Reports what each worker does until the search has its first result: loading the model and measuring it uncached may
/// take minutes. After that, the progress line says enough.
///
/// Returns only if no worker offers what the search names: no others will come.
pub(super) async fn narrate(
    settings: WorkerSettings,
    client: Client,
    id: SearchId,
    notes: UnboundedSender<Message>,
) -> Failure {
    let starts: Vec<u64> = (1..=settings.count).map(|number| length(&settings.log(number))).collect();
    let mut reported = vec![String::new(); settings.count];
    loop {
        for (i, (start, reported)) in starts.iter().zip(&mut reported).enumerate() {
            let lines = lines(&settings.log(i + 1), *start).unwrap_or_default();
            let last = lines.iter().rev().find_map(|line| line.split_once(INFO)).map(|(_, text)| text.trim());
            // Without the spans in front of the message.
            let last = last.map(|text| text.rsplit("}: ").next().unwrap_or(text).to_owned());
            if let Some(text) = last.filter(|text| text != reported) {
                let _ = notes.send(Message::Note(format!("worker {}: {text}", i + 1)));
                *reported = text;
            }
        }
        // After reading the logs, so that a fast worker's first messages are reported too.
        let search = match client.search(&id).await {
            Ok(search) if search.progress.evaluations == 0 && !search.state.is_final() => search,
            // `follow` reports what is wrong with the coordinator.
            Ok(_) | Err(_) => return std::future::pending().await,
        };
        if search.state == SearchState::Pending
            && let Ok(workers) = client.workers().await
            && workers.len() >= settings.count
        {
            let unknown = names::unknown(&search.spec, &workers);
            if !unknown.is_empty() {
                let lines: String = unknown.iter().map(|line| format!("\n  {line}")).collect();
                return Failure::usage(format!("no worker can take this search:{lines}"))
                    .hint("--metric adds metrics to CLIP score and PSNR; a new search needs another --out");
            }
        }
        tokio::time::sleep(NARRATE_EVERY).await;
    }
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn spawn(settings: &WorkerSettings, number: usize, restarts: u32) -> Result<Member, Failure> {
    let path = settings.log(number);
    let failed = |e: std::io::Error| Failure::file("write", &path, &e);
    let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    let log_start = log.seek(SeekFrom::End(0)).map_err(failed)?;
    let started = settings.command(number, &log).and_then(|mut command| command.spawn());
    let mut child = started.map_err(|e| Failure::new(format!("cannot start worker {number}: {e}")))?;
    // Waiting for a child closes its stdin, which would end it.
    let stdin = child.stdin.take();
    Ok(Member { number, child, stdin, log_start, restarts })
}

fn ending(number: usize, status: ExitStatus, log: &Path, start: u64) -> String {
    let tail = tail(log, start).unwrap_or_default();
    let lines: String = tail.iter().map(|line| format!("\n  | {line}")).collect();
    format!("worker {number} exited with {status}; its log ends with:{lines}")
}

/// The last lines of a log that this process wrote.
fn tail(log: &Path, start: u64) -> std::io::Result<Vec<String>> {
    let mut lines = lines(log, start)?;
    Ok(lines.split_off(lines.len().saturating_sub(TAIL)))
}

fn lines(log: &Path, start: u64) -> std::io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// The hidden verb: one worker, until it is asked to exit or its parent has exited.
pub(crate) fn worker_process(args: WorkerArgs) -> ExitCode {
    evocache_worker::allocator::keep_pages();
    #[cfg(unix)]
    std::thread::spawn(|| {
        // The parent never writes: the end of stdin is the end of the parent.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    });
    evocache_worker::cli::run::run(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_the_last_process_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("worker-1.log");
        let new: String = (0..20).map(|i| format!("new {i}\n\n")).collect();
        std::fs::write(&log, format!("old\n{new}")).unwrap();
        let lines = tail(&log, 4).unwrap();
        assert_eq!(lines.len(), TAIL);
        assert_eq!(lines.last().unwrap(), "new 19");
        assert!(tail(&log, 4 + new.len() as u64).unwrap().is_empty());
    }
}
