//! Idle workers, which wait for work on a connection each; and one worker that measures when the first lease comes.

use std::sync::Arc;

use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::crew::{AGAIN, WAIT, connect, passes, refused};
use super::plan::Plan;
use crate::cli::kit::exit::Failure;
use crate::client::new_request_id;

/// Workers that connect at a time: more would overflow the listener's backlog.
const CONNECTING: usize = 64;

/// Workers that wait for work that never comes.
pub(super) struct Idle(JoinSet<Result<(), Failure>>);

impl Idle {
    /// Starts the workers; returns when all of them wait.
    pub(super) async fn start(plan: &Plan, url: &str) -> Result<Self, Failure> {
        let mut declaration = plan.declaration.clone();
        declaration.model.push_str("-idle");
        declaration.fingerprint.push_str("-idle");
        let (mut starting, mut tasks) = (JoinSet::new(), JoinSet::new());
        let places = Arc::new(Semaphore::new(CONNECTING));
        for number in 0..plan.idle {
            declaration.name = format!("idle/{number}");
            let request = wire::register_request(new_request_id().to_string(), &declaration);
            let (url, places) = (url.to_owned(), places.clone());
            starting.spawn(async move {
                let _place = places.acquire_owned().await;
                let mut stub = connect(&url).await?;
                let id = stub.register_worker(request).await.map_err(|status| refused(number, &status))?;
                Ok::<_, Failure>((stub, id.into_inner().worker_id))
            });
        }
        while let Some(started) = starting.join_next().await {
            let (stub, id) = started.map_err(|e| Failure::new(format!("an idle worker failed: {e}")))??;
            tasks.spawn(wait(stub, id));
        }
        Ok(Self(tasks))
    }

    /// The number of workers that still wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns when one of them fails or gets work.
    pub(super) async fn lost(&mut self) -> Failure {
        match self.0.join_next().await {
            Some(Ok(Err(failure))) => failure,
            Some(Ok(Ok(()))) => Failure::new("an idle worker got work"),
            Some(Err(e)) => Failure::new(format!("an idle worker failed: {e}")),
            None => std::future::pending().await,
        }
    }
}

async fn wait(mut stub: WorkerServiceClient<Channel>, id: String) -> Result<(), Failure> {
    loop {
        let request = pb::AcquireLeaseRequest { worker_id: id.clone(), wait: Some(WAIT) };
        match stub.acquire_lease(request).await {
            Ok(answer) if answer.get_ref().lease.is_some() => return Ok(()),
            Ok(_) => {}
            Err(status) if passes(&status) => sleep(AGAIN).await,
            Err(status) => return Err(Failure::new(format!("idle worker {id}: {status}"))),
        }
    }
}

/// Returns when a new worker has a lease of the search.
pub(super) async fn first_lease(plan: &Plan, url: &str) -> Result<(), Failure> {
    let mut stub = connect(url).await?;
    let mut declaration = plan.declaration.clone();
    declaration.name = "simulated/after".into();
    let request = wire::register_request(new_request_id().to_string(), &declaration);
    let id = stub.register_worker(request).await.map_err(|status| refused(0, &status))?.into_inner().worker_id;
    let request = pb::AcquireLeaseRequest { worker_id: id, wait: Some(WAIT) };
    let answer = stub.acquire_lease(request).await.map_err(|status| refused(0, &status))?;
    answer.into_inner().lease.map(drop).ok_or_else(|| Failure::new("no lease was granted after the restart"))
}
