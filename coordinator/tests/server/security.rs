//! Who is let in: every call with every role, tokens that are missing, unknown or expired, workers that stay their
//! owner's, tokens read again, and what is written down of it all.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use evocache::server::{Running, Security, ServeOptions, start};
use evocache_net::tokens::{Role, entry};
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::common::{declaration, draft};

/// The calls (without `evocache.v1.`), and what becomes of them: let through, 401 UNAUTHENTICATED, 403
/// PERMISSION_DENIED. Written by hand: the coordinator's own table is held against it.
const EXPECTED: &str = "\
call                                      none reader operator worker admin
SearchService/CreateSearch                401  403    yes      403    yes
SearchService/GetSearch                   401  yes    yes      403    yes
SearchService/ListSearches                401  yes    yes      403    yes
SearchService/PauseSearch                 401  403    yes      403    yes
SearchService/ResumeSearch                401  403    yes      403    yes
SearchService/ExtendSearch                401  403    yes      403    yes
SearchService/StopSearch                  401  403    yes      403    yes
SearchService/DeleteSearch                401  403    yes      403    yes
SearchService/WatchSearch                 401  yes    yes      403    yes
SearchService/ListEvaluations             401  yes    yes      403    yes
SearchService/GetFront                    401  yes    yes      403    yes
SearchService/GetBestSchedule             401  yes    yes      403    yes
WorkerService/RegisterWorker              401  403    403      yes    yes
WorkerService/GetCalibration              401  403    403      yes    yes
WorkerService/AcquireLease                401  403    403      yes    yes
WorkerService/RenewLeases                 401  403    403      yes    yes
WorkerService/CompleteEvaluation          401  403    403      yes    yes
WorkerService/FailEvaluation              401  403    403      yes    yes
WorkerService/ReleaseLease                401  403    403      yes    yes
WorkerService/DeregisterWorker            401  403    403      yes    yes
FleetService/ListWorkers                  401  yes    yes      403    yes
FleetService/GetWorker                    401  yes    yes      403    yes
FleetService/DrainWorker                  401  403    yes      403    yes
StoreService/BackUpStore                  401  403    403      403    yes
Health/Check                              yes  yes    yes      yes    yes
ServerReflection/ServerReflectionInfo     401  yes    yes      yes    yes
SearchService/NoSuchCall                  401  403    403      403    yes
";

struct Guarded {
    running: Running,
    channel: Channel,
    folder: tempfile::TempDir,
}

fn options(folder: &tempfile::TempDir) -> ServeOptions {
    ServeOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        reserve: 0,
        accept_loss: false,
        data: folder.path().join("store"),
        lease_ttl: std::time::Duration::from_secs(30),
        allow_remote_plaintext: false,
        security: Security { tokens: Some(file(folder)), ..Security::default() },
        http: None,
    }
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("tokens.toml")
}

/// The secret of a role in these tests.
fn secret(role: Role) -> String {
    format!("the-secret-of-{}", role.as_str())
}

/// An entry for each role, named after it.
fn one_each() -> String {
    Role::ALL.map(|role| entry(role.as_str(), role, &secret(role), None)).concat()
}

impl Guarded {
    async fn start(tokens: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(file(&folder), tokens).unwrap();
        let running = start(options(&folder)).await.unwrap();
        let channel = Channel::from_shared(running.url()).unwrap().connect().await.unwrap();
        Self { running, channel, folder }
    }

    async fn restarted(self) -> Self {
        self.running.shutdown().await.unwrap();
        let running = start(options(&self.folder)).await.unwrap();
        let channel = Channel::from_shared(running.url()).unwrap().connect().await.unwrap();
        Self { running, channel, folder: self.folder }
    }

