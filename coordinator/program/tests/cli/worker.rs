//! A worker that measures nothing: what it reports follows from the schedule and the number of the prompt alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evocache_proto::domain::{
    Declaration, Direction, Layout, Measurement, MetricDeclaration, MetricValues, Schedule, SearchRef,
};
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tonic::transport::Channel;

/// Works until the search has ended; returns how many evaluations it has made.
pub(crate) fn work(url: &str, search: &str) -> u32 {
    work_as(url, search, &declaration())
}

/// The same under another declaration, which keeps layout and metric.
pub(crate) fn work_as(url: &str, search: &str, declaration: &Declaration) -> u32 {
    block_on(run(url.to_owned(), search, declaration))
}

/// Registers and gives up the first candidates of a search, until it has failed.
pub(crate) fn give_up(url: &str, search: &str, declaration: &Declaration, reason: &str) {
    block_on(async {
        let (mut stub, worker_id) = register(url.to_owned(), declaration).await;
        for done in 0.. {
            let wait = prost_types::Duration::try_from(Duration::from_millis(200)).ok();
            let request = pb::AcquireLeaseRequest { worker_id: worker_id.clone(), wait };
            let Some(lease) = stub.acquire_lease(request).await.unwrap().into_inner().lease else { return };
            let request = pb::FailEvaluationRequest {
                request_id: format!("fail-{search}-{done}"),
                worker_id: worker_id.clone(),
                lease: Some((&lease).into()),
                reason: reason.to_owned(),
                retryable: false,
            };
            stub.fail_evaluation(request).await.unwrap();
        }
    });
}

/// What the worker says of itself.
pub(crate) fn declaration() -> Declaration {
    Declaration {
        name: "scripted/0".into(),
        device: "none".into(),
        software: "test 1".into(),
        model: "scripted".into(),
        fingerprint: "f".into(),
        layout: Layout::pixart(3).unwrap(),
        forecast: false,
        guidance_decisions: false,
        profiles: false,
        grids: false,
        memory_bytes: 0,
        labels: Default::default(),
        metrics: vec![MetricDeclaration {
            name: "clip_score".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "not measured".into(),
        }],
        cost: None,
    }
}

/// Registers, and says no more.
pub(crate) fn appear(url: &str, declaration: &Declaration) -> String {
    block_on(register(url.to_owned(), declaration)).1
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn register(url: String, declaration: &Declaration) -> (WorkerServiceClient<Channel>, String) {
    let mut stub = WorkerServiceClient::connect(url).await.unwrap();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let request = wire::register_request(format!("register-{number}"), declaration);
    let worker_id = stub.register_worker(request).await.unwrap().into_inner().worker_id;
    (stub, worker_id)
}

async fn run(url: String, search: &str, declaration: &Declaration) -> u32 {
    let (mut stub, worker_id) = register(url.clone(), declaration).await;
    let mut searches = pb::search_service_client::SearchServiceClient::connect(url).await.unwrap();
    let layout = Arc::new(declaration.layout.clone());
    for done in 0.. {
        let wait = prost_types::Duration::try_from(Duration::from_millis(200)).ok();
        let request = pb::AcquireLeaseRequest { worker_id: worker_id.clone(), wait };
        let Some(lease) = stub.acquire_lease(request).await.unwrap().into_inner().lease else {
            let request = pb::GetSearchRequest { search_id: search.to_owned() };
            let state = searches.get_search(request).await.unwrap().into_inner().search.unwrap().state;
            assert_eq!(state, i32::from(pb::SearchState::Completed), "no work, and yet not at its end");
            return done;
        };
        let schedule = wire::schedule(&layout, lease.schedule.as_ref().unwrap()).unwrap();
        let request = pb::GetSearchRequest { search_id: named(&lease.search_ref) };
        let spec = searches.get_search(request).await.unwrap().into_inner().search.unwrap().spec.unwrap();
        let prompts = if lease.prompts == 0 { spec.prompts.len() } else { lease.prompts as usize };
        let measurement = measure(&schedule, prompts);
        let request = pb::CompleteEvaluationRequest {
            request_id: format!("complete-{search}-{done}"),
            worker_id: worker_id.clone(),
            lease: Some((&lease).into()),
            measurement: Some((&measurement).into()),
        };
        stub.complete_evaluation(request).await.unwrap();
    }
    unreachable!("a search has a budget")
}

/// The id in a name for good.
fn named(search_ref: &str) -> String {
    search_ref.parse::<SearchRef>().unwrap().id.to_string()
}

/// Time goes with what is computed; quality falls with the square of what is not, with every prompt a little more.
fn measure(schedule: &Schedule, prompts: usize) -> Measurement {
    let all = 10 * schedule.slots();
    let computed = schedule.computed() as f64 / all as f64;
    let lost = schedule.cache_hit_rate() * 0.5 + (10.0 - f64::from(schedule.steps())) * 0.02;
    let latency = 1e4 * (0.1 + 0.9 * computed);
    let quality = |prompt: usize| 0.9 * (1.0 - (0.3 + 0.02 * prompt as f64) * lost * lost);
    let shade = (255.0 * (1.0 - lost)) as u8;
    Measurement {
        metrics: vec![MetricValues {
            name: "clip_score".into(),
            values: (0..prompts).map(quality).collect(),
            baseline_mean: 0.9,
        }],
        latency_us: vec![latency * 0.99, latency, latency * 1.01],
        baseline_latency_us: vec![1e4; 3],
        macs: (1e6 * computed) as u64 + 1,
        baseline_macs: 1_000_001,
        peak_cache_bytes: 1000 * (all - schedule.computed()) as u64,
        device_time: Duration::from_millis(30),
        disturbed: 0,
        thumbnails: vec![picture([shade, 80, 120]), picture([80, shade, 120])],
        profile: None,
    }
}

fn picture(color: [u8; 3]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&color.repeat(256)).unwrap();
    writer.finish().unwrap();
    bytes
}
