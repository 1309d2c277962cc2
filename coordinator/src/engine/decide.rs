//! Decisions on a person's behalf: create, move, register, drain. Pure: state, command and time in; facts out.

use std::time::Duration;

use evocache_proto::domain::{RequestId, SearchId, SearchUid, WorkerId};

use super::command::{Answer, Command, Move, Refusal, Request};
use super::search::Search;
use super::state::{State, Touch};
use super::{evaluate, extend, grant, roster, transfer};
use crate::ports::{Fact, IdSource, Phase, Registration, RequestRecord, Room};
use evocache_domain::lease::{self, Event, RetryPolicy};
use evocache_domain::time::Timestamp;

/// A repeat of a call is answered like the first for this long.
pub const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// A worker without a lease that is silent for this long is forgotten.
pub const WORKER_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// What a command does, once it is committed.
#[derive(Debug, Default)]
pub struct Decision {
    /// To commit in one transaction and then to apply, in this order.
    pub facts: Vec<Fact>,
    /// To apply without storing.
    pub touches: Vec<Touch>,
    /// What to say when that is durable.
    pub answer: Option<Answer>,
}

impl Decision {
    pub(super) fn answer(answer: Answer) -> Self {
        Self { facts: vec![], touches: vec![], answer: Some(answer) }
    }

    pub(super) fn fact(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    pub(super) fn touch(mut self, touch: Touch) -> Self {
        self.touches.push(touch);
        self
    }
}

/// What a decision may look at besides the state.
pub struct Context<'a> {
    /// The moment of the decision.
    pub now: Timestamp,
    /// How long leases last and how often a candidate is tried.
    pub policy: &'a RetryPolicy,
    /// Makes ids.
    pub ids: &'a dyn IdSource,
    /// The room that the store has, if it is scarce: nothing new is begun.
    pub scarce: Option<Room>,
}

/// Decides a command. A repeated request gets the first answer and changes nothing.
pub fn decide(
    state: &State,
    request: Option<&Request>,
    command: &Command,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    if let Some(answer) = request.map(|r| repeated(state, r, command)).transpose()?.flatten() {
        return Ok(Decision::answer(answer));
    }
    let mut decision = match command {
        Command::Create { search, spec, from } => {
            if let Some(room) = context.scarce {
                return Err(Refusal::Full(room));
            }
            let id = match search {
                Some(id) if state.searches.contains_key(id) => return Err(Refusal::Exists(id.clone())),
                Some(id) if state.deleted.contains(id) => return Err(Refusal::BeingDeleted(id.clone())),
                Some(id) => id.clone(),
                None => SearchId::new(context.ids.unique()).map_err(|e| Refusal::Internal(e.to_string()))?,
            };
            let spec = transfer::with_fronts(state, spec, from)?;
            let uid = SearchUid::new(context.ids.unique()).map_err(|e| Refusal::Internal(e.to_string()))?;
            let fact = Fact::SearchCreated { search: id.clone(), uid, spec, at: context.now };
            Decision::answer(Answer::Search(id)).fact(fact)
        }
        Command::Move { search, to } => move_search(find(state, search)?, *to, context)?,
        Command::Extend { search, budget } => extend::extend(state, find(state, search)?, budget, context)?,
        Command::Register { declaration, principal } => {
            let worker = WorkerId::new(context.ids.unique()).map_err(|e| Refusal::Internal(e.to_string()))?;
            let (declaration, principal) = (declaration.clone(), principal.clone());
            let registration = Registration { declaration, at: context.now, principal };
            let decision = Decision::answer(Answer::Worker(worker.clone()));
            roster::make_room(state, &registration.principal, context, decision)?
                .fact(Fact::WorkerRegistered { worker, registration })
        }
        Command::Drain { worker } => {
            if !state.workers.contains_key(worker) {
                return Err(Refusal::NoWorker(worker.clone()));
            }
            let fact = Fact::WorkerDraining { worker: worker.clone() };
            Decision::answer(Answer::Worker(worker.clone())).fact(fact)
        }
        Command::Deregister { worker } => {
            if !state.workers.contains_key(worker) {
                return Err(Refusal::NoWorker(worker.clone()));
            }
            let decision =
                evaluate::release_all(state, worker, Decision::answer(Answer::Worker(worker.clone())), context);
            decision.fact(Fact::WorkerForgotten { worker: worker.clone() })
        }
        Command::Acquire { worker } => grant::acquire(state, worker, context)?,
        Command::Renew { worker, leases } => evaluate::renew(state, worker, leases, context)?,
        Command::Complete { worker, lease, measurement } => {
            evaluate::complete(state, worker, lease, measurement, context)?
        }
        Command::Fail { worker, lease, reason, retryable } => {
            evaluate::fail(state, worker, lease, reason, *retryable, context)?
        }
        Command::Release { worker, lease } => evaluate::release(state, worker, lease, context)?,
        Command::Tick => evaluate::tick(state, context),
        Command::Tidy => tidy(state, context.now),
        Command::Clear { search } => Decision::default().fact(Fact::SearchCleared { search: search.clone() }),
    };
    if let (Some(request), Some(answer)) = (request, &decision.answer) {
        let record = RequestRecord {
            kind: kind(command).to_owned(),
            digest: request.digest,
            subject: match answer {
                Answer::Search(id) => id.to_string(),
                Answer::Worker(id) => id.to_string(),
                Answer::Work { .. } | Answer::Renewed { .. } | Answer::Accepted => String::new(),
            },
            at: context.now,
        };
        decision.facts.push(Fact::RequestAnswered { request: request.id.clone(), record });
    }
    Ok(decision)
}

