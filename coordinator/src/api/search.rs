//! SearchService.

use std::pin::Pin;
use std::sync::Arc;

use evocache_proto::domain::{SearchId, SearchUid};
use evocache_proto::pb::search_service_server::SearchService;
use evocache_proto::{pb, wire};
use prost::Message;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::encode::Detail;
use super::gate::Caller;
use super::question::Asked;
use super::{Services, encode, limits, page, request, status};
use crate::domain::evaluation::Evaluation;
use crate::engine::{Answer, Command, Move, Refusal, Search, State};

/// Messages that wait for a slow watcher.
const WATCH_BUFFER: usize = 64;

#[derive(Clone)]
pub(super) struct Searches(pub(super) Services);

fn search_id(text: &str) -> Result<SearchId, Status> {
    SearchId::new(text).map_err(|e| status::invalid("search_id", e))
}

impl Searches {
    async fn get(&self, id: SearchId) -> Result<pb::Search, Status> {
        let ttl = self.0.lease_ttl;
        self.look(id, move |state, search, now| encode::search(state, search, now, ttl, Detail::Full)).await
    }

    /// Asks about one search.
    async fn look<T, F>(&self, id: SearchId, question: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&State, &Search, crate::domain::time::Timestamp) -> T + Send + 'static,
    {
        let found = self.0.engine.query(move |state, now| match state.searches.get(&id) {
            Some(search) => Ok(question(state, search, now)),
            None => Err(Refusal::NoSearch(id)),
        });
        found.await.and_then(|found| found).map_err(status::refusal)
    }

    async fn change<M: Message>(
        &self,
        caller: &Caller,
        (id, request_id): (&str, &str),
        message: &M,
        to: Move,
    ) -> Result<SearchId, Status> {
        let search = search_id(id)?;
        caller.about(&search);
        let command = Command::Move { search: search.clone(), to };
        self.0.engine.command(request(request_id, message)?, command).await.map_err(status::refusal)?;
        tracing::info!(%search, ?to, "search moved");
        Ok(search)
    }

    /// A page of evaluations that ends before it is too large for a client with gRPC's default limit.
    fn page(
        &self,
        search: &SearchId,
        rows: Vec<(pb::Evaluation, evocache_proto::domain::CandidateId)>,
        thumbnails: bool,
    ) -> Result<Vec<pb::Evaluation>, Status> {
        let (mut page, mut bytes) = (vec![], 0);
        for (mut evaluation, candidate) in rows {
            if thumbnails {
                self.add_thumbnails(&mut evaluation, search, candidate)?;
            }
            bytes += evaluation.encoded_len();
            if bytes > limits::PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(evaluation);
        }
        Ok(page)
    }

