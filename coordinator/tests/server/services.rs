//! The services over real gRPC on loopback, with sled on disk: a whole search, errors with their details, limits,
//! health and reflection.

use std::net::SocketAddr;
use std::time::Duration;

use evocache::client::{Preference, Question};
use evocache::server::{Running, Security, ServeError, ServeOptions, start};
use evocache_proto::domain::Layout;
use evocache_proto::pb::fleet_service_client::FleetServiceClient;
use evocache_proto::pb::get_best_schedule_request::Constraint;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{PROTOCOL_VERSION, pb, wire};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::common::{BLOCKS, declaration, draft, measure};

struct Server {
    running: Running,
    channel: Channel,
    folder: tempfile::TempDir,
}

fn options(folder: &tempfile::TempDir) -> ServeOptions {
    ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        reserve: 0,
        accept_loss: false,
        data: folder.path().join("store"),
        lease_ttl: Duration::from_secs(30),
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    }
}

async fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let running = start(options(&folder)).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", running.local_addr())).unwrap().connect().await.unwrap();
    Server { running, channel, folder }
}

impl Server {
    fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone())
    }
    fn worker(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel.clone())
    }
    fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    async fn create(&self, id: &str, evaluations: u64) -> pb::Search {
        let request = pb::CreateSearchRequest {
            search_id: id.into(),
            spec: Some((&draft(evaluations)).into()),
            ..pb::CreateSearchRequest::default()
        };
        self.search().create_search(request).await.unwrap().into_inner().search.unwrap()
    }

    async fn register(&self) -> String {
        let request = wire::register_request("reg-1".into(), &declaration("w"));
        self.worker().register_worker(request).await.unwrap().into_inner().worker_id
    }

    /// Evaluates everything there is.
    async fn work(&self, worker_id: &str) {
        let layout = std::sync::Arc::new(Layout::pixart(BLOCKS).unwrap());
        let mut client = self.worker();
        loop {
            // The search's models may have to think first.
            let wait = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
            let acquire = pb::AcquireLeaseRequest { worker_id: worker_id.into(), wait };
            let Some(lease) = client.acquire_lease(acquire).await.unwrap().into_inner().lease else { return };
            self.complete(worker_id, lease, &layout).await;
        }
    }

    async fn complete(&self, worker_id: &str, lease: pb::Lease, layout: &std::sync::Arc<Layout>) {
        let schedule = wire::schedule(layout, lease.schedule.as_ref().unwrap()).unwrap();
        let complete = pb::CompleteEvaluationRequest {
            request_id: format!("done-{}", lease.candidate),
            worker_id: worker_id.into(),
            lease: Some((&lease).into()),
            measurement: Some((&measure(&schedule)).into()),
        };
        self.worker().complete_evaluation(complete).await.unwrap();
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn a_whole_search_is_launched_watched_and_asked() {
    let server = server().await;
    let search = server.create("toy", 80).await;
    assert_eq!(search.state(), pb::SearchState::Pending);
    assert!(search.end_reason.contains("waits for a worker with model 'toy'"), "{}", search.end_reason);
    let watch = pb::WatchSearchRequest { search_id: "toy".into() };
    let mut watch = server.search().watch_search(watch).await.unwrap().into_inner();
    let worker = server.register().await;
    server.work(&worker).await;

    let mut last = None;
    while let Some(message) = watch.message().await.unwrap() {
        assert!(message.evaluation.as_ref().is_none_or(|e| e.measurement.as_ref().unwrap().thumbnails.is_empty()));
        last = Some(message);
    }
    let last = last.unwrap();
    assert_eq!(last.state(), pb::SearchState::Completed);
    let progress = last.progress.unwrap();
    assert_eq!(progress.evaluations, 80);
    assert!(progress.hypervolume > progress.seeds_hypervolume);

    // All evaluations page by page, each once, in the order in which they finished.
    let (mut token, mut seen, mut pages) = (String::new(), vec![], 0);
    loop {
        let request = pb::ListEvaluationsRequest {
            search_id: "toy".into(),
            page_size: 33,
            page_token: token,
            include_thumbnails: true,
        };
        let page = server.search().list_evaluations(request).await.unwrap().into_inner();
        assert!(page.evaluations.iter().all(|e| e.measurement.as_ref().unwrap().thumbnails.len() == 1));
        seen.extend(page.evaluations.iter().map(|e| e.candidate));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (80, 3));
    assert_eq!(seen, (0..80).collect::<Vec<u64>>());

    let front = pb::GetFrontRequest { search_id: "toy".into(), ..pb::GetFrontRequest::default() };
    let front = server.search().get_front(front).await.unwrap().into_inner();
    assert_eq!(front.evaluations.len() as u32, progress.front_size);
    let ratios: Vec<f64> = front.evaluations.iter().map(|e| e.values["latency_ratio"]).collect();
    assert!(ratios.is_sorted(), "fastest first: {ratios:?}");
    assert_eq!(front.baseline.unwrap().candidate, 0);

    let best = |constraint| pb::GetBestScheduleRequest {
        search_id: "toy".into(),
        constraint: Some(constraint),
        ..pb::GetBestScheduleRequest::default()
    };
    let answer = server.search().get_best_schedule(best(Constraint::MinQualityRatio(0.95))).await.unwrap().into_inner();
    assert!(answer.speedup > 1.0 && answer.quality_ratio.unwrap() >= 0.95, "{answer:?}");
    assert_eq!(answer.quality_metric, "likeness");
    let none = server.search().get_best_schedule(best(Constraint::MinSpeedup(1000.0))).await.unwrap_err();
    assert_eq!((none.code(), reason(&none).as_str()), (Code::NotFound, "NO_SCHEDULE"));
    let nearest = none.get_details_error_info().unwrap().metadata;
    assert!(nearest.contains_key("nearest_candidate") && nearest["wanted"] == "1000", "{nearest:?}");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_code_reason_and_field() {
    let server = server().await;
    let worker = server.register().await;
    server.create("toy", 5).await;
    let mut search = server.search();

    let mut wrong: pb::SearchSpec = (&draft(5)).into();
    wrong.sampling.as_mut().unwrap().steps = vec![0];
    wrong.objectives.pop();
    let request =
        pb::CreateSearchRequest { spec: Some(wrong), validate_only: true, ..pb::CreateSearchRequest::default() };
    let status = search.create_search(request).await.unwrap_err();
    let fields: Vec<String> =
        status.get_details_bad_request().unwrap().field_violations.into_iter().map(|v| v.field).collect();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        fields.contains(&"spec.sampling.steps[0]".into()) && fields.contains(&"spec.objectives".into()),
        "{fields:?}"
    );

    let again = pb::CreateSearchRequest {
        search_id: "toy".into(),
        spec: Some((&draft(5)).into()),
        ..pb::CreateSearchRequest::default()
    };
    let status = search.create_search(again).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "SEARCH_EXISTS"));

    let unknown = pb::GetSearchRequest { search_id: "other".into() };
    let status = search.get_search(unknown).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SEARCH_NOT_FOUND"));
    let malformed = pb::GetSearchRequest { search_id: "No Such".into() };
    assert_eq!(search.get_search(malformed).await.unwrap_err().code(), Code::InvalidArgument);
    let page = pb::ListSearchesRequest { page_token: "7".into(), ..pb::ListSearchesRequest::default() };
    assert_eq!(search.list_searches(page).await.unwrap_err().code(), Code::InvalidArgument);
    let delete = pb::DeleteSearchRequest { search_id: "toy".into(), ..pb::DeleteSearchRequest::default() };
    let status = search.delete_search(delete).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "SEARCH_STATE"));

    let mut other = wire::register_request(String::new(), &declaration("w"));
    other.protocol_version = PROTOCOL_VERSION + 1;
    let status = server.worker().register_worker(other).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "PROTOCOL_VERSION"));
    let stranger = pb::AcquireLeaseRequest { worker_id: "stranger".into(), wait: None };
    let status = server.worker().acquire_lease(stranger).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "WORKER_NOT_FOUND"));

    let acquire = pb::AcquireLeaseRequest { worker_id: worker.clone(), wait: None };
    let lease = server.worker().acquire_lease(acquire).await.unwrap().into_inner().lease.unwrap();
    let forged = pb::CompleteEvaluationRequest {
        request_id: String::new(),
        worker_id: worker.clone(),
        lease: Some(pb::LeaseRef { search_ref: lease.search_ref, candidate: lease.candidate, epoch: lease.epoch + 1 }),
        measurement: Some(pb::Measurement {
            device_time: Some(prost_types::Duration::default()),
            disturbed: 0,
            ..pb::Measurement::default()
        }),
    };
    let status = server.worker().complete_evaluation(forged).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "LEASE_SUPERSEDED"));
}

