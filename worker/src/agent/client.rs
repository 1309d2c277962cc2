//! The coordinator as the agent sees it: one method per call, each with a deadline; what a failure means; back-off.
//!
//! Absent on purpose: what to do about a failure.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evocache_net::back_off::{BackOff, Waits};
use evocache_net::channel::{self, MAX_MESSAGE_BYTES};
use evocache_net::credentials::Credentials;
use evocache_net::telemetry::{self, Remote};
use evocache_proto::pb;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use tracing::{Span, info, warn};

use super::AgentError;

pub(super) const CONNECT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(30);
/// Internal errors in a row before one counts as an answer.
const MOST_TROUBLES: u32 = 8;

/// The service over a connection that shows the token with each call.
type Service = WorkerServiceClient<InterceptedService<Channel, Credentials>>;

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nobody answered, or somebody who is stopping or has too much to do: try again, for ever.
    Unreachable(String),
    /// The coordinator has a problem of its own: try again, not for ever.
    Troubled(String),
    /// What the call is about is not there (any more).
    NotFound(String),
    /// The coordinator does not let this worker in.
    Denied(String),
    /// The answer is no, and will be no again.
    Refused {
        /// Whether the message itself was at fault, not the state of things.
        invalid: bool,
        /// What the coordinator said.
        answer: String,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Troubled(text) | Self::NotFound(text) | Self::Denied(text) => {
                f.write_str(text)
            }
            Self::Refused { answer, .. } => f.write_str(answer),
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // A status that tonic made of a broken connection has a source; one that was received has none.
        let from_transport = std::error::Error::source(&status).is_some();
        let text = describe(&status);
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unreachable(text),
            Code::Internal | Code::Unknown if from_transport => Self::Unreachable(text),
            // It has too much to do now and has said when to come back.
            Code::ResourceExhausted if status.get_details_retry_info().is_some() => Self::Unreachable(text),
            Code::Internal | Code::Unknown | Code::Aborted | Code::ResourceExhausted => Self::Troubled(text),
            Code::NotFound => Self::NotFound(text),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            Code::InvalidArgument | Code::OutOfRange => Self::Refused { invalid: true, answer: text },
            Code::Ok | Code::AlreadyExists | Code::FailedPrecondition | Code::Unimplemented | Code::DataLoss => {
                Self::Refused { invalid: false, answer: text }
            }
        }
    }
}

/// The status as people read it: its text, what it hides beneath, and the code's name.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&more);
        }
        cause = error.source();
    }
    if text.is_empty() { status.code().description().to_owned() } else { format!("{text} ({:?})", status.code()) }
}

/// A connection to the coordinator that comes back by itself.
pub(super) struct Coordinator {
    url: String,
    client: Service,
    back_off: BackOff,
    /// Why there is no contact; `None` while there is.
    lost: Mutex<Option<String>>,
}

impl Coordinator {
    /// Connects at the first call. `http://` may be left away. Needs a runtime.
    pub(super) fn new(url: &str, credentials: Credentials, back_off: BackOff) -> Result<Self, AgentError> {
        let channel = channel::endpoint(url, &credentials, CONNECT)?.connect_lazy();
        let url = channel::normal_url(url)?;
        let client = WorkerServiceClient::with_interceptor(channel, credentials)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { url, client, back_off, lost: Mutex::new(None) })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The waits between attempts, from the first.
    pub(super) fn waits(&self) -> Waits {
        self.back_off.start()
    }

    /// Why there is no contact, for a message.
    pub(super) fn last_failure(&self) -> String {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.clone().unwrap_or_else(|| "no answer yet".to_owned())
    }

