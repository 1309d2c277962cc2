//! FleetService.

use evocache_proto::domain::WorkerId;
use evocache_proto::pb;
use evocache_proto::pb::fleet_service_server::FleetService;
use tonic::{Code, Request, Response, Status};

use super::services::{Services, request};
use super::{encode, page};
use crate::engine::{Command, Refusal, State};
use crate::server::gate::Caller;
use crate::server::{limits, status};

pub(super) struct Fleet(pub(super) Services);

impl Fleet {
    async fn worker(&self, id: WorkerId) -> Result<pb::Worker, Status> {
        let ttl = self.0.lease_ttl;
        let question = move |state: &State, now| match state.workers.get(&id) {
            Some(worker) => Ok(encode::worker(state, &id, worker, now, ttl)),
            None => Err(Refusal::NoWorker(id)),
        };
        self.0.engine.query(question).await.and_then(|found| found).map_err(status::refusal)
    }
}

fn worker_id(text: String) -> Result<WorkerId, Status> {
    WorkerId::new(text).map_err(|e| status::invalid("worker_id", e))
}

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_workers(
        &self,
        message: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        let message = message.into_inner();
        let list = page::List::of_workers();
        let from = list.position(&message.page_token)?;
        let rows = limits::WORKERS.rows(message.page_size);
        let ttl = self.0.lease_ttl;
        let question = move |state: &State, now| {
            let rows = state.workers.iter().skip(from).take(rows);
            let workers = page::Page::of(rows.map(|(id, worker)| encode::worker(state, id, worker, now, ttl)));
            let next_page_token = list.token(from + workers.len(), state.workers.len());
            pb::ListWorkersResponse { workers, next_page_token }
        };
        self.0.engine.query(question).await.map(Response::new).map_err(status::refusal)
    }

    async fn get_worker(
        &self,
        message: Request<pb::GetWorkerRequest>,
    ) -> Result<Response<pb::GetWorkerResponse>, Status> {
        let worker = self.worker(worker_id(message.into_inner().worker_id)?).await?;
        Ok(Response::new(pb::GetWorkerResponse { worker: Some(worker) }))
    }

    async fn drain_worker(
        &self,
        message: Request<pb::DrainWorkerRequest>,
    ) -> Result<Response<pb::DrainWorkerResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let request = request(&message.request_id, &message)?;
        let worker = worker_id(message.worker_id)?;
        caller.about(&worker);
        let before = self.worker(worker.clone()).await.unwrap_or_default();
        let command = Command::Drain { worker: worker.clone() };
        self.0.engine.command(request, command).await.map_err(status::refusal)?;
        tracing::info!(%worker, "worker draining");
        let drained = match self.worker(worker.clone()).await {
            // The worker had nothing to finish and has deregistered.
            Err(status) if status.code() == Code::NotFound => pb::Worker {
                worker_id: worker.to_string(),
                state: pb::WorkerState::Draining.into(),
                leases: vec![],
                idle_reason: String::new(),
                ..before
            },
            found => found?,
        };
        Ok(Response::new(pb::DrainWorkerResponse { worker: Some(drained) }))
    }
}
