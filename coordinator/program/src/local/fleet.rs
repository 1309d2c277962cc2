//! The worker processes of `local`: what they are, how they report, and what their ends mean for the search.
//!
//! Each is this program again, with a hidden verb, and logs to a file of its own. Does not start or wait for processes
//! itself: that is [`evocache_net::children`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use evocache::cli::kit::exit::Failure;
use evocache::cli::kit::follow::Message;
use evocache::cli::kit::names;
use evocache::client::{Client, SearchState};
use evocache_net::back_off::BackOff;
use evocache_net::children::{Children, Event, Restarts};
use evocache_proto::domain::SearchId;
pub(crate) use evocache_worker::cli::run::RunArgs as WorkerArgs;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedSender;

use super::args::LocalArgs;
use super::setup::Plan;

/// A worker is restarted three times in its life, after 1, 2 and 4 s.
const RESTARTS: Restarts = Restarts {
    most: 3,
    waits: BackOff { first: Duration::from_secs(1), most: Duration::from_secs(4) },
    healthy_after: Duration::MAX,
};
/// How long workers may take to release their candidates and end.
const GRACE: Duration = Duration::from_secs(10);
/// How often the logs are read for what the workers do.
const NARRATE_EVERY: Duration = Duration::from_millis(100);
/// What precedes such a message in a log.
const INFO: &str = " INFO ";
/// How many of a log's last lines are shown.
const TAIL: usize = 12;
/// The environment variables with credentials.
const CREDENTIALS: [&str; 5] =
    ["EVOCACHE_CA", "EVOCACHE_CLIENT_CERT", "EVOCACHE_CLIENT_KEY", "EVOCACHE_TOKEN_FILE", "EVOCACHE_TOKEN"];
/// More workers than this do not make a search on one machine better, only its timings worse.
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
    /// The number of workers.
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

    fn command(&self, number: usize, log: &File) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .arg("worker-process")
            .args(["--coordinator", &self.url, "--model-name", &self.model_name, "--device", &self.device])
            .args(["--name", &format!("local/{number}")])
            .args(self.metrics.iter().flat_map(|metric| ["--metric", metric]))
            .arg("--model")
            .arg(&self.model)
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        // They are meant for another coordinator; this one asks for none.
        for name in CREDENTIALS {
            command.env_remove(name);
        }
        if self.device == "cpu" {
            // One thread each: workers that share cores would disturb each other's measurements.
            command.args(["--threads", "1"]).env("RAYON_NUM_THREADS", "1").env("CANDLE_NUM_THREADS", "1");
        }
        Ok(command)
    }
}

/// The workers, numbered from 1; each is the child of that number less one.
#[derive(Debug)]
pub(super) struct Fleet {
    settings: WorkerSettings,
    client: Client,
    children: Children,
    /// Where the output of each worker's latest process begins in its log, in bytes.
    log_starts: Vec<u64>,
}

impl Fleet {
    /// Starts all workers.
    pub(super) fn start(settings: WorkerSettings, client: Client) -> Result<Self, Failure> {
        let count = settings.count;
        let children = Children::new(count, RESTARTS);
        let mut fleet = Self { settings, client, children, log_starts: vec![0; count] };
        (0..count).try_for_each(|child| fleet.start_one(child))?;
        Ok(fleet)
    }

    fn start_one(&mut self, child: usize) -> Result<(), Failure> {
        let number = child + 1;
        let path = self.settings.log(number);
        let failed = |e: io::Error| Failure::file("write", &path, &e);
        let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        self.log_starts[child] = log.seek(SeekFrom::End(0)).map_err(failed)?;
        let started = self.settings.command(number, &log).and_then(|command| self.children.start(child, command));
        started.map_err(|e| Failure::new(format!("cannot start worker {number}: {e}")))?;
        Ok(())
    }

    /// Restarts workers that crash. Returns only if the search cannot go on, with the reason.
    pub(super) async fn supervise(&mut self, tell: UnboundedSender<Message>) -> Failure {
        while let Some((child, event)) = self.children.next().await {
            let handled = match event {
                Event::Due => self.start_one(child),
                Event::Ended(status) => self.ended(child, status, &tell).await,
                // Only after `stop`.
                Event::Overdue => Ok(()),
            };
            if let Err(failure) = handled {
                return failure;
            }
        }
        Failure::new("all workers have ended before the search did")
            .hint(format!("their logs are in {}", self.settings.logs.display()))
    }

