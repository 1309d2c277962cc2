//! The typed client: domain types in, domain types out, one method per call of the contract.
//!
//! Every call has a deadline. Reads are repeated while the coordinator is unavailable; so are calls that change
//! something, because each carries a request id made once, and the coordinator answers a repeat with its first answer.
//!
//! Absent on purpose: anything about terminals, files or formats. Messages (`pb`) do not leave this module.

mod backup;
mod channel;
mod error;
mod foreign;
mod ids;
mod model;
mod paging;
mod question;
mod read;
mod retry;
mod watch;

use std::time::Duration;

use evocache_proto::domain::{Budget, SearchId, SearchSpec, WorkerId};
use evocache_proto::pb;

pub use backup::{Backup, BackupPiece};
pub use channel::ConnectOptions;
pub(crate) use error::is_unanswered;
pub use error::{ClientError, ErrorKind, Refusal, Violation};
pub use foreign::Foreign;
pub use ids::{new_request_id, new_token};
pub use model::{
    Best, Estimate, Evaluation, EvaluationNote, Front, Insight, LeaseNote, ModelFacts, ModelRecord, OperatorShare,
    Progress, Reference, Search, SearchState, WatchEvent, Worker, WorkerState, rfc3339,
};
pub use question::{Constraint, Operator, Preference, Question};
pub use retry::RetryPolicy;
pub use watch::Watch;

use channel::Stubs;
use paging::all_pages;

const CREATE: &str = "CreateSearch";

/// How often a front is read anew that has changed while it was read.
const FRONT_ATTEMPTS: usize = 9;

/// A connection to one coordinator. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    stubs: Stubs,
    url: String,
    deadline: Duration,
    retry: RetryPolicy,
}

/// The part of an answer that must be there.
fn required<T>(call: &'static str, field: &'static str, value: Option<T>) -> Result<T, ClientError> {
    value.ok_or_else(|| ClientError::Malformed { call, problem: format!("'{field}' is missing") })
}