    /// Repeats the call until there is an answer, waiting longer each time.
    pub(super) async fn until_answered<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let (mut waits, mut troubles) = (self.waits(), 0);
        loop {
            match call().await {
                Err(CallError::Unreachable(_)) => {}
                Err(CallError::Troubled(_)) if troubles + 1 < MOST_TROUBLES => troubles += 1,
                answered => return answered,
            }
            tokio::time::sleep(waits.next_wait()).await;
        }
    }

    pub(super) async fn register(
        &self,
        request: pb::RegisterWorkerRequest,
    ) -> Result<pb::RegisterWorkerResponse, CallError> {
        self.call(SHORT, request, async |mut client, request| client.register_worker(request).await).await
    }

    /// The lease comes with the coordinator's span, in whose trace it was given.
    pub(super) async fn acquire(
        &self,
        worker_id: &str,
        wait: Duration,
    ) -> Result<(pb::AcquireLeaseResponse, Remote), CallError> {
        let request = pb::AcquireLeaseRequest { worker_id: worker_id.to_owned(), wait: wait.try_into().ok() };
        self.answered(wait + SHORT, request, async |mut client, request| client.acquire_lease(request).await).await.map(
            |answer| {
                let remote = telemetry::remote(answer.metadata().as_ref());
                (answer.into_inner(), remote)
            },
        )
    }

    pub(super) async fn calibration(
        &self,
        request: pb::GetCalibrationRequest,
    ) -> Result<pb::GetCalibrationResponse, CallError> {
        self.call(LONG, request, async |mut client, request| client.get_calibration(request).await).await
    }

    /// The deadline is the time after which the next renewal would be due.
    pub(super) async fn renew(
        &self,
        deadline: Duration,
        request: pb::RenewLeasesRequest,
    ) -> Result<pb::RenewLeasesResponse, CallError> {
        let deadline = deadline.clamp(Duration::from_secs(1), SHORT);
        self.call(deadline, request, async |mut client, request| client.renew_leases(request).await).await
    }

    pub(super) async fn complete(
        &self,
        request: pb::CompleteEvaluationRequest,
    ) -> Result<pb::CompleteEvaluationResponse, CallError> {
        self.call(LONG, request, async |mut client, request| client.complete_evaluation(request).await).await
    }

    pub(super) async fn fail(
        &self,
        request: pb::FailEvaluationRequest,
    ) -> Result<pb::FailEvaluationResponse, CallError> {
        self.call(SHORT, request, async |mut client, request| client.fail_evaluation(request).await).await
    }

    pub(super) async fn deregister(
        &self,
        request: pb::DeregisterWorkerRequest,
    ) -> Result<pb::DeregisterWorkerResponse, CallError> {
        self.call(SHORT, request, async |mut client, request| client.deregister_worker(request).await).await
    }

    pub(super) async fn release(
        &self,
        request: pb::ReleaseLeaseRequest,
    ) -> Result<pb::ReleaseLeaseResponse, CallError> {
        self.call(SHORT, request, async |mut client, request| client.release_lease(request).await).await
    }

    async fn call<Q, A, F>(
        &self,
        deadline: Duration,
        request: Q,
        send: impl FnOnce(Service, Request<Q>) -> F,
    ) -> Result<A, CallError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.answered(deadline, request, send).await.map(Response::into_inner)
    }

    async fn answered<Q, A, F>(
        &self,
        deadline: Duration,
        request: Q,
        send: impl FnOnce(Service, Request<Q>) -> F,
    ) -> Result<Response<A>, CallError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        telemetry::inject(&Span::current(), request.metadata_mut().as_mut());
        // The request's own timeout starts when the connection is there; the outer one covers what comes before.
        let result = match tokio::time::timeout(deadline + CONNECT, send(self.client.clone(), request)).await {
            Ok(result) => result.map_err(CallError::from),
            Err(_) => Err(CallError::Unreachable(format!("no answer within {:?}", deadline + CONNECT))),
        };
        self.note(&result);
        result
    }

    /// Tells people when the contact is lost and when it is there again, once each.
    fn note<T>(&self, result: &Result<T, CallError>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(CallError::Unreachable(why) | CallError::Troubled(why)) = result {
            if lost.is_none() {
                warn!("the coordinator at {} does not answer: {why}; trying again until it does", self.url);
            }
            *lost = Some(why.clone());
        } else if lost.take().is_some() {
            info!("the coordinator at {} answers", self.url);
        }
    }
}

/// A name for a mutating call: a repeat with the same name is the same call.
#[expect(
    clippy::disallowed_methods,
    reason = "a worker's run is never replayed; its request ids must be new each time"
)]
pub(super) fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A duration of the wire, if it is there and longer than zero.
pub(super) fn positive<D>(duration: Option<D>) -> Option<Duration>
where
    D: TryInto<Duration>,
{
    duration.and_then(|d| d.try_into().ok()).filter(|d| !d.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_no_answer_but_an_internal_error_is_one() {
        assert!(matches!(CallError::from(Status::unavailable("stopping")), CallError::Unreachable(_)));
        assert!(matches!(CallError::from(Status::internal("bug 7")), CallError::Troubled(_)));
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let error = CallError::from(broken);
        assert!(matches!(&error, CallError::Unreachable(text) if text.contains("connection reset")), "{error:?}");
        let refused = CallError::from(Status::failed_precondition("superseded"));
        assert!(matches!(refused, CallError::Refused { invalid: false, .. }));
        for status in [Status::unauthenticated("no token"), Status::permission_denied("role")] {
            assert!(matches!(CallError::from(status), CallError::Denied(_)));
        }
    }
}