    /// Calls with an empty message, whatever the call.
    async fn call(&self, path: &str, authorization: Option<&str>) -> Result<(), Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(());
        if let Some(text) = authorization {
            request.metadata_mut().insert("authorization", text.parse().unwrap());
        }
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        grpc.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await.map(drop)
    }

    async fn list(&self, secret: &str) -> Result<(), Status> {
        self.call("/evocache.v1.SearchService/ListSearches", Some(&format!("Bearer {secret}"))).await
    }

    async fn register(&self, secret: &str) -> String {
        let request = wire::register_request(String::new(), &declaration("w"));
        let mut client = WorkerServiceClient::new(self.channel.clone());
        client.register_worker(with(secret, request)).await.unwrap().into_inner().worker_id
    }

    async fn acquire(&self, secret: &str, worker_id: &str) -> Result<pb::AcquireLeaseResponse, Status> {
        let request = pb::AcquireLeaseRequest { worker_id: worker_id.to_owned(), wait: None };
        let mut client = WorkerServiceClient::new(self.channel.clone());
        client.acquire_lease(with(secret, request)).await.map(tonic::Response::into_inner)
    }
}

fn with<M>(secret: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {secret}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn every_call_is_open_to_the_roles_of_the_table_and_to_no_other() {
    let guarded = Guarded::start(&one_each()).await;
    let set = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let mut paths: Vec<String> = services
        .flat_map(|s| s.method.iter().map(move |m| format!("/evocache.v1.{}/{}", s.name(), m.name())))
        .collect();
    paths.push("/grpc.health.v1.Health/Check".into());
    paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".into());
    paths.push("/evocache.v1.SearchService/NoSuchCall".into());
    let mut table = vec![];
    for path in &paths {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        let mut row = format!("{:<41}", format!("{}/{method}", service.rsplit('.').next().unwrap()));
        let shown = std::iter::once(None).chain(Role::ALL.map(|role| Some(format!("Bearer {}", secret(role)))));
        for (authorization, width) in shown.zip([5, 7, 9, 7, 6]) {
            let cell = match guarded.call(path, authorization.as_deref()).await.err().map(|s| (s.code(), reason(&s))) {
                Some((Code::Unauthenticated, reason)) if reason == "TOKEN_MISSING" => "401",
                Some((Code::PermissionDenied, reason)) if reason == "ROLE_NEEDED" => "403",
                Some((code @ (Code::Unauthenticated | Code::PermissionDenied), reason)) => panic!("{code} {reason}"),
                _ => "yes",
            };
            write!(row, " {cell:<0$}", width - 1).unwrap();
        }
        table.push(row.trim_end().to_owned());
    }
    println!("{}", table.join("\n"));
    // The services come in the order of their files, which is nobody's business.
    let mut expected: Vec<&str> = EXPECTED.lines().skip(1).collect();
    expected.sort_unstable();
    table.sort_unstable();
    assert_eq!(table, expected);
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_with_the_reason_and_without_its_text() {
    let tokens = entry("past", Role::Reader, "was-good", Some("2020-01-01T00:00:00Z"))
        + &entry("future", Role::Reader, "is-good", Some("2999-01-01T00:00:00Z"));
    let guarded = Guarded::start(&tokens).await;
    let path = "/evocache.v1.SearchService/ListSearches";
    let cases = [
        (None, "TOKEN_MISSING"),
        (Some("is-good"), "TOKEN_MISSING"),
        (Some("Basic is-good"), "TOKEN_MISSING"),
        (Some("Bearer never-good"), "TOKEN_UNKNOWN"),
        (Some("Bearer IS-GOOD"), "TOKEN_UNKNOWN"),
        (Some("Bearer "), "TOKEN_UNKNOWN"),
        (Some("Bearer was-good"), "TOKEN_EXPIRED"),
    ];
    for (authorization, expected) in cases {
        let status = guarded.call(path, authorization).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, expected), "{authorization:?}");
        assert!(!status.message().contains("good"), "{status}");
    }
    for authorization in ["Bearer is-good", "bearer is-good"] {
        guarded.call(path, Some(authorization)).await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_belongs_to_the_token_that_registered_it_also_after_a_restart() {
    let tokens = entry("gpu-1", Role::Worker, "one", None)
        + &entry("gpu-1", Role::Worker, "one-renewed", None)
        + &entry("gpu-2", Role::Worker, "two", None)
        + &entry("root", Role::Admin, "all", None);
    let mut guarded = Guarded::start(&tokens).await;
    let worker = guarded.register("one").await;
    for _ in 0..2 {
        let status = guarded.acquire("two", &worker).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "WORKER_OF_ANOTHER"));
        for secret in ["one", "one-renewed", "all"] {
            guarded.acquire(secret, &worker).await.unwrap();
        }
        // Nor may the other renew, report or give back.
        let mut client = WorkerServiceClient::new(guarded.channel.clone());
        let (worker_id, request_id) = (worker.clone(), String::new());
        let renew = pb::RenewLeasesRequest { worker_id: worker_id.clone(), leases: vec![] };
        let fail = pb::FailEvaluationRequest { request_id, worker_id, ..pb::FailEvaluationRequest::default() };
        assert_eq!(client.renew_leases(with("two", renew)).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(client.fail_evaluation(with("two", fail)).await.unwrap_err().code(), Code::PermissionDenied);
        guarded = guarded.restarted().await;
    }
    let status = guarded.acquire("two", "nobody").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "who is unknown registers again");
}

