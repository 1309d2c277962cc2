//! The one place that every call passes: who calls, whether that may be, how often, and what the audit says of it.
//!
//! A layer in front of all services, so that a service cannot forget it. It takes the token off the call, so that nothing
//! behind it can log one. Absent on purpose: the table of who may call what, which is `access.rs`, what is too often,
//! which is `quota.rs`, and the tokens' file.

use std::future::ready;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderMap};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Request, Status};
use tower_layer::Layer;

use super::access::{self, Effect, Need};
use super::body::{self, Answer, Bounded, Flow, Small};
use super::budget::Budget;
use super::connections::Peer;
use super::quota::{Kind, Limiter, Place, Principal};
use super::turns::Turns;
use super::{limits, status};
use crate::engine::Refusal;
use crate::ports::Clock;
use crate::tokens::{Role, Tokens};

/// Bytes of a call's path that are written down.
const METHOD_BYTES: usize = 100;

/// Lets calls in or not. Clones share the tokens.
#[derive(Clone)]
pub struct Gate {
    /// `None`: no token is asked for.
    tokens: Arc<RwLock<Option<Tokens>>>,
    limiter: Limiter,
    requests: Budget,
    answers: Budget,
    turns: Turns,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// A gate that asks for one of these tokens, or, without any, for nothing.
    pub fn new(tokens: Option<Tokens>, limiter: Limiter, clock: Arc<dyn Clock>) -> Self {
        let (requests, answers) = (Budget::new(limits::REQUESTS), Budget::new(limits::ANSWERS));
        Self { tokens: Arc::new(RwLock::new(tokens)), limiter, requests, answers, turns: Turns::new(), clock }
    }

    /// Asks for these tokens from now on. A call that is in is not put out: a stream lives to its end.
    pub fn replace(&self, tokens: Tokens) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    /// Bytes of requests that are not taken in yet, and of answers that nobody has read.
    pub fn held(&self) -> (usize, usize) {
        (self.requests.held(), self.answers.held())
    }

    /// Who calls, if the call may go on. Beside a refusal stands the caller's name, as far as it is known.
    fn admit(&self, path: &str, need: Need, headers: &mut HeaderMap) -> Result<Caller, (Caller, Status)> {
        let shown = headers.remove(AUTHORIZATION);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = tokens.as_ref() else { return Ok(Caller::default()) };
        if need == Need::Nothing {
            return Ok(Caller::default());
        }
        let unknown = |status| Err((Caller::default(), status));
        let Some(shown) = shown else { return unknown(status::token_missing()) };
        let secret = shown.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((_, secret)) = secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return unknown(status::token_missing());
        };
        let Some(token) = tokens.find(secret.trim()) else { return unknown(status::token_unknown()) };
        let caller = Caller { known: Some((token.name.as_str().into(), token.role)), subject: Arc::default() };
        if token.expires.is_some_and(|end| self.clock.now() >= end) {
            return Err((caller, status::token_expired(&token.name)));
        }
        if !need.admits(token.role) {
            return Err((caller, status::role_needed(path, token.role.as_str(), need.as_str())));
        }
        Ok(caller)
    }

    /// A place for the call among those of its principal.
    fn enter(&self, kind: Kind, caller: &Caller, peer: Option<IpAddr>) -> Result<Option<Place>, Status> {
        // Whoever is on this machine and is asked for no token can do worse than to call often.
        if caller.known.is_none() && kind != Kind::Strangers && peer.is_some_and(|address| address.is_loopback()) {
            return Ok(None);
        }
        self.limiter.enter(kind, principal(caller, peer)).map_err(|excess| status::too_much(excess, kind))
    }
}

/// Under whose name a call is counted.
fn principal(caller: &Caller, peer: Option<IpAddr>) -> Principal {
    match (&caller.known, peer) {
        (Some((name, _)), _) => Principal::Token(name.clone()),
        (None, Some(address)) => Principal::address(address),
        (None, None) => Principal::Others,
    }
}

/// Who makes a call, and what the call turned out to be about.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    /// Name and role of the token; `None` where no token is asked for.
    known: Option<(Arc<str>, Role)>,
    subject: Arc<OnceLock<String>>,
}

impl Caller {
    /// Takes a call apart.
    pub(super) fn of<M>(request: Request<M>) -> Result<(Self, M), Status> {
        let caller = request.extensions().get::<Self>().cloned();
        let caller = caller
            .ok_or_else(|| status::refusal(Refusal::Internal("a call that has not passed the gate".to_owned())))?;
        Ok((caller, request.into_inner()))
    }

    /// The token's name, or nothing where no token is asked for.
    pub(super) fn name(&self) -> &str {
        self.known.as_ref().map_or("", |(name, _)| name)
    }

    /// Whether the caller has shown a token.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Whether the caller may speak for a worker that this principal has registered. Nothing as principal: the worker
    /// is from a time without tokens, and whoever is a worker may go on with it.
    pub(super) fn speaks_for(&self, principal: &str) -> bool {
        match &self.known {
            None | Some((_, Role::Admin)) => true,
            Some((name, _)) => principal.is_empty() || principal == &**name,
        }
    }

