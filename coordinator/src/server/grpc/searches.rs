//! SearchService.

use std::pin::Pin;
use std::sync::Arc;

use evocache_domain::query::{self, Answer as Chosen};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{Budget, CandidateId, SearchId};
use evocache_proto::pb::search_service_server::SearchService;
use evocache_proto::{pb, wire};
use prost::Message;
use tonic::{Request, Response, Status};

use super::best;
use super::encode::{self, Detail, Row};
use super::page::{self, List};
use super::services::{Services, request};
use super::watches::Watches;
use crate::engine::{Answer, Command, Move, Refusal, Search, State};
use crate::server::gate::Caller;
use crate::server::{limits, status};

pub(super) struct Searches(Services, Watches);

fn search_id(text: &str) -> Result<SearchId, Status> {
    SearchId::new(text).map_err(|e| status::invalid("search_id", e))
}

impl Searches {
    pub(super) fn new(services: Services) -> Self {
        Self(services.clone(), Watches::new(services))
    }

    async fn get(&self, id: SearchId) -> Result<pb::Search, Status> {
        let ttl = self.0.lease_ttl;
        self.look(id, move |state, search, now| encode::search(state, search, now, ttl, Detail::Full)).await
    }

    /// Asks the engine about one search.
    async fn look<T, F>(&self, id: SearchId, question: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&State, &Search, Timestamp) -> T + Send + 'static,
    {
        let found = self.0.engine.query(move |state, now| match state.searches.get(&id) {
            Some(search) => Ok(question(state, search, now)),
            None => Err(Refusal::NoSearch(id)),
        });
        found.await.and_then(|found| found).map_err(status::refusal)
    }

    /// Moves the search that `ids` reads from the message, with the message's request id.
    async fn moved<M: Message>(
        &self,
        message: Request<M>,
        ids: fn(&M) -> (&str, &str),
        to: Move,
    ) -> Result<SearchId, Status> {
        let (caller, message) = Caller::of(message)?;
        let (id, request_id) = ids(&message);
        let search = search_id(id)?;
        caller.about(&search);
        let command = Command::Move { search: search.clone(), to };
        self.0.engine.command(request(request_id, &message)?, command).await.map_err(status::refusal)?;
        tracing::info!(%search, ?to, "search moved");
        Ok(search)
    }

    /// A page of evaluations that is not too large for a client with gRPC's default limit. `taken` bytes of that limit are
    /// used by the rest of the answer.
    fn page(
        &self,
        search: &SearchId,
        rows: Vec<(pb::Evaluation, CandidateId)>,
        thumbnails: bool,
        taken: usize,
    ) -> Result<Vec<pb::Evaluation>, Status> {
        let mut page = page::Page::beside(taken);
        for (mut evaluation, candidate) in rows {
            if thumbnails {
                self.add_thumbnails(&mut evaluation, search, candidate)?;
            }
            if !page.push(evaluation) {
                break;
            }
        }
        Ok(page.rows())
    }