pub(super) fn find<'a>(state: &'a State, id: &SearchId) -> Result<&'a Search, Refusal> {
    state.searches.get(id).ok_or_else(|| Refusal::NoSearch(id.clone()))
}

fn kind(command: &Command) -> &'static str {
    match command {
        Command::Create { .. } => "create_search",
        Command::Move { to: Move::Pause, .. } => "pause_search",
        Command::Move { to: Move::Resume, .. } => "resume_search",
        Command::Move { to: Move::Stop, .. } => "stop_search",
        Command::Move { to: Move::Delete, .. } => "delete_search",
        Command::Extend { .. } => "extend_search",
        Command::Register { .. } => "register_worker",
        Command::Drain { .. } => "drain_worker",
        Command::Deregister { .. } => "deregister_worker",
        Command::Acquire { .. } => "acquire_lease",
        Command::Renew { .. } => "renew_leases",
        Command::Complete { .. } => "complete_evaluation",
        Command::Fail { .. } => "fail_evaluation",
        Command::Release { .. } => "release_lease",
        Command::Tick | Command::Tidy | Command::Clear { .. } => "internal",
    }
}

/// The first answer, if this request was answered before.
fn repeated(state: &State, request: &Request, command: &Command) -> Result<Option<Answer>, Refusal> {
    let Some(record) = state.requests.get(&request.id) else { return Ok(None) };
    let reused = || Refusal::RequestReused(RequestId::clone(&request.id));
    if record.kind != kind(command) || record.digest != request.digest {
        return Err(reused());
    }
    let internal = |e: evocache_proto::domain::IdError| Refusal::Internal(e.to_string());
    Ok(Some(match command {
        Command::Create { .. } | Command::Move { .. } | Command::Extend { .. } => {
            Answer::Search(SearchId::new(record.subject.clone()).map_err(internal)?)
        }
        Command::Register { .. } | Command::Drain { .. } | Command::Deregister { .. } => {
            Answer::Worker(WorkerId::new(record.subject.clone()).map_err(internal)?)
        }
        Command::Complete { .. } | Command::Fail { .. } | Command::Release { .. } => Answer::Accepted,
        Command::Acquire { .. } | Command::Renew { .. } | Command::Tick | Command::Tidy | Command::Clear { .. } => {
            return Err(reused());
        }
    }))
}

fn move_search(search: &Search, to: Move, context: &Context<'_>) -> Result<Decision, Refusal> {
    let done = Decision::answer(Answer::Search(search.id.clone()));
    let refuse = |problem: &str| Err(Refusal::Phase { search: search.id.clone(), problem: problem.to_owned() });
    let moved = |phase: Phase, reason: &str| Fact::SearchMoved {
        search: search.id.clone(),
        phase,
        reason: reason.to_owned(),
        at: context.now,
    };
    match (to, search.phase) {
        (Move::Pause, Phase::Pending | Phase::Running) => Ok(done.fact(moved(Phase::Paused, "paused"))),
        (Move::Pause, Phase::Paused) => Ok(done),
        (Move::Resume, Phase::Paused) => {
            let phase = if search.bound.is_some() { Phase::Running } else { Phase::Pending };
            Ok(done.fact(moved(phase, "")))
        }
        (Move::Resume, Phase::Pending | Phase::Running) => Ok(done),
        (Move::Stop, Phase::Pending | Phase::Running | Phase::Paused) => {
            Ok(end(search, Phase::Stopped, "stopped", done, context))
        }
        (Move::Stop, Phase::Completed | Phase::Stopped | Phase::Failed) => Ok(done),
        (Move::Pause, Phase::Completed | Phase::Stopped | Phase::Failed) => refuse("has ended"),
        (Move::Resume, Phase::Completed) => refuse("has completed; it goes on with a larger budget: `evocache extend`"),
        (Move::Resume, Phase::Stopped | Phase::Failed) => refuse("has ended for good; launch another one"),
        (Move::Delete, Phase::Completed | Phase::Stopped | Phase::Failed) => {
            Ok(done.fact(Fact::SearchDeleted { search: search.id.clone() }))
        }
        (Move::Delete, Phase::Pending | Phase::Running | Phase::Paused) => {
            refuse("has not ended; stop it before deleting it")
        }
    }
}

/// Ends a search: nobody wants its open candidates any more.
pub(super) fn end(search: &Search, phase: Phase, reason: &str, decision: Decision, context: &Context<'_>) -> Decision {
    let moved = Fact::SearchMoved { search: search.id.clone(), phase, reason: reason.to_owned(), at: context.now };
    let mut decision = decision.fact(moved);
    for &candidate in search.pending.iter().chain(&search.leased) {
        let Some(entry) = search.candidate(candidate) else { continue };
        // Whoever finished with this very decision is no longer open.
        let already = decision.facts.iter().any(|f| {
            matches!(f, Fact::LeaseMoved { search: s, candidate: c, state, .. }
                if *s == search.id && *c == candidate && !state.is_open())
        });
        if already {
            continue;
        }
        if let Ok(lease::Transition::To(state)) = lease::step(&entry.lease, &Event::Cancel, context.now, context.policy)
        {
            let granted = entry.granted;
            decision = decision.fact(Fact::LeaseMoved { search: search.id.clone(), candidate, state, granted });
        }
    }
    decision
}

fn tidy(state: &State, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    for (request, record) in &state.requests {
        if now.since(record.at) > REQUEST_MEMORY {
            decision = decision.fact(Fact::RequestForgotten { request: request.clone() });
        }
    }
    for (id, worker) in &state.workers {
        let holds = worker.leases > 0;
        if now.since(worker.seen.max(state.recovered)) > WORKER_MEMORY && !holds {
            decision = decision.fact(Fact::WorkerForgotten { worker: id.clone() });
        }
    }
    decision
}
