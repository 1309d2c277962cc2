//! The gate that every call passes: who calls, whether the caller may, how often, and what the audit log says about it.
//!
//! A layer in front of all services, so that a service cannot forget it. It takes the token off the call, so that nothing
//! behind it can log one. Who may make which call is `access.rs`; rate limits are `quota.rs`; the token file is
//! `crate::tokens`.

use std::future::ready;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderMap};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Code, Status};
use tower_layer::Layer;

use super::access::{self, Need};
use super::answers::{Answer, Flow, Small};
use super::budget::Budget;
use super::caller::{Caller, Record};
use super::principal::Principal;
use super::quota::{Kind, Limiter, Place};
use super::refusals;
use super::requests::{Bounded, receive};
use super::turns::Turns;
use crate::ports::Clock;
use crate::server::activity::Peer;
use crate::server::limits;
use evocache_net::tokens::Tokens;

/// Admits or refuses calls. Clones share everything.
#[derive(Clone)]
pub struct Gate {
    /// `None` if no token is required.
    tokens: Arc<RwLock<Option<Tokens>>>,
    limiter: Limiter,
    requests: Budget,
    answers: Budget,
    turns: Turns,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// A gate that requires one of these tokens, if there are any.
    pub fn new(tokens: Option<Tokens>, limiter: Limiter, clock: Arc<dyn Clock>) -> Self {
        let (requests, answers) = (Budget::new(limits::REQUESTS), Budget::new(limits::ANSWERS));
        Self { tokens: Arc::new(RwLock::new(tokens)), limiter, requests, answers, turns: Turns::new(), clock }
    }

    /// Requires one of these tokens from now on. Calls that were admitted, streams among them, go on.
    pub fn replace(&self, tokens: Tokens) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    /// Bytes of requests that are not processed yet, and of answers that are not read yet.
    pub fn held(&self) -> (usize, usize) {
        (self.requests.held(), self.answers.held())
    }

    /// The caller, if the call is allowed. A refusal comes with the caller as far as it is known.
    fn admit(&self, path: &str, need: Need, headers: &mut HeaderMap) -> Result<Caller, (Caller, Status)> {
        let shown = headers.remove(AUTHORIZATION);
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let Some(tokens) = tokens.as_ref() else { return Ok(Caller::default()) };
        if need == Need::Nothing {
            return Ok(Caller::default());
        }
        let unknown = |status| Err((Caller::default(), status));
        let Some(shown) = shown else { return unknown(refusals::token_missing()) };
        let secret = shown.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((_, secret)) = secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return unknown(refusals::token_missing());
        };
        let Some(token) = tokens.find(secret.trim()) else { return unknown(refusals::token_unknown()) };
        let caller = Caller::holder(&token.name, token.role);
        if token.expires.is_some_and(|end| self.clock.now().0 >= end) {
            return Err((caller, refusals::token_expired(&token.name)));
        }
        if !need.admits(token.role) {
            return Err((caller, refusals::role_needed(path, token.role.as_str(), need.as_str())));
        }
        Ok(caller)
    }

    /// Counts the call against its principal's rate limit.
    fn enter(&self, kind: Kind, caller: &Caller, peer: Option<IpAddr>) -> Result<Option<Place>, Status> {
        // Without tokens, a caller on this machine can do worse than call too often.
        if caller.name().is_none() && kind != Kind::Strangers && peer.is_some_and(|address| address.is_loopback()) {
            return Ok(None);
        }
        self.limiter.enter(kind, principal(caller, peer)).map_err(|excess| refusals::too_many_calls(excess, kind))
    }
}

/// In whose name a call is counted.
fn principal(caller: &Caller, peer: Option<IpAddr>) -> Principal {
    match (caller.name(), peer) {
        (Some(name), _) => Principal::Token(name.clone()),
        (None, Some(address)) => Principal::address(address),
        (None, None) => Principal::Others,
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
                // Counted by address: a refused name may be anybody's.
                if let Err(status) = self.gate.enter(Kind::Strangers, &Caller::default(), peer) {
                    return refuse(status);
                }
                Record::new(caller, path, effect).end(status.code());
                return refuse(status);
            }
        };
        // Calls beyond the limit are counted and not logged: a flood of calls must not flood the audit log.
        let kind = access::kind(need, effect);
        let place = match self.gate.enter(kind, &caller, peer) {
            Ok(place) => place,
            Err(status) => return refuse(status),
        };
        request.extensions_mut().insert(caller.clone());
        // A connection with nothing but calls that need no token may be closed when there are too many.
        let running = connection.map(|peer| peer.begin(need != Need::Nothing));
        let place = (place, running);
        let principal = principal(&caller, peer);
        let record = Record::new(caller, path.clone(), effect);
        let (requests, answers) = (self.gate.requests.clone(), self.gate.answers.clone());
        let turns = self.gate.turns.clone();
        // This service is ready; its clone has to be polled again.
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
            let received = receive(body, &path, (&requests, &principal)).await;
            let room = match (received, limits::answer_bytes(&path)) {
                (Ok(received), 0) => Ok((received, None)),
                (Ok(received), bytes) => answers.take(&principal, bytes).await.map(|share| (received, Some(share))),
                (Err(status), _) => Err(status),
            };
            let ((body, held), share) = match room {
                Ok(room) => room,
                Err(status) => {
                    record.end(status.code());
                    return Ok(status.into_http());
                }
            };
            // Calls of workers are decided fast or wait for work.
            let turn = if kind == Kind::Workers { None } else { Some(turns.take(&principal).await) };
            let answer = inner.call(http::Request::from_parts(parts, body)).await?;
            drop(held);
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

/// The code of an answer: a refusal has it in the headers, and any other answer ends with `Ok`.
fn code(answer: &http::Response<Body>) -> Code {
    answer.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
