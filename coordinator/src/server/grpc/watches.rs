//! WatchSearch: the state of a search now, then a message for every change, until the search has ended.
//!
//! Each change is read from the engine once for all watchers of a search, so their cost to the engine does not grow with
//! their number. A watcher that falls behind misses messages; it costs no more than one that keeps up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use evocache_proto::domain::{SearchId, SearchUid};
use evocache_proto::pb;
use prost::Message;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::Status;

use super::encode::{self, Row};
use super::services::Services;
use crate::engine::{Change, Refusal, State};
use crate::server::{limits, status};
use evocache_domain::evaluation::Evaluation;

/// Messages of a search that are kept for its slowest watcher.
const WAITING: usize = 16;

/// A message, and the search that it is about.
type Told = Result<Arc<(SearchUid, pb::WatchSearchResponse)>, Status>;

/// All watched searches. Clones share them.
#[derive(Clone)]
pub(super) struct Watches {
    services: Services,
    searches: Arc<Mutex<HashMap<SearchId, broadcast::Sender<Told>>>>,
}

impl Watches {
    /// No search is watched yet.
    pub(super) fn new(services: Services) -> Self {
        Self { services, searches: Arc::default() }
    }

    /// The messages for one more watcher.
    pub(super) async fn watch(
        &self,
        id: SearchId,
    ) -> Result<impl Stream<Item = Result<pb::WatchSearchResponse, Status>> + Send + use<>, Status> {
        // Subscribed before the first look, so that no change is lost between the two.
        let told = self.follow(&id);
        let (uid, first) = look(&self.services, &id, None).await?;
        let watch = Watch { services: self.services.clone(), id, uid, told, first: Some(first), ended: false };
        Ok(futures::stream::unfold(watch, Watch::next))
    }

    /// The messages of a search from now on.
    fn follow(&self, id: &SearchId) -> broadcast::Receiver<Told> {
        let mut searches = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = searches.get(id) {
            return tell.subscribe();
        }
        let (tell, told) = broadcast::channel(WAITING);
        searches.insert(id.clone(), tell.clone());
        let (watches, id, changes) = (self.clone(), id.clone(), self.services.engine.changes());
        #[expect(clippy::disallowed_methods, reason = "ends by itself: with the last watcher, or the coordinator")]
        tokio::spawn(async move { watches.tell(id, changes, tell).await });
        told
    }

    /// Sends the changes of one search to its watchers, until there are none.
    async fn tell(self, id: SearchId, mut changes: broadcast::Receiver<Change>, tell: broadcast::Sender<Told>) {
        loop {
            let message = tokio::select! {
                change = next(&mut changes, &id) => Some(match change {
                    Some(evaluation) => look(&self.services, &id, evaluation).await.map(Arc::new),
                    None => Err(status::stopping()),
                }),
                () = tell.closed() => None,
                () = self.services.stopped() => Some(Err(status::stopping())),
            };
            // Told under the lock: who comes later hears the next message, or finds nothing and begins anew.
            let mut searches = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
            let last = message.is_some_and(|message| {
                let last = message.as_ref().map_or(true, |told| has_ended(&told.1));
                // Fails if there is no watcher, which is checked below.
                let _ = tell.send(message);
                last
            });
            // The last watcher may have gone, and another may have come since.
            if last || tell.receiver_count() == 0 {
                searches.remove(&id);
                return;
            }
        }
    }
}

/// The state of a search as a watcher sees it.
async fn look(
    services: &Services,
    id: &SearchId,
    evaluation: Option<Arc<Evaluation>>,
) -> Result<(SearchUid, pb::WatchSearchResponse), Status> {
    let (id, ttl) = (id.clone(), services.lease_ttl);
    let question = move |state: &State, now| {
        let Some(search) = state.searches.get(&id) else { return Err(Refusal::NoSearch(id)) };
        let message = pb::WatchSearchResponse {
            state: pb::SearchState::from(search.phase).into(),
            progress: Some(encode::progress(state, search, now)),
            end_reason: encode::reason(state, search, now, ttl),
            evaluation: evaluation.map(|evaluation| brief(Row::of(search, &evaluation).message())),
            budget: Some((&search.spec.budget).into()),
        };
        Ok((search.uid.clone(), message))
    };
    services.engine.query(question).await.and_then(|found| found).map_err(status::refusal)
}

/// Leaves out thumbnails, and single values if there are many: a watcher gets many messages, and ListEvaluations has the
/// values.
fn brief(mut evaluation: pb::Evaluation) -> pb::Evaluation {
    if let Some(measurement) = &mut evaluation.measurement {
        measurement.thumbnails.clear();
        if measurement.encoded_len() > limits::SMALL {
            measurement.metrics.iter_mut().for_each(|metric| metric.values.clear());
            measurement.latency_us.clear();
            measurement.baseline_latency_us.clear();
        }
    }
    evaluation
}

struct Watch {
    services: Services,
    id: SearchId,
    uid: SearchUid,
    told: broadcast::Receiver<Told>,
    first: Option<pb::WatchSearchResponse>,
    ended: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<pb::WatchSearchResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let message = match self.first.take() {
            Some(first) => Ok(first),
            None => tokio::select! {
                told = hear(&mut self.told) => told.and_then(|told| match Arc::unwrap_or_clone(told) {
                    (uid, message) if uid == self.uid => Ok(message),
                    // The search was deleted, and another one has its id.
                    _ => Err(status::refusal(Refusal::NoSearch(self.id.clone()))),
                }),
                () = self.services.stopped() => Err(status::stopping()),
            },
        };
        self.ended = message.as_ref().map_or(true, has_ended);
        Some((message, self))
    }
}

async fn hear(told: &mut broadcast::Receiver<Told>) -> Told {
    loop {
        match told.recv().await {
            Ok(told) => return told,
            // Some messages were missed; the next one has the state.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(status::stopping()),
        }
    }
}

/// The next change of this search: `Some(None)` for one without an evaluation, `None` when the engine has stopped.
async fn next(changes: &mut broadcast::Receiver<Change>, id: &SearchId) -> Option<Option<Arc<Evaluation>>> {
    loop {
        match changes.recv().await {
            Ok(change) if change.search == *id => return Some(change.evaluation),
            Ok(_) => {}
            // Some changes were missed; the state is current all the same.
            Err(RecvError::Lagged(_)) => return Some(None),
            Err(RecvError::Closed) => return None,
        }
    }
}

fn has_ended(message: &pb::WatchSearchResponse) -> bool {
    match message.state() {
        pb::SearchState::Completed | pb::SearchState::Stopped | pb::SearchState::Failed => true,
        pb::SearchState::Unspecified
        | pb::SearchState::Pending
        | pb::SearchState::Running
        | pb::SearchState::Paused => false,
    }
}
