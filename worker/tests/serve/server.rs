//! A server process with the bundled model, and a client that speaks HTTP by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

/// Far longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji")
}

/// The worker's binary.
pub(crate) fn worker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evocache-worker"));
    command.args(arguments);
    command
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts on a free port and waits until it is ready.
    pub(crate) fn start(more: &[&str]) -> Self {
        let model = model();
        let fixed = ["serve", "--model", model.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let mut process = worker(&[&fixed[..], more].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, (tell, told)) = (log.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            for line in lines {
                *kept.lock().unwrap() += &format!("{line}\n");
                if line.contains("ready")
                    && let Some((_, address)) = line.split_once("address=")
                {
                    let _ = tell.send(address.split_whitespace().next().unwrap().to_owned());
                }
            }
        });
        let address = told.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{e}: {}", log.lock().unwrap()));
        Self { process, address, log }
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Asks it to stop.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end; the exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address))
    }

    /// Asks for pictures.
    pub(crate) fn ask(&self, body: &Value) -> Answer {
        self.ask_with("", &body.to_string())
    }

    /// Asks with more headers, each with its line end.
    pub(crate) fn ask_with(&self, headers: &str, body: &str) -> Answer {
        self.send(&self.request(headers, body))
    }

    /// The text of a request for pictures.
    pub(crate) fn request(&self, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "POST /v1/images/generations HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}",
            self.address
        )
    }

    pub(crate) fn send(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        // A server that has read enough to refuse closes the connection while it is written.
        let _ = stream.write_all(text.as_bytes());
        Answer::read(stream)
    }

    /// A counter or gauge of the metrics page.
    pub(crate) fn meter(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until a meter is at least this.
    pub(crate) fn reaches(&self, name: &str, least: f64) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.meter(name) >= least {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} stays at {}: {}", self.meter(name), self.log());
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        // What was sent before a connection was reset is still an answer.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = bytes.get(end + 4..).unwrap_or_default().to_vec();
        Self { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The PNG file of a picture.
    pub(crate) fn png(&self, number: usize) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", self.text());
        let json = self.json();
        base64::engine::general_purpose::STANDARD.decode(json["data"][number]["b64_json"].as_str().unwrap()).unwrap()
    }

    /// Status, code and parameter of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (self.status, text("code"), text("param"))
    }
}
