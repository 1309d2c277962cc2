//! What leaves the processes beside answers: traces and logs, of a whole search by a real coordinator and a real worker,
//! with a collector that listens and everything logged that can be.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::local::spec_file;
use crate::support::{Coordinator, command, evocache, write};

/// What came in.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens until the test has ended; the answer is where.
    fn start(&self) -> String {
        let (tell, told) = std::sync::mpsc::channel();
        let service = TraceServiceServer::new(self.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
                tell.send(incoming.local_addr().unwrap()).unwrap();
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
            });
        });
        format!("http://{}", told.recv().unwrap())
    }

    /// Each span with the service that it comes from.
    fn spans(&self) -> Vec<(String, Span)> {
        let mut spans = vec![];
        for resource in self.0.lock().unwrap().iter().flat_map(|request| &request.resource_spans) {
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let service = attributes.iter().find(|a| a.key == "service.name").unwrap();
            let Some(Value::StringValue(service)) = service.value.as_ref().unwrap().value.clone() else {
                panic!("{service:?}")
            };
            let own = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.extend(own.map(|span| (service.clone(), span.clone())));
        }
        spans
    }
}

/// Makes a token; the answer is its file.
fn token(folder: &Path, name: &str, role: &str) -> String {
    let out = folder.join(format!("{name}.token")).to_str().unwrap().to_owned();
    let made = evocache(&["token", "new", "--name", name, "--role", role, "--out", &out]);
    let before = std::fs::read_to_string(folder.join("tokens.toml")).unwrap_or_default();
    write(folder, "tokens.toml", &(before + &made.ok().stdout));
    out
}

fn worker(url: &str, collector: &str, token: &str, log: &Path) -> Child {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker/models/emoji");
    let args = ["worker-process", "--coordinator", url, "--model", model, "--model-name", "emoji", "--threads", "1"];
    let more = ["--token-file", token, "--otlp-endpoint", collector, "--log", "trace", "--log-format", "json"];
    let mut command = command(&[&args[..], &more].concat());
    // It leaves when its stdin is closed.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(log).unwrap());
    command.env("RAYON_NUM_THREADS", "1").env("CANDLE_NUM_THREADS", "1").spawn().unwrap()
}

#[test]
fn a_search_leaves_joined_traces_and_neither_in_them_nor_in_any_log_a_token_or_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::default();
    let endpoint = collector.start();
    if !evocache_net::telemetry::IS_BUILT {
        let refused = evocache(&["serve", "--listen", "localhost:0", "--otlp-endpoint", &endpoint]);
        refused.fails(2, &["--otlp-endpoint", &endpoint, "feature otlp"]);
        return;
    }
    let operator = token(folder.path(), "ci", "operator");
    let gpu = token(folder.path(), "gpu-1", "worker");
    let tokens = folder.path().join("tokens.toml");
    let logs = [folder.path().join("coordinator.log"), folder.path().join("worker.log")];
    let coordinator = Coordinator::start_logged(
        &folder.path().join("data"),
        &["--tokens", tokens.to_str().unwrap(), "--otlp-endpoint", &endpoint, "-vvv", "--log-format", "json"],
        File::create(&logs[0]).unwrap().into(),
    );
    let spec = spec_file(folder.path());
    coordinator.evocache(&["launch", &spec, "--id", "traced", "--token-file", &operator]).ok();
    let mut worker = worker(&coordinator.url, &endpoint, &gpu, &logs[1]);
    coordinator.evocache(&["watch", "traced", "--token-file", &operator]).ok();
    let wrong = write(folder.path(), "wrong.token", "planted-and-unknown");
    coordinator.evocache(&["list", "--token-file", &wrong]).fails(1, &["does not know"]);
    // Whoever ends in order sends what is left. Waiting closes its stdin, which is its order to leave.
    let ended = worker.wait().unwrap();
    let told = std::fs::read_to_string(&logs[1]).unwrap();
    assert!(ended.success(), "{ended}: {}", told.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    assert_eq!(coordinator.stop(), 0);

    let spans = collector.spans();
    let by_id: BTreeMap<&[u8], &(String, Span)> = spans.iter().map(|s| (s.1.span_id.as_slice(), s)).collect();
    let mut joined = 0;
    for (service, report) in spans.iter().filter(|(_, span)| span.name.ends_with("/CompleteEvaluation")) {
        assert_eq!(service, "evocache");
        let (of, evaluation) = by_id[report.parent_span_id.as_slice()];
        assert_eq!((of.as_str(), evaluation.name.as_str()), ("evocache-worker", "evaluation"));
        let (of, lease) = by_id[evaluation.parent_span_id.as_slice()];
        assert_eq!((of.as_str(), lease.name.as_str()), ("evocache", "evocache.v1.WorkerService/AcquireLease"));
        assert!(lease.trace_id == report.trace_id && evaluation.trace_id == report.trace_id);
        if joined == 0 {
            let hex: String = report.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("trace {hex}");
            for (service, span) in spans.iter().filter(|(_, span)| span.trace_id == report.trace_id) {
                let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
                println!("  {service:<16} {:<48} {took} us", span.name);
            }
        }
        joined += 1;
    }
    assert_eq!(joined, 8, "one for each evaluation");
    assert!(spans.iter().any(|(_, span)| span.name == "measure"));

    let read = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let hidden = [read(&operator), read(&gpu), read(&wrong), "owl on a white".to_owned(), "a cat".to_owned()];
    let mut told = vec![("the traces", format!("{spans:?}"))];
    for (name, log) in ["the coordinator's log", "the worker's log"].into_iter().zip(&logs) {
        let text = std::fs::read_to_string(log).unwrap();
        for line in text.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}");
        }
        assert!(text.lines().count() > 50, "{name} is too short to show anything");
        told.push((name, text));
    }
    assert!(told[1].1.contains(r#""target":"audit""#) && told[1].1.contains(r#""principal":"gpu-1""#), "no audit");
    for (place, text) in &told {
        for secret in &hidden {
            // The same bytes, as a debugger prints them.
            let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
            for shown in [secret.clone(), bytes.join(", "), bytes.join(",")] {
                let found = text.lines().find(|line| line.contains(&shown));
                assert!(found.is_none(), "'{secret}' is in {place}: {}", found.unwrap());
            }
        }
    }
}