#[tokio::test]
async fn tokens_are_read_again_and_a_broken_file_changes_nothing() {
    let guarded = Guarded::start(&entry("a", Role::Reader, "old", None)).await;
    guarded.list("old").await.unwrap();
    let both = entry("a", Role::Reader, "old", None) + &entry("a", Role::Reader, "new", None);
    std::fs::write(file(&guarded.folder), both).unwrap();
    assert_eq!(guarded.list("new").await.unwrap_err().code(), Code::Unauthenticated);
    guarded.running.reload();
    guarded.list("old").await.unwrap();
    guarded.list("new").await.unwrap();
    for broken in ["[[token]]\nname = \"a\"", "", "no toml"] {
        std::fs::write(file(&guarded.folder), broken).unwrap();
        guarded.running.reload();
        guarded.list("new").await.unwrap();
    }
    std::fs::write(file(&guarded.folder), entry("a", Role::Reader, "new", None)).unwrap();
    guarded.running.reload();
    guarded.list("new").await.unwrap();
    assert_eq!(guarded.list("old").await.unwrap_err().code(), Code::Unauthenticated);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_changes_something_is_written_down_without_tokens_and_prompts() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // While there is one subscriber only, a line that another test's thread meets first counts as unwanted for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(io::sink).finish());
    // For this thread only, and the test's runtime has no other.
    let _here = tracing::subscriber::set_default(subscriber);
    let guarded = Guarded::start(&one_each()).await;
    let (operator, worker) = (secret(Role::Operator), secret(Role::Worker));
    let mut searches = SearchServiceClient::new(guarded.channel.clone());
    let create = pb::CreateSearchRequest {
        search_id: "toy".into(),
        spec: Some((&draft(5)).into()),
        ..pb::CreateSearchRequest::default()
    };
    searches.create_search(with(&operator, create.clone())).await.unwrap();
    searches.create_search(with(&operator, create)).await.unwrap_err();
    guarded.list(&operator).await.unwrap();
    guarded.list(&worker).await.unwrap_err();
    guarded.list("a-stranger").await.unwrap_err();
    let id = guarded.register(&worker).await;
    guarded.acquire(&worker, &id).await.unwrap().lease.unwrap();
    guarded.running.shutdown().await.unwrap();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let audit: Vec<&str> = text.lines().filter(|line| line.contains(" audit: ")).collect();
    let told = |line: usize, words: &[&str]| {
        assert!(words.iter().all(|word| audit[line].contains(word)), "{words:?} are not in {}", audit[line]);
    };
    assert_eq!(audit.len(), 6, "{text}");
    told(0, &["principal=\"operator\"", "SearchService/CreateSearch", "subject=\"toy\"", "outcome=\"Ok\""]);
    told(1, &["principal=\"operator\"", "CreateSearch", "outcome=\"AlreadyExists\""]);
    told(2, &["principal=\"worker\"", "ListSearches", "outcome=\"PermissionDenied\""]);
    told(3, &["principal=\"-\"", "ListSearches", "outcome=\"Unauthenticated\""]);
    told(4, &["principal=\"worker\"", "RegisterWorker", &format!("subject=\"{id}\""), "outcome=\"Ok\""]);
    told(5, &["principal=\"worker\"", "AcquireLease", "subject=\"toy/0\"", "outcome=\"Ok\""]);
    for hidden in ["the-secret-of", "a-stranger", "prompt 0", "Bearer"] {
        assert!(!text.contains(hidden), "'{hidden}' is in the log");
    }
}
