//! The dispatcher: hands a command to the file under `commands` that decides it, and remembers the answer.

use super::command::{Command, Request};
use super::commands::{acquire, change, complete, create, extend, fail, register, release, renew, tick, tidy};
use super::decision::{Context, Decision};
use super::refusal::Refusal;
use super::repeats;
use super::state::State;
use crate::ports::Fact;

/// Decides a command. Pure: reads the state and changes nothing. A repeated request gets the first answer.
pub fn decide(
    state: &State,
    request: Option<&Request>,
    command: &Command,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    if let Some(answer) = request.map(|r| repeats::answered(state, r, command)).transpose()?.flatten() {
        return Ok(Decision::answer(answer));
    }
    let decision = match command {
        Command::Create { search, spec, from } => create::create(state, search.as_ref(), spec, from, context)?,
        Command::Move { search, to } => change::change(state, search, *to, context)?,
        Command::Extend { search, budget } => extend::extend(state, search, budget, context)?,
        Command::Register { declaration, principal } => register::register(state, declaration, principal, context)?,
        Command::Drain { worker } => register::drain(state, worker)?,
        Command::Deregister { worker } => register::deregister(state, worker, context)?,
        Command::Acquire { worker } => acquire::acquire(state, worker, context)?,
        Command::Renew { worker, leases } => renew::renew(state, worker, leases, context)?,
        Command::Complete { worker, lease, measurement } => {
            complete::complete(state, worker, lease, measurement, context)?
        }
        Command::Fail { worker, lease, reason, retryable } => {
            fail::fail(state, worker, lease, reason, *retryable, context)?
        }
        Command::Release { worker, lease } => release::release(state, worker, lease, context)?,
        Command::Tick => tick::tick(state, context),
        Command::Tidy => tidy::tidy(state, context.now),
        Command::Clear { search } => Decision::default().fact(Fact::SearchCleared { search: search.clone() }),
    };
    Ok(match request {
        Some(request) => repeats::remember(decision, request, command, context.now),
        None => decision,
    })
}