#[tokio::test]
async fn a_worker_in_another_language_needs_nothing_but_the_contract() {
    // Empty request ids, no cost model, no thumbnails: the least that a foreign worker may send.
    let server = server().await;
    let uid = server.create("toy", 3).await.uid;
    let mut request = wire::register_request(String::new(), &declaration("minimal"));
    request.cost = None;
    let registered = server.worker().register_worker(request).await.unwrap().into_inner();
    assert!(registered.lease_ttl.unwrap().seconds > 0 && registered.max_wait.unwrap().seconds > 0);
    let worker_id = registered.worker_id;
    let search_ref = format!("toy~{uid}");
    let calibration = pb::GetCalibrationRequest { worker_id: worker_id.clone(), search_ref };
    let calibration = server.worker().get_calibration(calibration).await.unwrap().into_inner();
    assert_eq!(calibration.prompts.len(), 3);
    server.work(&worker_id).await;
    let request = pb::GetWorkerRequest { worker_id };
    let worker = server.fleet().get_worker(request).await.unwrap().into_inner().worker.unwrap();
    assert_eq!((worker.completed, worker.state()), (3, pb::WorkerState::Alive));
}

#[tokio::test]
async fn the_state_is_there_after_a_restart_and_the_second_opener_is_refused() {
    let server = server().await;
    server.create("toy", 30).await;
    let worker = server.register().await;
    server.work(&worker).await;
    let get = pb::GetSearchRequest { search_id: "toy".into() };
    let before = server.search().get_search(get.clone()).await.unwrap().into_inner();
    let error = start(options(&server.folder)).await.err().unwrap();
    assert!(error.hint().unwrap().contains("--data"), "{error}");
    server.running.shutdown().await.unwrap();
    let running = start(options(&server.folder)).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", running.local_addr())).unwrap().connect().await.unwrap();
    let after = SearchServiceClient::new(channel).get_search(get).await.unwrap().into_inner();
    // What models say of themselves is not stored.
    let stored = |mut answer: pb::GetSearchResponse| {
        answer.search.iter_mut().filter_map(|s| s.insight.as_mut()).for_each(|insight| insight.models.clear());
        answer
    };
    assert_eq!(stored(after), stored(before));
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn other_addresses_and_ports_in_use_are_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut remote = options(&folder);
    remote.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = start(remote).await.err().unwrap();
    assert!(matches!(error, ServeError::Plaintext(_)) && error.hint().unwrap().contains("127.0.0.1"));
    let server = server().await;
    let mut taken = options(&folder);
    taken.listen = server.running.local_addr();
    let error = start(taken).await.err().unwrap();
    assert!(error.to_string().contains(&server.running.local_addr().to_string()), "{error}");
    assert!(error.hint().unwrap().contains("--listen"));
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tokio_stream::StreamExt;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let server = server().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel.clone());
    let check = tonic_health::pb::HealthCheckRequest { service: "evocache.v1.WorkerService".into() };
    assert_eq!(health.check(check).await.unwrap().into_inner().status, 1);

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(server.channel.clone());
    let mut stream = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(services)) = stream.next().await.unwrap().unwrap().message_response
    else {
        panic!()
    };
    let names: Vec<String> = services.service.into_iter().map(|s| s.name).collect();
    for name in ["evocache.v1.SearchService", "evocache.v1.WorkerService", "evocache.v1.FleetService"] {
        assert!(names.contains(&name.to_owned()), "{name} is not among {names:?}");
    }
}

