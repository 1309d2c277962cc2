//! Real processes that die: SIGKILL of the coordinator and of a worker in the middle of a search on the bundled model.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evocache_proto::domain::{
    Algorithm, Budget, Direction, MeasurementPlan, ModelRef, Objective, Prompt, Sampling, SpecDraft,
};
use evocache_proto::pb;
use evocache_proto::pb::fleet_service_client::FleetServiceClient;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use tonic::Streaming;
use tonic::transport::Channel;

const EVALUATIONS: u64 = 24;

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a coordinator and returns when it listens; port 0 takes a free one.
fn coordinator(data: &Path, port: u16) -> (Process, u16) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_evocache"))
        .args(["--json", "serve", "--lease-ttl", "3s", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let url = told["url"].as_str().unwrap_or_else(|| panic!("no url in {line}"));
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    (Process(child), port)
}

fn worker(port: u16, name: &str) -> Process {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worker/models/emoji");
    let child = Command::new(env!("CARGO_BIN_EXE_evocache"))
        .args(["worker-process", "--coordinator", &format!("http://127.0.0.1:{port}"), "--name", name])
        .args(["--threads", "1", "--model-name", "emoji", "--model"])
        .arg(model)
        // Held open: the end of its stdin tells such a worker that its parent is gone.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

fn spec() -> SpecDraft {
    SpecDraft {
        model: ModelRef { name: "emoji".into(), fingerprint: None },
        sampling: Sampling {
            steps: vec![4, 3],
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        guidance_decisions: false,
        prompts: (0..2).map(|seed| Prompt { text: "an owl on a white background".into(), seed }).collect(),
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
        objectives: vec![
            Objective { metric: "latency_ratio".into(), direction: Direction::Minimize, bound: None },
            Objective { metric: "clip_score".into(), direction: Direction::Maximize, bound: None },
        ],
        budget: Budget { evaluations: Some(EVALUATIONS), ..Budget::default() },
        algorithm: Algorithm::default(),
        seed: 1,
        labels: BTreeMap::new(),
        placement: Default::default(),
        imported: vec![],
    }
}

async fn connect(port: u16) -> Channel {
    Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap()
}

async fn create(channel: &Channel) {
    let request = pb::CreateSearchRequest {
        request_id: "create".into(),
        search_id: "s".into(),
        spec: Some((&spec()).into()),
        ..pb::CreateSearchRequest::default()
    };
    SearchServiceClient::new(channel.clone()).create_search(request).await.unwrap();
}

async fn watch(channel: &Channel) -> Streaming<pb::WatchSearchResponse> {
    let request = pb::WatchSearchRequest { search_id: "s".into() };
    SearchServiceClient::new(channel.clone()).watch_search(request).await.unwrap().into_inner()
}

/// A test that waits this long for a single change waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns at the first message for which this holds; the stream ends with the search.
async fn until(
    stream: &mut Streaming<pb::WatchSearchResponse>,
    mut holds: impl FnMut(&pb::WatchSearchResponse) -> bool,
) {
    loop {
        match tokio::time::timeout(PATIENCE, stream.message()).await {
            Ok(Ok(Some(message))) if holds(&message) => return,
            Ok(Ok(Some(_))) => {}
            other => panic!("the search did not get there: {other:?}"),
        }
    }
}

async fn evaluations(channel: &Channel) -> Vec<pb::Evaluation> {
    let request =
        pb::ListEvaluationsRequest { search_id: "s".into(), page_size: 1000, ..pb::ListEvaluationsRequest::default() };
    SearchServiceClient::new(channel.clone()).list_evaluations(request).await.unwrap().into_inner().evaluations
}

async fn finish(channel: &Channel) -> pb::Progress {
    let mut stream = watch(channel).await;
    until(&mut stream, |m| m.state() == pb::SearchState::Completed).await;
    let request = pb::GetSearchRequest { search_id: "s".into() };
    let search = SearchServiceClient::new(channel.clone()).get_search(request).await.unwrap().into_inner().search;
    search.unwrap().progress.unwrap()
}

#[tokio::test]
async fn a_killed_coordinator_loses_nothing_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, port) = coordinator(folder.path(), 0);
    let channel = connect(port).await;
    create(&channel).await;
    let _workers = [worker(port, "a"), worker(port, "b")];
    let mut acknowledged = vec![];
    let mut stream = watch(&channel).await;
    until(&mut stream, |message| {
        acknowledged.extend(message.evaluation.as_ref().map(|e| e.candidate));
        acknowledged.len() >= 8
    })
    .await;
    first.kill();
    drop(channel);

    let (_second, _) = coordinator(folder.path(), port);
    let channel = connect(port).await;
    let progress = finish(&channel).await;
    let evaluations = evaluations(&channel).await;
    let mut candidates: Vec<u64> = evaluations.iter().map(|e| e.candidate).collect();
    for candidate in acknowledged {
        assert!(candidates.contains(&candidate), "candidate {candidate} was acknowledged and is lost");
    }
    candidates.sort_unstable();
    assert_eq!(candidates, (0..EVALUATIONS).collect::<Vec<_>>(), "every candidate is accounted for once");
    // But for members of the front, which are measured again on purpose.
    let new = evaluations.into_iter().filter(|e| e.provenance.as_ref().unwrap().operator != "remeasure");
    let mut schedules: Vec<String> = new.map(|e| e.schedule.unwrap().schedule_id).collect();
    let proposed = schedules.len();
    schedules.sort_unstable();
    schedules.dedup();
    assert!(schedules.len() == proposed && proposed > 16, "a schedule was proposed twice: {proposed} {schedules:#?}");
    assert_eq!((progress.evaluations, progress.failed, progress.running), (EVALUATIONS, 0, 0));
}

#[tokio::test]
async fn a_killed_workers_candidate_is_evaluated_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let (_coordinator, port) = coordinator(folder.path(), 0);
    let channel = connect(port).await;
    create(&channel).await;
    // Killed after its first result, a worker holds the next candidate, unless it dies in the moment between the two.
    let held = loop {
        let mut doomed = worker(port, "doomed");
        let mut stream = watch(&channel).await;
        until(&mut stream, |message| message.evaluation.is_some()).await;
        doomed.kill();
        let request = pb::ListWorkersRequest::default();
        let mut fleet = FleetServiceClient::new(channel.clone());
        let workers = fleet.list_workers(request).await.unwrap().into_inner().workers;
        if let Some(lease) = workers.iter().flat_map(|w| &w.leases).next() {
            break lease.candidate;
        }
    };
    let _heir = worker(port, "heir");
    let progress = finish(&channel).await;
    assert_eq!((progress.evaluations, progress.failed), (EVALUATIONS, 0));
    let evaluations = evaluations(&channel).await;
    let inherited = evaluations.iter().find(|e| e.candidate == held).unwrap();
    assert_eq!((inherited.worker_name.as_str(), inherited.attempt), ("heir", 2));
}