    async fn ended(
        &mut self,
        child: usize,
        status: io::Result<ExitStatus>,
        tell: &UnboundedSender<Message>,
    ) -> Result<(), Failure> {
        let number = child + 1;
        if status.as_ref().is_ok_and(ExitStatus::success) {
            // Somebody drained it.
            let _ = tell.send(Message::Warning(format!("worker {number} has ended")));
            return Ok(());
        }
        let log = self.settings.log(number);
        let end = ending(number, &status, &log, self.log_starts[child]);
        // If no worker has ever registered, none will: they all run the same command.
        let registered = self.client.workers().await.is_ok_and(|workers| !workers.is_empty());
        let restart = if registered { self.children.restart(child) } else { None };
        let then = match (restart, self.children.active()) {
            (Some(_), _) => "it is restarted".to_owned(),
            (None, others) if registered && others > 0 => format!("it is not restarted; {others} workers go on"),
            (None, _) => return Err(Failure::new(end).hint(format!("the whole log is {}", log.display()))),
        };
        let _ = tell.send(Message::Warning(format!("{end}\n  {then}")));
        Ok(())
    }

    /// Stops all workers, and kills those that do not end in time.
    pub(super) async fn stop(mut self) {
        self.children.stop(GRACE);
        while self.children.next().await.is_some() {}
    }
}

/// Reports what each worker does until the search has its first result: loading a model and measuring it uncached may
/// take minutes. Afterwards the progress of the search says enough.
///
/// Returns only if the search requires something that none of its workers offers, because it will get no others.
pub(super) async fn narrate(
    settings: WorkerSettings,
    client: Client,
    id: SearchId,
    tell: UnboundedSender<Message>,
) -> Failure {
    let starts: Vec<u64> = (1..=settings.count).map(|number| length(&settings.log(number))).collect();
    let mut said = vec![String::new(); settings.count];
    loop {
        for (i, (start, said)) in starts.iter().zip(&mut said).enumerate() {
            let lines = lines(&settings.log(i + 1), *start).unwrap_or_default();
            let last = lines.iter().rev().find_map(|line| line.split_once(INFO)).map(|(_, text)| text.trim());
            // Without the spans in which it was logged.
            let last = last.map(|text| text.rsplit("}: ").next().unwrap_or(text).to_owned());
            if let Some(text) = last.filter(|text| text != said) {
                let _ = tell.send(Message::Note(format!("worker {}: {text}", i + 1)));
                *said = text;
            }
        }
        // Asked after the logs are read, so that a fast worker is reported at least once.
        let search = match client.search(&id).await {
            Ok(search) if search.progress.evaluations == 0 && !search.state.is_final() => search,
            // The task that follows the search reports errors of the coordinator.
            Ok(_) | Err(_) => return std::future::pending().await,
        };
        if search.state == SearchState::Pending
            && let Ok(workers) = client.workers().await
            && workers.len() >= settings.count
        {
            let unknown = names::unknown(&search.spec, &workers);
            if !unknown.is_empty() {
                let lines: String = unknown.iter().map(|line| format!("\n  {line}")).collect();
                return Failure::usage(format!("no worker of this search can evaluate it:{lines}"))
                    .hint("add metrics to CLIP score and PSNR with --metric; start a new search with another --out");
            }
        }
        tokio::time::sleep(NARRATE_EVERY).await;
    }
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

/// How a worker ended, with the last lines of its log from the byte `start` on.
fn ending(number: usize, status: &io::Result<ExitStatus>, log: &Path, start: u64) -> String {
    let status = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
    let tail = tail(log, start).unwrap_or_default();
    let lines: String = tail.iter().map(|line| format!("\n  | {line}")).collect();
    format!("worker {number} ended with {status}; its log ends with:{lines}")
}

/// The last lines of a log, from the byte `start` on.
fn tail(log: &Path, start: u64) -> io::Result<Vec<String>> {
    let mut lines = lines(log, start)?;
    Ok(lines.split_off(lines.len().saturating_sub(TAIL)))
}

fn lines(log: &Path, start: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![];
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// The hidden verb that the workers run: `evocache-worker run`, always under a supervising process.
pub(crate) fn worker_process(args: WorkerArgs) -> ExitCode {
    evocache_worker::cli::run::run(WorkerArgs { supervised: true, ..args })
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