    /// What the call is about, once that is known.
    pub(super) fn subject(&self) -> Option<&str> {
        self.subject.get().map(String::as_str)
    }

    /// Says what the call is about, for the audit. The first word counts.
    pub(super) fn about(&self, subject: impl std::fmt::Display) {
        let _ = self.subject.set(subject.to_string());
    }
}

/// The line of one call in the audit, written when the call is over.
struct Record {
    caller: Caller,
    method: String,
    effect: Effect,
    outcome: Code,
}

impl Record {
    /// The call has been answered.
    fn end(mut self, outcome: Code) {
        self.outcome = outcome;
    }
}

impl Drop for Record {
    /// In `drop`, so that a call whose caller has hung up leaves its line too: what it changes is changed.
    fn drop(&mut self) {
        let subject = self.caller.subject();
        let denied = matches!(self.outcome, Code::Unauthenticated | Code::PermissionDenied);
        let told = match self.effect {
            Effect::Reads => denied,
            Effect::Changes => true,
            Effect::Routine => denied || subject.is_some(),
        };
        if told {
            let principal = self.caller.known.as_ref().map_or("-", |(name, _)| name);
            // A stranger may write anything into a path, and as much as fits.
            let method = self.method.get(..METHOD_BYTES).unwrap_or(&self.method);
            let (subject, outcome) = (subject.unwrap_or("-"), format!("{:?}", self.outcome));
            // The word stands in the message too: a log in text shows no targets.
            if self.effect == Effect::Routine && !denied {
                tracing::debug!(target: "audit", principal, method, subject, outcome, "audit");
            } else {
                tracing::info!(target: "audit", principal, method, subject, outcome, "audit");
            }
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// Services behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let (need, effect) = access::rule(&path);
        let connection = request.extensions().get::<Peer>().cloned();
        let peer = connection.as_ref().map(|peer| peer.address);
        let refuse = |status: Status| -> Self::Future { Box::pin(ready(Ok(status.into_http()))) };
        let caller = match self.gate.admit(&path, need, request.headers_mut()) {
            Ok(caller) => caller,
            Err((caller, status)) => {
                // Under whose name it is counted says the connection: a name that was refused may be anybody's.
                if let Err(status) = self.gate.enter(Kind::Strangers, &Caller::default(), peer) {
                    return refuse(status);
                }
                drop(Record { caller, method: path, effect, outcome: status.code() });
                return refuse(status);
            }
        };
        // What is too often is counted and not written down: who floods the coordinator must not flood the audit.
        let kind = access::kind(need, effect);
        let place = match self.gate.enter(kind, &caller, peer) {
            Ok(place) => place,
            Err(status) => return refuse(status),
        };
        request.extensions_mut().insert(caller.clone());
        // Who is asked for nothing is no stranger; who asks for what everybody may have is one.
        let running = connection.map(|peer| peer.begin(need != Need::Nothing));
        let place = (place, running);
        let principal = principal(&caller, peer);
        let record = Record { caller, method: path.clone(), effect, outcome: Code::Cancelled };
        let (requests, answers) = (self.gate.requests.clone(), self.gate.answers.clone());
        let turns = self.gate.turns.clone();
        // The one that is ready now; its successor is asked again.
        let successor = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, successor);
        if limits::is_stream(&path) {
            let most = limits::request_bytes(&path);
            let answer = inner.call(request.map(|body| Body::new(Bounded::new(body, most))));
            return Box::pin(async move {
                let answer = answer.await?;
                record.end(code(&answer));
                Ok(answer.map(|inner| Body::new(Flow::new(inner, answers, principal, place))))
            });
        }
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let heard = body::hear(body, &path, (&requests, &principal)).await;
            let room = match (heard, limits::answer_bytes(&path)) {
                (Ok(heard), 0) => Ok((heard, None)),
                (Ok(heard), bytes) => answers.take(&principal, bytes).await.map(|share| (heard, Some(share))),
                (Err(status), _) => Err(status),
            };
            let ((body, heard), share) = match room {
                Ok(room) => room,
                Err(status) => {
                    record.end(status.code());
                    return Ok(status.into_http());
                }
            };
            // What workers call is decided fast or waits for work.
            let turn = if kind == Kind::Workers { None } else { Some(turns.take(&principal).await) };
            let answer = inner.call(http::Request::from_parts(parts, body)).await?;
            drop(heard);
            record.end(code(&answer));
            let Some(share) = share else { return Ok(answer.map(|body| Body::new(Small::new(body, place)))) };
            let (parts, body) = answer.into_parts();
            let answer = Answer::of(body, share, place).await;
            drop(turn);
            Ok(match answer {
                Ok(answer) => http::Response::from_parts(parts, Body::new(answer)),
                Err(status) => status.into_http(),
            })
        })
    }
}

/// The code of an answer: a refusal has it in the headers, an answer has it after its end, and then it is this one.
fn code(answer: &http::Response<Body>) -> Code {
    answer.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