impl Client {
    /// Connects with the default options.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        Self::connect_with(url, ConnectOptions::default()).await
    }

    /// Connects; fails at once if nobody listens.
    pub async fn connect_with(url: &str, options: ConnectOptions) -> Result<Self, ClientError> {
        let (stubs, url) = channel::connect(url, &options).await?;
        Ok(Self { stubs, url, deadline: options.deadline, retry: options.retry })
    }

    /// The coordinator's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates a search. `None` as id: the coordinator makes one.
    pub async fn create_search(&self, id: Option<&SearchId>, spec: &SearchSpec) -> Result<Search, ClientError> {
        self.create_search_from(id, spec, &[]).await
    }

    /// Creates a search that begins with the fronts of others.
    pub async fn create_search_from(
        &self,
        id: Option<&SearchId>,
        spec: &SearchSpec,
        start_from: &[SearchId],
    ) -> Result<Search, ClientError> {
        let answer = self.create(id, spec, start_from, false).await?;
        read::search(CREATE, &required(CREATE, "search", answer.search)?)
    }

    /// Has the coordinator check a specification without creating anything.
    pub async fn validate_search(
        &self,
        id: Option<&SearchId>,
        spec: &SearchSpec,
        start_from: &[SearchId],
    ) -> Result<(), ClientError> {
        // The answer describes a search that does not exist; that there is one is all there is to know.
        self.create(id, spec, start_from, true).await.map(drop)
    }

    async fn create(
        &self,
        id: Option<&SearchId>,
        spec: &SearchSpec,
        start_from: &[SearchId],
        validate_only: bool,
    ) -> Result<pb::CreateSearchResponse, ClientError> {
        let request = pb::CreateSearchRequest {
            request_id: new_request_id().to_string(),
            search_id: id.map(ToString::to_string).unwrap_or_default(),
            spec: Some(spec.into()),
            validate_only,
            start_from: start_from.iter().map(ToString::to_string).collect(),
        };
        self.call(CREATE, &request, async |stubs, r| stubs.search.create_search(r).await).await
    }

    /// One search with its whole specification.
    pub async fn search(&self, id: &SearchId) -> Result<Search, ClientError> {
        const CALL: &str = "GetSearch";
        let request = pb::GetSearchRequest { search_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.get_search(r).await).await?;
        read::search(CALL, &required(CALL, "search", answer.search)?)
    }

    /// All searches, newest first, without their prompts and imported schedules.
    pub async fn searches(&self) -> Result<Vec<Search>, ClientError> {
        const CALL: &str = "ListSearches";
        let messages = all_pages(CALL, async |page_token| {
            let request = pb::ListSearchesRequest { page_size: 0, page_token };
            let answer = self.call(CALL, &request, async |stubs, r| stubs.search.list_searches(r).await).await?;
            Ok((answer.searches, answer.next_page_token))
        });
        messages.await?.iter().map(|m| read::search(CALL, m)).collect()
    }

    /// Hands out no more candidates until the search is resumed.
    pub async fn pause_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        const CALL: &str = "PauseSearch";
        let request = pb::PauseSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.pause_search(r).await).await?;
        read::search(CALL, &required(CALL, "search", answer.search)?)
    }

    /// Goes on with a paused search.
    pub async fn resume_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        const CALL: &str = "ResumeSearch";
        let request = pb::ResumeSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.resume_search(r).await).await?;
        read::search(CALL, &required(CALL, "search", answer.search)?)
    }

    /// Raises limits of a search; those that are absent stay. One that has completed runs on.
    pub async fn extend_search(&self, id: &SearchId, budget: &Budget) -> Result<Search, ClientError> {
        const CALL: &str = "ExtendSearch";
        let request = pb::ExtendSearchRequest {
            request_id: new_request_id().to_string(),
            search_id: id.to_string(),
            budget: Some(budget.into()),
        };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.extend_search(r).await).await?;
        read::search(CALL, &required(CALL, "search", answer.search)?)
    }

    /// Ends a search for good; results stay.
    pub async fn stop_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        const CALL: &str = "StopSearch";
        let request = pb::StopSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.stop_search(r).await).await?;
        read::search(CALL, &required(CALL, "search", answer.search)?)
    }

    /// Removes a search that has ended, with all its results.
    pub async fn delete_search(&self, id: &SearchId) -> Result<(), ClientError> {
        let request = pb::DeleteSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        self.call("DeleteSearch", &request, async |stubs, r| stubs.search.delete_search(r).await).await.map(drop)
    }

    /// The state now and every change, until the search has ended; reconnects when the coordinator goes away.
    pub fn watch(&self, id: &SearchId) -> Watch {
        Watch::new(self.clone(), id.clone())
    }

    /// Every finished evaluation, in the order in which they finished.
    pub async fn evaluations(&self, id: &SearchId, thumbnails: bool) -> Result<Vec<Evaluation>, ClientError> {
        const CALL: &str = "ListEvaluations";
        let Some(facts) = self.search(id).await?.model else { return Ok(vec![]) };
        let layout = std::sync::Arc::new(facts.layout);
        let messages = all_pages(CALL, async |page_token| {
            let request = pb::ListEvaluationsRequest {
                search_id: id.to_string(),
                page_size: 1000,
                page_token,
                include_thumbnails: thumbnails,
            };
            let answer = self.call(CALL, &request, async |stubs, r| stubs.search.list_evaluations(r).await).await?;
            Ok((answer.evaluations, answer.next_page_token))
        });
        messages.await?.iter().map(|m| read::evaluation(CALL, &layout, m)).collect()
    }

    /// The non-dominated evaluations, fastest first, as they are at one moment.
    pub async fn front(&self, id: &SearchId, thumbnails: bool) -> Result<Front, ClientError> {
        // While results come, a front of many pages may change between two of them.
        for _ in 0..FRONT_ATTEMPTS {
            match self.try_front(id, thumbnails).await {
                Err(changed) if changed.reason() == "LIST_CHANGED" => {}
                front => return front,
            }
        }
        self.try_front(id, thumbnails).await
    }

    async fn try_front(&self, id: &SearchId, thumbnails: bool) -> Result<Front, ClientError> {
        const CALL: &str = "GetFront";
        let mut last = None;
        let messages = all_pages(CALL, async |page_token| {
            let request = pb::GetFrontRequest {
                search_id: id.to_string(),
                include_thumbnails: thumbnails,
                page_size: 1000,
                page_token,
            };
            let mut answer = self.call(CALL, &request, async |stubs, r| stubs.search.get_front(r).await).await?;
            let page = (std::mem::take(&mut answer.evaluations), std::mem::take(&mut answer.next_page_token));
            last = Some(answer);
            Ok(page)
        });
        let messages = messages.await?;
        read::front(CALL, &required(CALL, "answer", last)?, &messages)
    }

    /// The best evaluation for a question. A refusal of kind [`ErrorKind::NotFound`] names the nearest miss.
    pub async fn best(&self, id: &SearchId, question: Question, thumbnails: bool) -> Result<Best, ClientError> {
        const CALL: &str = "GetBestSchedule";
        let request = pb::GetBestScheduleRequest {
            search_id: id.to_string(),
            constraint: None,
            preference: pb::Preference::from(question.preference).into(),
            include_thumbnails: thumbnails,
            conditions: question.constraints.into_iter().map(Into::into).collect(),
            ignore_bounds: question.ignore_bounds,
        };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.search.get_best_schedule(r).await).await?;
        if answer.conditions.len() < request.conditions.len() {
            // Whoever does not know conditions would pass over them.
            let problem = "the coordinator is older than this client and does not know conditions".to_owned();
            return Err(ClientError::Malformed { call: CALL, problem });
        }
        read::best(CALL, &answer)
    }

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

    /// Lets a worker finish what it has and gives it no more.
    pub async fn drain_worker(&self, id: &WorkerId) -> Result<Worker, ClientError> {
        const CALL: &str = "DrainWorker";
        let request = pb::DrainWorkerRequest { request_id: new_request_id().to_string(), worker_id: id.to_string() };
        let answer = self.call(CALL, &request, async |stubs, r| stubs.fleet.drain_worker(r).await).await?;
        read::worker(CALL, &required(CALL, "worker", answer.worker)?)
    }

    /// A backup of the coordinator's store as it is now, byte by byte.
    pub async fn back_up(&self) -> Result<Backup, ClientError> {
        Backup::begin(self).await
    }

    /// Sends a request until it is answered, refused, or the retries are used up. The message, and so its request id,
    /// is the same each time.
    async fn call<Req: Clone, Res>(
        &self,
        call: &'static str,
        message: &Req,
        send: impl AsyncFn(&mut Stubs, tonic::Request<Req>) -> Result<tonic::Response<Res>, tonic::Status>,
    ) -> Result<Res, ClientError> {
        let mut retries = self.retry.start();
        let mut stubs = self.stubs.clone();
        loop {
            let mut request = tonic::Request::new(message.clone());
            request.set_timeout(self.deadline);
            let error = match tokio::time::timeout(self.deadline, send(&mut stubs, request)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => ClientError::from_status(call, &self.url, self.deadline, &status),
                Err(_) => ClientError::Deadline { call, url: self.url.clone(), deadline: self.deadline },
            };
            match retries.next_delay(&error) {
                Some(delay) => {
                    tracing::debug!(call, ?delay, %error, "retrying");
                    tokio::time::sleep(delay).await;
                }
                None => return Err(error),
            }
        }
    }
}