#[tokio::test]
async fn stopping_ends_long_polls_and_watches_in_time() {
    let server = server().await;
    server.create("toy", 1).await;
    let worker_id = server.register().await;
    server.work(&worker_id).await;
    server.create("waiting", 1).await;
    let drain = pb::StopSearchRequest { search_id: "waiting".into(), ..pb::StopSearchRequest::default() };
    server.search().stop_search(drain).await.unwrap();
    let mut client = server.worker();
    let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let poll = async move { client.acquire_lease(pb::AcquireLeaseRequest { worker_id, wait }).await };
    let running = server.running;
    let (answer, ()) = tokio::join!(poll, async {
        tokio::task::yield_now().await;
        running.shutdown().await.unwrap();
    });
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

/// Its watchers are never told of the search that has its id now.
#[tokio::test]
async fn a_watch_ends_with_its_search_though_the_id_is_used_again() {
    let server = server().await;
    let name = || "toy".to_owned();
    for round in 0..20 {
        server.create("toy", 5).await;
        let mut watch =
            server.search().watch_search(pb::WatchSearchRequest { search_id: name() }).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().state(), pb::SearchState::Pending);
        let stop = pb::StopSearchRequest { search_id: name(), request_id: format!("stop-{round}") };
        server.search().stop_search(stop).await.unwrap();
        let delete = pb::DeleteSearchRequest { search_id: name(), request_id: format!("delete-{round}") };
        server.search().delete_search(delete).await.unwrap();
        server.create("toy", 5).await;
        // Told that it was stopped, or, where the watch came too late for that, that it is gone.
        match watch.message().await {
            Ok(Some(message)) => {
                assert_eq!(message.state(), pb::SearchState::Stopped, "round {round}");
                assert!(watch.message().await.unwrap().is_none(), "round {round}");
            }
            Ok(None) => panic!("round {round}: it ended without a word"),
            Err(gone) => assert_eq!(gone.code(), Code::NotFound, "round {round}: {gone}"),
        }
        let stop = pb::StopSearchRequest { search_id: name(), request_id: format!("again-{round}") };
        server.search().stop_search(stop).await.unwrap();
        let delete = pb::DeleteSearchRequest { search_id: name(), request_id: format!("gone-{round}") };
        server.search().delete_search(delete).await.unwrap();
    }
}

