//! The real coordinator in a process of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that does not outlive the test.
pub(crate) struct Process(Child);

impl Process {
    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill(&mut self) {
        // It may be dead already, by its own hand.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }

    /// Lets its files grow to so many bytes and no further; `None`: as they like.
    #[cfg(target_os = "linux")]
    pub(crate) fn confine(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Pid::from_raw(self.0.id() as i32), Resource::Fsize, limit).unwrap();
    }

    /// Waits at most so long for it to end by itself, and says how it did.
    #[cfg(faults)]
    pub(crate) fn ends(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a coordinator came up.
pub(crate) enum Started {
    /// It listens, so long after its start.
    Listens(Duration),
    /// It died first.
    Died,
}

/// Starts a coordinator; `fault` as `evocache::faults` reads it. Panics with its log if it ends for another reason.
pub(crate) fn start(data: &Path, port: u16, log: &Path, fault: Option<&str>) -> (Process, Started) {
    let began = Instant::now();
    let mut child = spawn(vec![program()], data, port, log, fault);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut process = Process(child);
    if line.is_empty() {
        let status = process.0.wait().unwrap();
        // By its own hand, or because its store failed before there was anything to answer: then it says so.
        let expected = match status.code() {
            None => fault.is_some(),
            Some(_) => fault.is_some_and(|fault| fault.ends_with(":error") || fault.ends_with(":panic")),
        };
        assert!(expected, "ended with {status}: {}", read(log));
        return (process, Started::Died);
    }
    assert!(line.contains(&format!(":{port}")), "listens elsewhere: {line}");
    (process, Started::Listens(began.elapsed()))
}

/// Starts a coordinator and returns at once.
pub(crate) fn start_unseen(data: &Path, port: u16, log: &Path) -> Process {
    Process(spawn(vec![program()], data, port, log, None))
}

/// The same for one that is to get an error, and no signal, when it may not write.
#[cfg(target_os = "linux")]
pub(crate) fn start_to_be_confined(data: &Path, port: u16, log: &Path) -> Process {
    let shell = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""].map(OsString::from);
    Process(spawn([shell.to_vec(), vec![program()]].concat(), data, port, log, None))
}

/// Another build of it can be told, such as a release.
fn program() -> OsString {
    std::env::var_os("CHAOS_EVOCACHE").unwrap_or_else(|| env!("CARGO_BIN_EXE_evocache").into())
}

fn spawn(program: Vec<OsString>, data: &Path, port: u16, log: &Path, fault: Option<&str>) -> Child {
    let mut command = Command::new(&program[0]);
    command
        .args(&program[1..])
        .args(["--json", "serve", "--lease-ttl", "2s", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(log).unwrap());
    if let Some(fault) = fault {
        command.env("EVOCACHE_FAULT", fault);
    }
    command.spawn().unwrap()
}

pub(crate) fn read(log: &Path) -> String {
    let mut text = String::new();
    std::fs::File::open(log).unwrap().read_to_string(&mut text).unwrap();
    text
}