    fn add_thumbnails(
        &self,
        evaluation: &mut pb::Evaluation,
        search: &SearchId,
        candidate: evocache_proto::domain::CandidateId,
    ) -> Result<(), Status> {
        let pictures = self.0.engine.thumbnails(search, candidate).map_err(status::refusal)?;
        if let Some(measurement) = &mut evaluation.measurement {
            measurement.thumbnails = pictures.into_iter().map(Into::into).collect();
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl SearchService for Searches {
    async fn create_search(
        &self,
        message: Request<pb::CreateSearchRequest>,
    ) -> Result<Response<pb::CreateSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let wanted = if message.search_id.is_empty() { None } else { Some(search_id(&message.search_id)?) };
        let spec = message.spec.as_ref().ok_or_else(|| status::invalid("spec", "is missing"))?;
        let spec = Arc::new(wire::search_spec(spec).map_err(status::spec)?);
        if message.start_from.len() > limits::START_FROM {
            return Err(status::invalid("start_from", format!("at most {} searches", limits::START_FROM)));
        }
        let from: Vec<SearchId> = message.start_from.iter().map(|id| search_id(id)).collect::<Result<_, _>>()?;
        if message.validate_only {
            for id in from {
                self.look(id, |_, _, _| ()).await?;
            }
            let search = pb::Search { spec: Some(spec.as_ref().into()), ..pb::Search::default() };
            return Ok(Response::new(pb::CreateSearchResponse { search: Some(search) }));
        }
        let request = request(&message.request_id, &message)?;
        let answer = self.0.engine.command(request, Command::Create { search: wanted, spec, from }).await;
        let Answer::Search(id) = answer.map_err(status::refusal)? else {
            return Err(status::refusal(Refusal::Internal("no search in the answer".into())));
        };
        caller.about(&id);
        tracing::info!(search = %id, "search created");
        Ok(Response::new(pb::CreateSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn get_search(
        &self,
        message: Request<pb::GetSearchRequest>,
    ) -> Result<Response<pb::GetSearchResponse>, Status> {
        let search = self.get(search_id(&message.into_inner().search_id)?).await?;
        Ok(Response::new(pb::GetSearchResponse { search: Some(search) }))
    }

    async fn list_searches(
        &self,
        message: Request<pb::ListSearchesRequest>,
    ) -> Result<Response<pb::ListSearchesResponse>, Status> {
        let message = message.into_inner();
        let from = page::position(&message.page_token)?;
        let rows = limits::SEARCHES.rows(message.page_size);
        let ttl = self.0.lease_ttl;
        let question = move |state: &State, now| {
            let mut all: Vec<&Search> = state.searches.values().collect();
            all.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
            let page = all.iter().skip(from).take(rows);
            let searches = page.map(|search| encode::search(state, search, now, ttl, Detail::List)).collect();
            pb::ListSearchesResponse { searches, next_page_token: page::token(from + rows, all.len()) }
        };
        self.0.engine.query(question).await.map(Response::new).map_err(status::refusal)
    }

    async fn pause_search(
        &self,
        message: Request<pb::PauseSearchRequest>,
    ) -> Result<Response<pb::PauseSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let ids = (message.search_id.as_str(), message.request_id.as_str());
        let id = self.change(&caller, ids, &message, Move::Pause).await?;
        Ok(Response::new(pb::PauseSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn resume_search(
        &self,
        message: Request<pb::ResumeSearchRequest>,
    ) -> Result<Response<pb::ResumeSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let ids = (message.search_id.as_str(), message.request_id.as_str());
        let id = self.change(&caller, ids, &message, Move::Resume).await?;
        Ok(Response::new(pb::ResumeSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn stop_search(
        &self,
        message: Request<pb::StopSearchRequest>,
    ) -> Result<Response<pb::StopSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let ids = (message.search_id.as_str(), message.request_id.as_str());
        let id = self.change(&caller, ids, &message, Move::Stop).await?;
        Ok(Response::new(pb::StopSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn delete_search(
        &self,
        message: Request<pb::DeleteSearchRequest>,
    ) -> Result<Response<pb::DeleteSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let ids = (message.search_id.as_str(), message.request_id.as_str());
        self.change(&caller, ids, &message, Move::Delete).await?;
        Ok(Response::new(pb::DeleteSearchResponse {}))
    }

    type WatchSearchStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::WatchSearchResponse, Status>> + Send>>;

    async fn watch_search(
        &self,
        message: Request<pb::WatchSearchRequest>,
    ) -> Result<Response<Self::WatchSearchStream>, Status> {
        let id = search_id(&message.into_inner().search_id)?;
        // Subscribed before the first look, so that nothing falls between the two.
        let changes = self.0.engine.changes();
        let (uid, first) = self.snapshot(&id, None).await?;
        let (messages, stream) = mpsc::channel(WATCH_BUFFER);
        let watch = Watch { searches: self.clone(), id, uid, changes, messages };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends by itself: with the search, the watcher, or the coordinator"
        )]
        tokio::spawn(watch.run(first));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_evaluations(
        &self,
        message: Request<pb::ListEvaluationsRequest>,
    ) -> Result<Response<pb::ListEvaluationsResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let from = page::position(&message.page_token)?;
        let rows = limits::EVALUATIONS.rows(message.page_size);
        let question = move |_: &State, search: &Search, _| {
            let page = search.evaluations.iter().skip(from).take(rows);
            let page: Vec<_> = page.map(|e| (encode::evaluation(search, e), e.candidate)).collect();
            (page, search.evaluations.len())
        };
        let (page, all) = self.look(id.clone(), question).await?;
        let evaluations = self.page(&id, page, message.include_thumbnails)?;
        let next_page_token = page::token(from + evaluations.len(), all);
        Ok(Response::new(pb::ListEvaluationsResponse { evaluations, next_page_token }))
    }

    async fn get_front(&self, message: Request<pb::GetFrontRequest>) -> Result<Response<pb::GetFrontResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let from = page::position(&message.page_token)?;
        let rows = limits::EVALUATIONS.rows(message.page_size);
        let question = move |_: &State, search: &Search, _| {
            let front = search.front();
            let page = front.iter().skip(from).take(rows);
            let page: Vec<_> = page.map(|e| (encode::evaluation(search, e), e.candidate)).collect();
            let response = pb::GetFrontResponse {
                evaluations: vec![],
                baseline: search.baseline().map(|e| encode::evaluation(search, e)),
                layout: search.bound.as_ref().map(|(model, _)| model.layout.as_ref().into()),
                hypervolume: search.bound.as_ref().map_or(0.0, |(_, breeder)| breeder.hypervolume()),
                reference_latencies: encode::references(search),
                next_page_token: String::new(),
            };
            (response, page, front.len())
        };
        let (mut response, page, all) = self.look(id.clone(), question).await?;
        response.evaluations = self.page(&id, page, message.include_thumbnails)?;
        response.next_page_token = page::token(from + response.evaluations.len(), all);
        if let Some(baseline) = response.baseline.as_mut().filter(|_| message.include_thumbnails) {
            self.add_thumbnails(baseline, &id, evocache_proto::domain::CandidateId(0))?;
        }
        Ok(Response::new(response))
    }

    async fn get_best_schedule(
        &self,
        message: Request<pb::GetBestScheduleRequest>,
    ) -> Result<Response<pb::GetBestScheduleResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let asked = Asked::read(&message)?;
        let question = move |_: &State, search: &Search, _| asked.answer(search);
        let mut response = self.look(id.clone(), question).await??;
        if message.include_thumbnails {
            for evaluation in [&mut response.evaluation, &mut response.baseline].into_iter().flatten() {
                let candidate = evocache_proto::domain::CandidateId(evaluation.candidate);
                self.add_thumbnails(evaluation, &id, candidate)?;
            }
        }
        Ok(Response::new(response))
    }
}

impl Searches {
    /// The state of a search as a watcher sees it, and of which search of that id.
    async fn snapshot(
        &self,
        id: &SearchId,
        evaluation: Option<Arc<Evaluation>>,
    ) -> Result<(SearchUid, pb::WatchSearchResponse), Status> {
        let ttl = self.0.lease_ttl;
        let question = move |state: &State, search: &Search, now| {
            let message = pb::WatchSearchResponse {
                state: encode::phase(search.phase).into(),
                progress: Some(encode::progress(state, search, now)),
                end_reason: encode::reason(state, search, now, ttl),
                evaluation: evaluation.map(|e| {
                    let mut message = encode::evaluation(search, &e);
                    if let Some(measurement) = &mut message.measurement {
                        measurement.thumbnails.clear();
                    }
                    message
                }),
            };
            (search.uid.clone(), message)
        };
        self.look(id.clone(), question).await
    }
}

/// One watcher: the state now, then a message per change, until the search has ended.
struct Watch {
    searches: Searches,
    id: SearchId,
    uid: SearchUid,
    changes: broadcast::Receiver<crate::engine::Change>,
    messages: mpsc::Sender<Result<pb::WatchSearchResponse, Status>>,
}

impl Watch {
    async fn run(mut self, first: pb::WatchSearchResponse) {
        let mut last = Ok(first);
        loop {
            let end = match &last {
                Ok(message) => ended(message.state()),
                Err(_) => true,
            };
            if self.messages.send(last).await.is_err() || end {
                return;
            }
            last = tokio::select! {
                evaluation = next(&mut self.changes, &self.id) => match evaluation {
                    Some(evaluation) => match self.searches.snapshot(&self.id, evaluation).await {
                        Ok((uid, message)) if uid == self.uid => Ok(message),
                        // It was deleted, and the id is used again.
                        Ok(_) => Err(status::refusal(Refusal::NoSearch(self.id.clone()))),
                        Err(status) => Err(status),
                    },
                    None => Err(status::stopping()),
                },
                () = self.searches.0.stopped() => Err(status::stopping()),
                () = self.messages.closed() => return,
            };
        }
    }
}

/// The next change of this search: `Some(None)` for one without an evaluation, `None` when the engine has stopped.
async fn next(
    changes: &mut broadcast::Receiver<crate::engine::Change>,
    id: &SearchId,
) -> Option<Option<Arc<Evaluation>>> {
    loop {
        match changes.recv().await {
            Ok(change) if change.search == *id => return Some(change.evaluation),
            Ok(_) => {}
            // Some were missed: the state is still worth telling.
            Err(broadcast::error::RecvError::Lagged(_)) => return Some(None),
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

fn ended(state: pb::SearchState) -> bool {
    match state {
        pb::SearchState::Completed | pb::SearchState::Stopped | pb::SearchState::Failed => true,
        pb::SearchState::Unspecified
        | pb::SearchState::Pending
        | pb::SearchState::Running
        | pb::SearchState::Paused => false,
    }
}
