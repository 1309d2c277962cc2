//! Who makes a call, what the call is about, and its line in the audit log.

use std::sync::{Arc, OnceLock};

use tonic::{Code, Request, Status};

use super::access::Effect;
use crate::server::status;
use evocache_net::tokens::Role;

/// Bytes of a call's path that the audit log contains.
const METHOD_BYTES: usize = 100;

/// Who makes a call, and what the call turns out to be about.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Caller {
    /// Name and role of the token; `None` if no token is required.
    known: Option<(Arc<str>, Role)>,
    subject: Arc<OnceLock<String>>,
}

impl Caller {
    /// The holder of a token.
    pub(super) fn holder(name: &str, role: Role) -> Self {
        Self { known: Some((name.into(), role)), subject: Arc::default() }
    }

    /// Takes a call apart. Fails for a call that has not passed the gate.
    pub(in crate::server) fn of<M>(request: Request<M>) -> Result<(Self, M), Status> {
        let caller = request.extensions().get::<Self>().cloned();
        let caller = caller.ok_or_else(|| status::internal("a call that has not passed the gate"))?;
        Ok((caller, request.into_inner()))
    }

    /// The token's name; `None` if no token is required.
    pub(in crate::server) fn name(&self) -> Option<&Arc<str>> {
        self.known.as_ref().map(|(name, _)| name)
    }

    /// Whether the caller may act for a worker that this principal registered. An empty principal is from a time without
    /// tokens: any worker's token may act for it.
    pub(in crate::server) fn speaks_for(&self, principal: &str) -> bool {
        match &self.known {
            None | Some((_, Role::Admin)) => true,
            Some((name, _)) => principal.is_empty() || principal == &**name,
        }
    }

    /// What the call is about, once that is known.
    pub(in crate::server) fn subject(&self) -> Option<&str> {
        self.subject.get().map(String::as_str)
    }

    /// Says what the call is about, for the audit log and the trace. Only the first subject counts.
    pub(in crate::server) fn about(&self, subject: impl std::fmt::Display) {
        let _ = self.subject.set(subject.to_string());
    }
}

/// The line of one call in the audit log, written when the call is over.
pub(super) struct Record {
    caller: Caller,
    method: String,
    effect: Effect,
    outcome: Code,
}

impl Record {
    /// A call that is cancelled unless [`end`](Self::end) says otherwise.
    pub(super) fn new(caller: Caller, method: String, effect: Effect) -> Self {
        Self { caller, method, effect, outcome: Code::Cancelled }
    }

    /// The call was answered.
    pub(super) fn end(mut self, outcome: Code) {
        self.outcome = outcome;
    }
}

impl Drop for Record {
    /// In `drop`, so that a call whose caller has hung up is logged too: what it changes is changed.
    fn drop(&mut self) {
        let subject = self.caller.subject();
        let denied = matches!(self.outcome, Code::Unauthenticated | Code::PermissionDenied);
        let logged = match self.effect {
            Effect::Reads => denied,
            Effect::Changes => true,
            Effect::Routine => denied || subject.is_some(),
        };
        if logged {
            let principal = self.caller.known.as_ref().map_or("-", |(name, _)| name);
            // Anybody may send a path of any text and length.
            let method = self.method.get(..METHOD_BYTES).unwrap_or(&self.method);
            let (subject, outcome) = (subject.unwrap_or("-"), format!("{:?}", self.outcome));
            // The word is in the message too: a log in text format does not show targets.
            if self.effect == Effect::Routine && !denied {
                tracing::debug!(target: "audit", principal, method, subject, outcome, "audit");
            } else {
                tracing::info!(target: "audit", principal, method, subject, outcome, "audit");
            }
        }
    }
}
