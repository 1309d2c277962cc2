//! `run --devices`: one worker process per device, under a process that supervises them and computes nothing.
//!
//! | a worker | then |
//! |---|---|
//! | exits with 0: it was drained | it is not restarted |
//! | exits with 1: it has logged an error | it is not restarted, because it would fail again |
//! | crashes: any other exit code, or a signal | it is restarted, up to `--restarts` times in a row |
//!
//! The first signal stops all workers with SIGTERM and waits for them; a second one kills them.
//!
//! Does not start or wait for processes itself: that is [`evocache_net::children`]. Does not call a coordinator.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use evocache_net::back_off::BackOff;
use evocache_net::children::{Children, Event, Restart, Restarts};
use evocache_net::signals::Signals;
use tokio::process::Command;
use tracing::{error, info, warn};

use crate::evaluator::device::DeviceChoice;

/// Waits before restarts.
const WAITS: BackOff = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// A worker that has run for this long is healthy: earlier crashes no longer count.
const HEALTHY_AFTER: Duration = Duration::from_secs(600);
/// How long workers may take to stop: 5 s for their last call to the coordinator, 5 s for the evaluator, and a margin.
const GRACE: Duration = Duration::from_secs(30);
/// The exit code of a worker that has logged an error.
const ERROR: i32 = 1;

/// A device and the worker on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Post {
    program: PathBuf,
    device: DeviceChoice,
    name: String,
}

impl Post {
    /// One post for each device, with unique names: if a device is listed repeatedly, its workers are numbered.
    pub(super) fn all(program: &Path, devices: &[DeviceChoice], base: &str) -> Vec<Self> {
        let name = |(i, device): (usize, &DeviceChoice)| {
            let same = |devices: &[DeviceChoice]| devices.iter().filter(|other| *other == device).count();
            match same(devices) {
                1 => format!("{base}/{device}"),
                _ => format!("{base}/{device}#{}", same(&devices[..=i])),
            }
        };
        let posts = devices.iter().enumerate().map(|at| (*at.1, name(at)));
        posts.map(|(device, name)| Self { program: program.to_owned(), device, name }).collect()
    }

    /// This program with this process's own arguments, which the appended ones override.
    fn command(&self, arguments: &[OsString]) -> Command {
        let device = self.device.to_string();
        let mut command = Command::new(&self.program);
        command.args(arguments);
        command.args(["--device", &device, "--name", &self.name, "--supervised", "--log-prefix", &device]);
        command
    }
}

/// Runs a worker on each post until none is left to restart. The exit code is 0 if all workers ended in order, 1 if one
/// ended with an error or crashed too often, and 128 plus the signal's number if a second signal killed them.
pub(super) async fn run(posts: Vec<Post>, restarts: u32) -> io::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut workers = Workers::start(posts, restarts);
    let mut killed_by = None;
    loop {
        tokio::select! {
            event = workers.children.next() => match event {
                Some((post, event)) => workers.handle(post, event),
                None => break,
            },
            signal = signals.next() => {
                if workers.stopping {
                    killed_by = Some(signal);
                    workers.children.kill();
                } else {
                    workers.stop();
                }
            }
        }
    }
    Ok(match killed_by {
        Some(signal) => ExitCode::from(128 + signal),
        None if workers.failed => ExitCode::FAILURE,
        None => ExitCode::SUCCESS,
    })
}

/// The worker processes, one per post.
struct Workers {
    posts: Vec<Post>,
    children: Children,
    restarts: u32,
    /// The arguments of this process.
    arguments: Vec<OsString>,
    stopping: bool,
    /// Whether a worker ended with an error, crashed too often or had to be killed.
    failed: bool,
}

impl Workers {
    fn start(posts: Vec<Post>, restarts: u32) -> Self {
        let policy = Restarts { most: restarts, waits: WAITS, healthy_after: HEALTHY_AFTER };
        let children = Children::new(posts.len(), policy);
        let arguments = std::env::args_os().skip(1).collect();
        let mut workers = Self { posts, children, restarts, arguments, stopping: false, failed: false };
        (0..workers.posts.len()).for_each(|post| workers.start_one(post));
        workers
    }

    fn start_one(&mut self, at: usize) {
        let post = &self.posts[at];
        let device = post.device.to_string();
        match self.children.start(at, post.command(&self.arguments)) {
            Ok(process) => info!(device, worker = post.name, process, "started"),
            Err(e) => {
                error!(device, "cannot start a worker: {e}");
                self.failed = true;
            }
        }
    }

    fn stop(&mut self) {
        info!("stopping {} workers; a second signal kills them", self.children.active());
        self.stopping = true;
        self.children.stop(GRACE);
    }

    fn handle(&mut self, at: usize, event: Event) {
        let device = self.posts[at].device.to_string();
        match event {
            Event::Due => self.start_one(at),
            Event::Overdue => warn!(device, "the worker has not stopped within {GRACE:?}; killing it"),
            Event::Ended(Ok(status)) if status.success() => info!(device, "the worker has ended"),
            Event::Ended(Ok(status)) if self.stopping && terminated(status) => {}
            Event::Ended(status) if self.stopping => {
                warn!(device, "the worker ended with {}", describe(status));
                self.failed = true;
            }
            Event::Ended(Ok(status)) if status.code() == Some(ERROR) => {
                error!(device, "the worker ended with the error above and is not restarted");
                self.failed = true;
            }
            Event::Ended(status) => self.crashed(at, &describe(status)),
        }
    }

    fn crashed(&mut self, at: usize, status: &str) {
        let (device, most) = (self.posts[at].device.to_string(), self.restarts);
        match self.children.restart(at) {
            Some(Restart { wait, number }) => {
                warn!(device, "the worker crashed ({status}); restarting it in {wait:?}, {number} of {most}");
            }
            None => {
                error!(device, "the worker crashed ({status}) and is not restarted after {most} restarts");
                self.failed = true;
            }
        }
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|e| e.to_string(), |status| status.to_string())
}

/// Whether SIGTERM ended the process directly: then it was still loading and held no lease.
#[cfg(unix)]
fn terminated(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(15)
}

#[cfg(not(unix))]
fn terminated(_status: ExitStatus) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_names_that_differ() {
        use DeviceChoice::{Cpu, Cuda};
        let names = |devices: &[DeviceChoice]| -> Vec<String> {
            Post::all(Path::new("worker"), devices, "h/7").into_iter().map(|post| post.name).collect()
        };
        assert_eq!(names(&[Cuda(0), Cuda(2)]), ["h/7/cuda:0", "h/7/cuda:2"]);
        assert_eq!(names(&[Cpu, Cuda(0), Cpu]), ["h/7/cpu#1", "h/7/cuda:0", "h/7/cpu#2"]);
    }
}
