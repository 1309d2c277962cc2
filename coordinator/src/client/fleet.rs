//! Calls about workers.

use evocache_proto::domain::WorkerId;
use evocache_proto::pb;

use super::connection::Client;
use super::error::ClientError;
use super::ids::new_request_id;
use super::model::worker::Worker;
use super::paging::all_pages;
use super::read::{self, required};

impl Client {
    /// All workers, in the order of their ids.
    pub async fn workers(&self) -> Result<Vec<Worker>, ClientError> {
        const CALL: &str = "ListWorkers";
        let messages = all_pages(CALL, async |page_token| {
            let request = pb::ListWorkersRequest { page_size: 1000, page_token };
            let answer = self.call(CALL, &request, async |stubs, r| stubs.fleet.list_workers(r).await).await?;
            Ok((answer.workers, answer.next_page_token))
        });
        messages.await?.iter().map(|m| read::worker(CALL, m)).collect()
    }

    /// Drains a worker: it finishes its leases and gets no more.
    pub async fn drain_worker(&self, id: &WorkerId) -> Result<Worker, ClientError> {
        const CALL: &str = "DrainWorker";
        let request = pb::DrainWorkerRequest { request_id: new_request_id().to_string(), worker_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.fleet.drain_worker(r).await).await?;
        read::worker(CALL, &required(CALL, "worker", answer.worker)?)
    }
}