/// The last watcher leaves in the moment in which another comes. On two threads, since both do so at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_begins_as_another_ends_goes_on() {
    let server = server().await;
    server.create("toy", 5).await;
    let watch = || async {
        let request = pb::WatchSearchRequest { search_id: "toy".into() };
        let mut watch = server.search().watch_search(request).await.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        watch
    };
    let mut last = watch().await;
    for round in 0..200 {
        drop(last);
        last = watch().await;
        let pause = pb::PauseSearchRequest { search_id: "toy".into(), request_id: format!("pause-{round}") };
        server.search().pause_search(pause).await.unwrap();
        let told = last.message().await.unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(told.unwrap().state(), pb::SearchState::Paused, "round {round}");
        let resume = pb::ResumeSearchRequest { search_id: "toy".into(), request_id: format!("resume-{round}") };
        server.search().resume_search(resume).await.unwrap();
        last.message().await.unwrap().unwrap();
    }
}

/// The first connection ends under the call; the second one reaches the coordinator.
#[tokio::test]
async fn a_call_whose_connection_ends_under_it_is_made_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    server.create("toy", 5).await;
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, behind) = (format!("http://{}", door.local_addr().unwrap()), server.running.local_addr());
    let between = async move {
        let (mut first, _) = door.accept().await.unwrap();
        // The settings of HTTP/2, none. The preface, the client's settings and the call's head are more than this.
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut heard = vec![0; 150];
        first.read_exact(&mut heard).await.unwrap();
        drop(first);
        let (mut second, _) = door.accept().await.unwrap();
        let mut coordinator = tokio::net::TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut second, &mut coordinator).await;
    };
    let call = async move {
        let client = evocache::client::Client::connect(&url).await.unwrap();
        assert_eq!(client.search(&"toy".parse().unwrap()).await.unwrap().id.as_str(), "toy");
    };
    tokio::join!(between, call);
}

#[tokio::test]
async fn there_is_an_answer_before_the_uncached_run_is_measured() {
    let server = server().await;
    server.create("toy", 5).await;
    let layout = std::sync::Arc::new(Layout::pixart(BLOCKS).unwrap());
    let worker = server.register().await;
    let mut leases = vec![];
    for _ in 0..2 {
        let acquire = pb::AcquireLeaseRequest { worker_id: worker.clone(), wait: None };
        leases.extend(server.worker().acquire_lease(acquire).await.unwrap().into_inner().lease);
    }
    assert_eq!(leases.iter().map(|lease| lease.candidate).collect::<Vec<_>>(), [0, 1]);
    server.complete(&worker, leases.remove(1), &layout).await;
    let client = evocache::client::Client::connect(&format!("http://{}", server.running.local_addr())).await.unwrap();
    let id = "toy".parse().unwrap();
    let best = client.best(&id, Question::new(vec![], Preference::Fastest), false).await.unwrap();
    assert_eq!((best.evaluation.candidate.0, best.baseline), (1, None));
    assert!(best.speedup > 0.0 && !best.references.is_empty(), "each result has its own uncached batches");
    assert_eq!(client.front(&id, false).await.unwrap().baseline, None);
}
