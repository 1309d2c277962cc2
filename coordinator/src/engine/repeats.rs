//! Makes a repeated call harmless: a call with a request id that was answered before gets the first answer.

use evocache_proto::domain::{IdError, RequestId, SearchId, WorkerId};

use super::command::{Answer, Command, Move, Request};
use super::decision::Decision;
use super::refusal::Refusal;
use super::state::State;
use crate::ports::{Fact, RequestRecord};
use evocache_domain::time::Timestamp;

/// The command's name in a request record.
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
pub(super) fn answered(state: &State, request: &Request, command: &Command) -> Result<Option<Answer>, Refusal> {
    let Some(record) = state.requests.get(&request.id) else { return Ok(None) };
    let reused = || Refusal::RequestReused(RequestId::clone(&request.id));
    if record.kind != kind(command) || record.digest != request.digest {
        return Err(reused());
    }
    let internal = |e: IdError| Refusal::Internal(e.to_string());
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

/// Stores the answer with the decision's other facts, so that a repeat can be answered after a restart too.
pub(super) fn remember(decision: Decision, request: &Request, command: &Command, now: Timestamp) -> Decision {
    let Some(answer) = &decision.answer else { return decision };
    let record = RequestRecord {
        kind: kind(command).to_owned(),
        digest: request.digest,
        subject: match answer {
            Answer::Search(id) => id.to_string(),
            Answer::Worker(id) => id.to_string(),
            Answer::Work { .. } | Answer::Renewed { .. } | Answer::Accepted => String::new(),
        },
        at: now,
    };
    decision.fact(Fact::RequestAnswered { request: request.id.clone(), record })
}