    fn add_thumbnails(
        &self,
        evaluation: &mut pb::Evaluation,
        search: &SearchId,
        candidate: CandidateId,
    ) -> Result<(), Status> {
        let pictures = self.0.engine.thumbnails(search, candidate).map_err(status::refusal)?;
        if let Some(measurement) = &mut evaluation.measurement {
            let mut room = limits::PICTURE_BYTES;
            let fits = |picture: &Vec<u8>| {
                room = room.saturating_sub(picture.len());
                room > 0
            };
            measurement.thumbnails = pictures.into_iter().take_while(fits).map(Into::into).collect();
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
        let answer = answer.map_err(status::refusal)?;
        let Answer::Search(id) = answer else { return Err(status::unexpected(&answer)) };
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
        let list = List::of_searches();
        let from = list.position(&message.page_token)?;
        let rows = limits::SEARCHES.rows(message.page_size);
        let ttl = self.0.lease_ttl;
        let question = move |state: &State, now| {
            let mut all: Vec<&Search> = state.searches.values().collect();
            all.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
            let rows = all.iter().skip(from).take(rows);
            let searches = page::Page::of(rows.map(|search| encode::search(state, search, now, ttl, Detail::List)));
            let next_page_token = list.token(from + searches.len(), all.len());
            pb::ListSearchesResponse { searches, next_page_token }
        };
        self.0.engine.query(question).await.map(Response::new).map_err(status::refusal)
    }

    async fn pause_search(
        &self,
        message: Request<pb::PauseSearchRequest>,
    ) -> Result<Response<pb::PauseSearchResponse>, Status> {
        let id = self.moved(message, |m| (&m.search_id, &m.request_id), Move::Pause).await?;
        Ok(Response::new(pb::PauseSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn resume_search(
        &self,
        message: Request<pb::ResumeSearchRequest>,
    ) -> Result<Response<pb::ResumeSearchResponse>, Status> {
        let id = self.moved(message, |m| (&m.search_id, &m.request_id), Move::Resume).await?;
        Ok(Response::new(pb::ResumeSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn extend_search(
        &self,
        message: Request<pb::ExtendSearchRequest>,
    ) -> Result<Response<pb::ExtendSearchResponse>, Status> {
        let (caller, message) = Caller::of(message)?;
        let search = search_id(&message.search_id)?;
        let budget = wire::budget(message.budget.as_ref().unwrap_or(&pb::Budget::default()));
        let budget = budget.map_err(status::malformed)?;
        if budget == Budget::default() {
            let problem = "give at least one of evaluations, wall_time, device_time, stagnation";
            return Err(status::invalid("budget", problem));
        }
        caller.about(&search);
        let command = Command::Extend { search: search.clone(), budget };
        let request = request(&message.request_id, &message)?;
        self.0.engine.command(request, command).await.map_err(status::refusal)?;
        tracing::info!(%search, ?budget, "search extended");
        Ok(Response::new(pb::ExtendSearchResponse { search: Some(self.get(search).await?) }))
    }

    async fn stop_search(
        &self,
        message: Request<pb::StopSearchRequest>,
    ) -> Result<Response<pb::StopSearchResponse>, Status> {
        let id = self.moved(message, |m| (&m.search_id, &m.request_id), Move::Stop).await?;
        Ok(Response::new(pb::StopSearchResponse { search: Some(self.get(id).await?) }))
    }

    async fn delete_search(
        &self,
        message: Request<pb::DeleteSearchRequest>,
    ) -> Result<Response<pb::DeleteSearchResponse>, Status> {
        self.moved(message, |m| (&m.search_id, &m.request_id), Move::Delete).await?;
        Ok(Response::new(pb::DeleteSearchResponse {}))
    }

    type WatchSearchStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::WatchSearchResponse, Status>> + Send>>;

    async fn watch_search(
        &self,
        message: Request<pb::WatchSearchRequest>,
    ) -> Result<Response<Self::WatchSearchStream>, Status> {
        let id = search_id(&message.into_inner().search_id)?;
        Ok(Response::new(Box::pin(self.1.watch(id).await?)))
    }

    async fn list_evaluations(
        &self,
        message: Request<pb::ListEvaluationsRequest>,
    ) -> Result<Response<pb::ListEvaluationsResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let rows = limits::EVALUATIONS.rows(message.page_size);
        let token = message.page_token;
        let question = move |_: &State, search: &Search, _| {
            let list = List::of_evaluations(&search.uid);
            let from = list.position(&token)?;
            let page = search.evaluations.iter().skip(from).take(rows).map(|e| Row::of(search, e)).collect::<Vec<_>>();
            Ok::<_, Status>((list, from, page, search.evaluations.len()))
        };
        let (list, from, page, all) = self.look(id.clone(), question).await??;
        let page = page::filled(page.iter().map(|row| (row.message(), row.candidate())));
        let evaluations = self.page(&id, page, message.include_thumbnails, 0)?;
        let next_page_token = list.token(from + evaluations.len(), all);
        Ok(Response::new(pb::ListEvaluationsResponse { evaluations, next_page_token }))
    }

    async fn get_front(&self, message: Request<pb::GetFrontRequest>) -> Result<Response<pb::GetFrontResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let rows = limits::EVALUATIONS.rows(message.page_size);
        let token = message.page_token;
        let question = move |_: &State, search: &Search, _| {
            let front = search.front();
            let list = List::of_front(&search.uid, front.iter().map(|e| e.candidate));
            let from = list.position(&token)?;
            let page: Vec<_> = front.iter().skip(from).take(rows).map(|e| Row::of(search, e)).collect();
            let baseline = search.baseline().map(|e| Row::of(search, e));
            let response = pb::GetFrontResponse {
                evaluations: vec![],
                baseline: None,
                layout: search.model().map(|model| model.layout.as_ref().into()),
                hypervolume: search.breeder().map_or(0.0, |breeder| breeder.hypervolume()),
                reference_latencies: encode::references(search),
                next_page_token: String::new(),
            };
            Ok::<_, Status>((response, baseline, list, from, page, front.len()))
        };
        let (mut response, baseline, list, from, page, all) = self.look(id.clone(), question).await??;
        response.baseline = baseline.as_ref().map(Row::message);
        let page = page::filled(page.iter().map(|row| (row.message(), row.candidate())));
        if let Some(baseline) = response.baseline.as_mut().filter(|_| message.include_thumbnails) {
            let candidate = CandidateId(baseline.candidate);
            self.add_thumbnails(baseline, &id, candidate)?;
        }
        response.evaluations = self.page(&id, page, message.include_thumbnails, response.encoded_len())?;
        response.next_page_token = list.token(from + response.evaluations.len(), all);
        Ok(Response::new(response))
    }

    async fn get_best_schedule(
        &self,
        message: Request<pb::GetBestScheduleRequest>,
    ) -> Result<Response<pb::GetBestScheduleResponse>, Status> {
        let message = message.into_inner();
        let id = search_id(&message.search_id)?;
        let question = wire::question(&message).map_err(status::malformed)?;
        let seen = |_: &State, search: &Search, _| (search.reference(), best::snapshot(search));
        let (search, seen) = self.look(id.clone(), seen).await?;
        let best = match query::answer(&seen, &question).map_err(|e| status::invalid("conditions", e))? {
            Chosen::Found(best) => best,
            Chosen::Nearest(miss) => return Err(best::miss(&miss)),
            Chosen::Nothing => return Err(best::nothing(&id)),
        };
        let mut response = self.look(id.clone(), move |_, now, _| best::message(now, &search, best)).await??;
        if message.include_thumbnails {
            for evaluation in [&mut response.evaluation, &mut response.baseline].into_iter().flatten() {
                let candidate = CandidateId(evaluation.candidate);
                self.add_thumbnails(evaluation, &id, candidate)?;
            }
        }
        Ok(Response::new(response))
    }
}
