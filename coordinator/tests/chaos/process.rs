//! The real coordinator in a process of its own.

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

    /// Waits at most so long for it to die by itself.
    #[cfg(feature = "faults")]
    pub(crate) fn dies(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
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
    let mut child = spawn(data, port, log, fault);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut process = Process(child);
    if line.is_empty() {
        let status = process.0.wait().unwrap();
        // By its own hand, or because its store failed before there was anything to answer: then it says so.
        let expected = match status.code() {
            None => fault.is_some(),
            Some(_) => fault.is_some_and(|fault| fault.ends_with(":error")),
        };
        assert!(expected, "ended with {status}: {}", read(log));
        return (process, Started::Died);
    }
    assert!(line.contains(&format!(":{port}")), "listens elsewhere: {line}");
    (process, Started::Listens(began.elapsed()))
}

/// Starts a coordinator and returns at once.
pub(crate) fn start_unseen(data: &Path, port: u16, log: &Path) -> Process {
    Process(spawn(data, port, log, None))
}

fn spawn(data: &Path, port: u16, log: &Path, fault: Option<&str>) -> Child {
    // Another build of it can be told, such as a release.
    let program = std::env::var_os("CHAOS_EVOCACHE").unwrap_or_else(|| env!("CARGO_BIN_EXE_evocache").into());
    let mut command = Command::new(program);
    command
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

fn read(log: &Path) -> String {
    let mut text = String::new();
    std::fs::File::open(log).unwrap().read_to_string(&mut text).unwrap();
    text
}
