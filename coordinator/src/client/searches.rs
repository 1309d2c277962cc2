//! Calls about searches.

use std::sync::Arc;

use evocache_proto::domain::{Budget, Question, SearchId, SearchSpec};
use evocache_proto::pb;
use evocache_proto::wire::Reason;
use tonic::{Request, Response, Status};

use super::channel::Stubs;
use super::connection::Client;
use super::error::ClientError;
use super::ids::new_request_id;
use super::model::evaluation::{Best, Evaluation, Front};
use super::model::search::Search;
use super::paging::all_pages;
use super::read::{self, required};

/// Attempts to read a front that changes while its pages are read.
const FRONT_ATTEMPTS: usize = 10;

impl Client {
    /// Creates a search. Without an id, the coordinator makes one.
    pub async fn create_search(&self, id: Option<&SearchId>, spec: &SearchSpec) -> Result<Search, ClientError> {
        self.create_search_from(id, spec, &[]).await
    }

    /// Creates a search that starts from the fronts of others.
    pub async fn create_search_from(
        &self,
        id: Option<&SearchId>,
        spec: &SearchSpec,
        start_from: &[SearchId],
    ) -> Result<Search, ClientError> {
        let request = create(id, spec, start_from, false);
        self.one_search("CreateSearch", &request, async |stubs, r| {
            Ok(stubs.search.create_search(r).await?.map(|answer| answer.search))
        })
        .await
    }

    /// Has the coordinator check a specification without creating a search.
    pub async fn validate_search(
        &self,
        id: Option<&SearchId>,
        spec: &SearchSpec,
        start_from: &[SearchId],
    ) -> Result<(), ClientError> {
        let request = create(id, spec, start_from, true);
        // The answer describes no real search, so it is dropped.
        self.call("CreateSearch", &request, async |stubs, r| stubs.search.create_search(r).await).await.map(drop)
    }

    /// One search with its complete specification.
    pub async fn search(&self, id: &SearchId) -> Result<Search, ClientError> {
        let request = pb::GetSearchRequest { search_id: id.to_string() };
        self.one_search("GetSearch", &request, async |stubs, r| {
            Ok(stubs.search.get_search(r).await?.map(|answer| answer.search))
        })
        .await
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

    /// Pauses a search: it hands out no candidates until it is resumed.
    pub async fn pause_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        let request = pb::PauseSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        self.one_search("PauseSearch", &request, async |stubs, r| {
            Ok(stubs.search.pause_search(r).await?.map(|answer| answer.search))
        })
        .await
    }

    /// Resumes a paused search.
    pub async fn resume_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        let request = pb::ResumeSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        self.one_search("ResumeSearch", &request, async |stubs, r| {
            Ok(stubs.search.resume_search(r).await?.map(|answer| answer.search))
        })
        .await
    }

    /// Raises the limits of a search's budget; absent limits stay. A completed search goes on.
    pub async fn extend_search(&self, id: &SearchId, budget: &Budget) -> Result<Search, ClientError> {
        let request = pb::ExtendSearchRequest {
            request_id: new_request_id().to_string(),
            search_id: id.to_string(),
            budget: Some(budget.into()),
        };
        self.one_search("ExtendSearch", &request, async |stubs, r| {
            Ok(stubs.search.extend_search(r).await?.map(|answer| answer.search))
        })
        .await
    }

    /// Ends a search for good. Its results stay.
    pub async fn stop_search(&self, id: &SearchId) -> Result<Search, ClientError> {
        let request = pb::StopSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        self.one_search("StopSearch", &request, async |stubs, r| {
            Ok(stubs.search.stop_search(r).await?.map(|answer| answer.search))
        })
        .await
    }

    /// Deletes a search that has ended, with all its results.
    pub async fn delete_search(&self, id: &SearchId) -> Result<(), ClientError> {
        let request = pb::DeleteSearchRequest { request_id: new_request_id().to_string(), search_id: id.to_string() };
        self.call("DeleteSearch", &request, async |stubs, r| stubs.search.delete_search(r).await).await.map(drop)
    }

    /// All finished evaluations, in the order in which they finished.
    pub async fn evaluations(&self, id: &SearchId, thumbnails: bool) -> Result<Vec<Evaluation>, ClientError> {
        const CALL: &str = "ListEvaluations";
        let Some(facts) = self.search(id).await?.model else { return Ok(vec![]) };
        let layout = Arc::new(facts.layout);
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

    /// The front at one moment, fastest first.
    pub async fn front(&self, id: &SearchId, thumbnails: bool) -> Result<Front, ClientError> {
        let mut attempts = 1;
        loop {
            match self.try_front(id, thumbnails).await {
                // A result arrived between two pages.
                Err(changed) if changed.reason() == Reason::ListChanged.as_str() && attempts < FRONT_ATTEMPTS => {}
                front => return front,
            }
            attempts += 1;
        }
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

    /// The best evaluation for a question. If no schedule meets the constraints, the refusal of kind
    /// [`ErrorKind::NotFound`](super::error::ErrorKind::NotFound) names the nearest miss.
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
            // A coordinator that does not know conditions ignores them.
            let problem = "the coordinator is older than this client and does not know conditions".to_owned();
            return Err(ClientError::Malformed { call: CALL, problem });
        }
        read::best(CALL, &answer)
    }

    /// A call whose answer is one search.
    async fn one_search<Req: Clone>(
        &self,
        call: &'static str,
        message: &Req,
        send: impl AsyncFn(&mut Stubs, Request<Req>) -> Result<Response<Option<pb::Search>>, Status>,
    ) -> Result<Search, ClientError> {
        read::search(call, &required(call, "search", self.call(call, message, send).await?)?)
    }
}

fn create(
    id: Option<&SearchId>,
    spec: &SearchSpec,
    start_from: &[SearchId],
    validate_only: bool,
) -> pb::CreateSearchRequest {
    pb::CreateSearchRequest {
        request_id: new_request_id().to_string(),
        search_id: id.map(ToString::to_string).unwrap_or_default(),
        spec: Some(spec.into()),
        validate_only,
        start_from: start_from.iter().map(ToString::to_string).collect(),
    }
}
