//! `run --devices`: one worker process per device under one that only looks after them.
//!
//! | a worker | then |
//! |---|---|
//! | ends with 0 (drained) | it is not wanted back |
//! | ends with 1 (it has told its error) | it is not started again: it would tell the same |
//! | crashes: any other code, or a signal | it is started again after a wait that doubles, so often |
//!
//! The first signal is passed on as one SIGTERM each, and waited for; a second one kills. Workers are in process groups
//! of their own, so that a terminal's Ctrl-C reaches only this process; and the stdin of each is a pipe from it, whose end
//! tells them that it is gone. It stays open until they have ended, because to them it is another way of being told.
//!
//! Absent on purpose: what a worker does, and any talk with a coordinator.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::signals::Signals;
use crate::evaluator::device::DeviceChoice;
use evocache_net::back_off::BackOff;

/// Waits before a restart.
const WAITS: BackOff = BackOff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
/// A worker that has run for so long is sound: earlier crashes are forgotten.
const SOUND: Duration = Duration::from_secs(600);
/// How long workers may take to leave. Theirs are 5 s for the coordinator and 5 s for the evaluator.
const GRACE: Duration = Duration::from_secs(30);
/// The exit code of a worker that has told an error.
const TOLD: i32 = 1;

/// A device and the worker on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Post {
    program: PathBuf,
    device: DeviceChoice,
    name: String,
}

impl Post {
    /// One for each device, with names that differ: where a device is there repeatedly, they are numbered.
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

    /// This program again with its own arguments, of which the later ones count.
    fn start(&self, arguments: &[OsString]) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["--device", &self.device.to_string(), "--name", &self.name, "--supervised"])
            .stdin(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }
}

/// What the workers are to do; each order includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Work,
    Leave,
    Die,
}

/// Runs a worker on each post until all have ended for good. The exit code is 0 if all of them ended well, 1 if one was
/// given up or told an error, and 128 and the signal's number if a second signal cut them off.
pub(super) async fn run(posts: Vec<Post>, restarts: u32) -> io::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let (give, orders) = watch::channel(Order::Work);
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut workers = JoinSet::new();
    for post in posts {
        let (arguments, orders) = (arguments.clone(), orders.clone());
        workers.spawn(async move { attend(&post, &arguments, restarts, orders).await });
    }
    let (mut well, mut forced) = (true, None);
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                // A task that panicked has left its worker to be killed.
                Some(ended) => well &= ended.unwrap_or(false),
                None => break,
            },
            signal = signals.next() => {
                let order = if *give.borrow() == Order::Work { Order::Leave } else { Order::Die };
                if order == Order::Leave {
                    info!("asking {} workers to leave; once more ends them at once", workers.len());
                } else {
                    forced = Some(signal);
                }
                let _ = give.send(order);
            }
        }
    }
    Ok(match forced {
        Some(signal) => ExitCode::from(128 + signal),
        None if well => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// Keeps a worker on its post. Whether it ended well.
async fn attend(post: &Post, arguments: &[OsString], restarts: u32, orders: watch::Receiver<Order>) -> bool {
    let device = post.device.to_string();
    let (mut crashes, mut waits) = (0, WAITS.start());
    loop {
        let mut child = match post.start(arguments) {
            Ok(child) => child,
            Err(e) => {
                error!(device, "cannot start a worker: {e}");
                return false;
            }
        };
        // Waiting for a child closes its stdin.
        let _stdin = child.stdin.take();
        let began = Instant::now();
        info!(device, worker = post.name, process = child.id(), "started");
        let status = tokio::select! {
            status = child.wait() => status,
            () = given(&orders, Order::Leave) => return dismiss(&mut child, &orders, &device).await,
        };
        let how = match status {
            Ok(status) if status.success() => {
                info!(device, "the worker has left");
                return true;
            }
            Ok(status) if status.code() == Some(TOLD) => {
                error!(device, "the worker ended with the error above, and is not started again");
                return false;
            }
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        if began.elapsed() >= SOUND {
            crashes = 0;
            waits.reset();
        }
        if crashes == restarts {
            error!(device, "the worker crashed ({how}), and is not started again after {restarts} restarts");
            return false;
        }
        crashes += 1;
        let wait = waits.next_wait();
        warn!(device, "the worker crashed ({how}); starting it again in {wait:?}, {crashes} of {restarts}");
        tokio::select! {
            () = sleep(wait) => {}
            () = given(&orders, Order::Leave) => return true,
        }
    }
}

/// Ready once this order is given.
async fn given(orders: &watch::Receiver<Order>, order: Order) {
    // An error means that whoever gives orders is gone, with everything else.
    let _ = orders.clone().wait_for(|&now| now >= order).await;
}

/// Asks a worker to leave and waits for it.
async fn dismiss(child: &mut Child, orders: &watch::Receiver<Order>, device: &str) -> bool {
    #[cfg(unix)]
    if let Some(process) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        // It may have gone by itself.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
    let status = tokio::select! {
        status = child.wait() => status,
        () = given(orders, Order::Die) => {
            let _ = child.kill().await;
            return false;
        }
        () = sleep(GRACE) => {
            warn!(device, "the worker has not left within {GRACE:?}; killing it");
            let _ = child.kill().await;
            return false;
        }
    };
    match status {
        Ok(status) if status.success() || terminated(status) => true,
        Ok(status) => {
            warn!(device, "the worker left with {status}");
            false
        }
        Err(_) => false,
    }
}

/// Whether SIGTERM itself ended it: it was still loading and held no lease.
#[cfg(unix)]
fn terminated(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(15)
}

#[cfg(not(unix))]
fn terminated(_status: ExitStatus) -> bool {
    false
}

/// Ready when the process above this one has ended: it never writes, so that is the end of stdin.
pub(super) async fn orphaned() {
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: the runtime would wait for a blocking task at its end.
    let watching = std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    });
    if watching.is_err() {
        std::future::pending::<()>().await;
    }
    let _ = wait.await;
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
