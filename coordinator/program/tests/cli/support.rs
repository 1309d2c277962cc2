//! The binary, run and looked at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::schema;

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The arguments.
    args: Vec<String>,
}

impl Outcome {
    /// Runs a command with these arguments to its end.
    pub(crate) fn of(command: &mut Command, args: &[&str]) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }
    }

    /// Checks the exit code and that stderr holds these words.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "'{word}' is not in {}", self.stderr);
        }
        assert!(self.stderr.contains("error:"), "{}", self.stderr);
        self
    }

    /// Checks that it went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// What it wrote to stdout, as JSON; it is as the schema says, where that says something of the verb.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.ok();
        let value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {}", self.stdout));
        if let Some(verb) = self.verb().filter(|verb| schema::describes(verb)) {
            schema::holds(verb, &value);
        }
        value
    }

    /// The verb, unless it only checks.
    fn verb(&self) -> Option<&str> {
        let mut args = self.args.iter().map(String::as_str);
        let first = match args.next() {
            Some("--coordinator") => args.nth(1),
            first => first,
        };
        first.filter(|_| !self.args.iter().any(|arg| arg == "--check"))
    }
}

/// The binary with arguments, cut off from the environment's settings.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evocache"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EVOCACHE_")) {
        command.env_remove(name);
    }
    command.env_remove("NO_COLOR").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command
}

/// Runs the binary to its end.
pub(crate) fn evocache(args: &[&str]) -> Outcome {
    Outcome::of(&mut command(args), args)
}

/// A coordinator of its own process, ended with the test.
pub(crate) struct Coordinator {
    pub(crate) url: String,
    /// Where operators ask, if they may.
    pub(crate) http: Option<String>,
    pub(crate) child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Coordinator {
    /// Starts one on a free port.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts one with more flags.
    pub(crate) fn start_with(data: &Path, more: &[&str]) -> Self {
        Self::start_logged(data, more, Stdio::null())
    }

    /// Starts one whose log goes somewhere.
    pub(crate) fn start_logged(data: &Path, more: &[&str], log: Stdio) -> Self {
        let data = data.to_str().unwrap();
        let flags = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--json"];
        Self::of(command(&[&flags[..], more].concat()), log)
    }

    /// Starts one that may have so many files open, for good.
    #[cfg(target_os = "linux")]
    pub(crate) fn start_limited(data: &Path, more: &[&str], files: u32, log: Stdio) -> Self {
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let flags = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--json"];
        let mut shell = Command::new("sh");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_evocache")]).args([&flags[..], more].concat());
        Self::of(shell, log)
    }

    fn of(mut command: Command, log: Stdio) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in '{line}'"));
        let told = |name: &str| ready[name].as_str().map(str::to_owned);
        Self { url: told("url").unwrap(), http: told("http"), child, _stdout: stdout }
    }

    /// Runs the binary against it.
    pub(crate) fn evocache(&self, args: &[&str]) -> Outcome {
        evocache(&[&["--coordinator", &self.url], args].concat())
    }

    /// What it tells operators.
    pub(crate) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.http.as_ref().unwrap().trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Asks it to stop and waits.
    pub(crate) fn stop(mut self) -> i32 {
        signal(&self.child, "TERM");
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A small specification for the test's own worker.
pub(crate) const SPEC: &str = r#"
seed = 1
[model]
name = "scripted"
[sampling]
steps = [10, 6]
guidance_scale = 3.0
[measurement]
batch = 2
thumbnails = 2
[[objective]]
metric = "latency_ratio"
[[objective]]
metric = "clip_score"
direction = "maximize"
[budget]
evaluations = 60
[[prompt]]
text = "an owl on a white background"
[[prompt]]
text = "a cat"
"#;

/// Writes the specification to a folder.
pub(crate) fn spec_file(folder: &Path) -> String {
    write(folder, "search.toml", SPEC)
}

/// Writes a file to a folder; the answer is its path.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
