//! A server that follows a search of a coordinator whose answers come from the test, over real gRPC.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evocache_proto::domain::{Decision, Layout, Schedule};
use evocache_proto::pb::search_service_server::{SearchService, SearchServiceServer};
use evocache_proto::{formats, pb};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, async_trait};

use crate::generated;
use crate::server::{Answer, PATIENCE, Server};

/// The search as the test has it at this moment.
#[derive(Clone, Default)]
struct Search(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    best: Option<Schedule>,
    watchers: Vec<mpsc::Sender<Result<pb::WatchSearchResponse, Status>>>,
}

impl Search {
    /// Another schedule is the best, and the watchers are told.
    fn finds(&self, best: &Schedule) {
        let mut state = self.0.lock().unwrap();
        state.best = Some(best.clone());
        state.watchers.retain(|watcher| watcher.try_send(Ok(pb::WatchSearchResponse::default())).is_ok());
    }

    /// Serves until the runtime is dropped.
    fn serve(&self, address: SocketAddr) -> Runtime {
        let runtime = Runtime::new().unwrap();
        let serve = tonic::transport::Server::builder().add_service(SearchServiceServer::new(self.clone()));
        runtime.spawn(serve.serve(address));
        runtime
    }
}

macro_rules! unused {
    ($($name:ident, $request:ident, $response:ident;)*) => {
        #[async_trait]
        impl SearchService for Search {
            type WatchSearchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchSearchResponse, Status>> + Send>>;

            async fn watch_search(
                &self,
                request: Request<pb::WatchSearchRequest>,
            ) -> Result<Response<Self::WatchSearchStream>, Status> {
                assert_eq!(request.into_inner().search_id, "found");
                let (tell, told) = mpsc::channel(8);
                tell.try_send(Ok(pb::WatchSearchResponse::default())).unwrap();
                self.0.lock().unwrap().watchers.push(tell);
                Ok(Response::new(Box::pin(ReceiverStream::new(told))))
            }

            async fn get_search(
                &self,
                _: Request<pb::GetSearchRequest>,
            ) -> Result<Response<pb::GetSearchResponse>, Status> {
                let sampling = pb::Sampling { steps: vec![6], guidance_scale: 3.0, ..Default::default() };
                let spec = pb::SearchSpec {
                    model: Some(pb::ModelRef { name: "emoji".into(), fingerprint: None }),
                    sampling: Some(sampling),
                    measurement: Some(pb::MeasurementPlan::default()),
                    budget: Some(pb::Budget::default()),
                    ..Default::default()
                };
                let search = pb::Search { spec: Some(spec), ..Default::default() };
                Ok(Response::new(pb::GetSearchResponse { search: Some(search) }))
            }

            async fn get_best_schedule(
                &self,
                request: Request<pb::GetBestScheduleRequest>,
            ) -> Result<Response<pb::GetBestScheduleResponse>, Status> {
                let wanted = pb::get_best_schedule_request::Constraint::MinQualityRatio(0.97);
                assert_eq!(request.into_inner().constraint, Some(wanted));
                let best = self.0.lock().unwrap().best.clone();
                let best = best.ok_or_else(|| Status::failed_precondition("nothing is measured yet"))?;
                let score = pb::MetricValues { name: "clip_score".into(), values: vec![0.25, 0.35], baseline_mean: 0.31 };
                let measurement = pb::Measurement { metrics: vec![score], ..Default::default() };
                let schedule = Some((&best).into());
                let evaluation = pb::Evaluation { schedule, measurement: Some(measurement), ..Default::default() };
                Ok(Response::new(pb::GetBestScheduleResponse {
                    evaluation: Some(evaluation),
                    layout: Some((&**best.layout()).into()),
                    speedup: 1.5,
                    quality_ratio: Some(0.9677),
                    quality_metric: "clip_score".into(),
                    ..Default::default()
                }))
            }

            $(async fn $name(&self, _: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("not asked here"))
            })*
        }
    };
}

unused! {
    create_search, CreateSearchRequest, CreateSearchResponse;
    list_searches, ListSearchesRequest, ListSearchesResponse;
    pause_search, PauseSearchRequest, PauseSearchResponse;
    resume_search, ResumeSearchRequest, ResumeSearchResponse;
    extend_search, ExtendSearchRequest, ExtendSearchResponse;
    stop_search, StopSearchRequest, StopSearchResponse;
    delete_search, DeleteSearchRequest, DeleteSearchResponse;
    list_evaluations, ListEvaluationsRequest, ListEvaluationsResponse;
    get_front, GetFrontRequest, GetFrontResponse;
}

fn ask(server: &Server) -> Answer {
    server.ask(&json!({ "prompt": "an owl", "seed": 1 }))
}

/// Asks until the answer is of this schedule.
fn switches(server: &Server, schedule: &Schedule) -> Answer {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let answer = ask(server);
        if answer.header("x-evocache-schedule") == Some(&schedule.id().to_string()) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it never switches: {}", server.log());
}

#[test]
fn a_server_runs_the_best_schedule_of_a_search_and_goes_on_without_its_coordinator() {
    let layout = Arc::new(Layout::pixart(12).unwrap());
    let every = |period: u32| {
        let decide = |step, _| if step % period == 0 { Decision::Compute } else { Decision::Reuse };
        Schedule::from_fn(layout.clone(), 6, decide).unwrap()
    };
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let coordinator = format!("http://{address}");
    let follow = ["--coordinator", &coordinator, "--search", "found", "--min-quality-ratio", "97%", "--steps", "6"];
    let server = Server::start(&follow);
    assert_eq!(ask(&server).header("x-evocache-why"), Some("uncached: the server has no schedule"));

    let search = Search::default();
    let running = search.serve(address);
    let (first, second) = (every(2), every(3));
    search.finds(&first);
    let answer = switches(&server, &first);
    assert!(server.log().contains("no answer from"), "{}", server.log());
    assert_eq!(answer.header("x-evocache-speedup"), Some("1.500"));
    let quality = "clip_score=0.3000;error=0.0500;uncached=0.3100;kept=0.9677";
    assert_eq!(answer.header("x-evocache-quality"), Some(quality));
    assert_eq!(answer.header("x-evocache-why"), Some("best of search found that keeps 0.97 of the quality"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("first.json");
    std::fs::write(&file, formats::write_own(&first, None)).unwrap();
    let owl = ["--prompt", "an owl", "--seed", "1", "--guidance", "3", "--schedule", file.to_str().unwrap()];
    assert!(answer.png(0) == generated(&owl));

    search.finds(&second);
    switches(&server, &second);
    drop(running);
    assert_eq!(ask(&server).header("x-evocache-schedule"), Some(&*second.id().to_string()));
}
