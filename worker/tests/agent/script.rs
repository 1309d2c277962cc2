//! A coordinator whose answers come from the test: a real WorkerService over loopback, with a mailbox per method.
//!
//! Has no behavior of its own: each test contains the coordinator's part.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evocache_proto::pb;
use evocache_proto::pb::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};

/// Timeout of all waits, long enough for a busy machine; only a failing test reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A call that waits for the test's answer. If dropped, the call is answered UNAVAILABLE.
pub(crate) struct Asked<Q, A> {
    pub(crate) request: Q,
    answer: oneshot::Sender<Result<A, Status>>,
}

impl<Q, A> Asked<Q, A> {
    /// Answers the call and returns its request. Ignores that the caller may be gone.
    pub(crate) fn answer(self, answer: Result<A, Status>) -> Q {
        let _ = self.answer.send(answer);
        self.request
    }
}

pub(crate) struct Inbox<Q, A>(mpsc::UnboundedReceiver<Asked<Q, A>>);

impl<Q, A> Inbox<Q, A> {
    pub(crate) async fn next(&mut self) -> Asked<Q, A> {
        let asked = tokio::time::timeout(PATIENCE, self.0.recv()).await;
        asked
            .unwrap_or_else(|_| panic!("no {} came", std::any::type_name::<Q>()))
            .expect("the service holds the sender")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone)]
struct Outbox<Q, A>(mpsc::UnboundedSender<Asked<Q, A>>);

fn mailbox<Q, A>() -> (Outbox<Q, A>, Inbox<Q, A>) {
    let (send, receive) = mpsc::unbounded_channel();
    (Outbox(send), Inbox(receive))
}

impl<Q, A> Outbox<Q, A> {
    async fn ask(&self, request: Request<Q>) -> Result<Response<A>, Status> {
        let (answer, answered) = oneshot::channel();
        let gone = || Status::unavailable("the test does not answer");
        self.0.send(Asked { request: request.into_inner(), answer }).map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone())).map(Response::new)
    }
}

macro_rules! coordinator {
    ($($method:ident: $request:ident => $response:ident),* $(,)?) => {
        #[derive(Clone)]
        struct Service {
            $($method: Outbox<pb::$request, pb::$response>,)*
            left: Arc<Mutex<Vec<String>>>,
        }

        #[async_trait]
        impl WorkerService for Service {
            $(async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                self.$method.ask(request).await
            })*

            // Answered at once, so that a worker's exit does not wait for the test.
            async fn deregister_worker(
                &self,
                request: Request<pb::DeregisterWorkerRequest>,
            ) -> Result<Response<pb::DeregisterWorkerResponse>, Status> {
                self.left.lock().expect("nobody panics with it").push(request.into_inner().worker_id);
                Ok(Response::new(pb::DeregisterWorkerResponse {}))
            }
        }

        /// The mailboxes, and the server that fills them.
        pub(crate) struct Coordinator {
            $(pub(crate) $method: Inbox<pb::$request, pb::$response>,)*
            pub(crate) address: SocketAddr,
            service: Service,
            server: Option<Runtime>,
        }

        impl Coordinator {
            /// Reserves a free port. Does not listen on it before [`Self::start`].
            pub(crate) fn new() -> Self {
                $(let $method = mailbox();)*
                let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
                Self {
                    address: free.local_addr().expect("a bound socket has an address"),
                    service: Service { $($method: $method.0,)* left: Arc::default() },
                    $($method: $method.1,)*
                    server: None,
                }
            }
        }
    };
}

coordinator! {
    register_worker: RegisterWorkerRequest => RegisterWorkerResponse,
    get_calibration: GetCalibrationRequest => GetCalibrationResponse,
    acquire_lease: AcquireLeaseRequest => AcquireLeaseResponse,
    renew_leases: RenewLeasesRequest => RenewLeasesResponse,
    complete_evaluation: CompleteEvaluationRequest => CompleteEvaluationResponse,
    fail_evaluation: FailEvaluationRequest => FailEvaluationResponse,
    release_lease: ReleaseLeaseRequest => ReleaseLeaseResponse,
}

impl Coordinator {
    /// The workers that have deregistered.
    pub(crate) fn left(&self) -> Vec<String> {
        self.service.left.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts to listen, on the same port each time.
    pub(crate) fn start(&mut self) {
        self.start_with(Server::builder(), None);
    }

    /// Starts to listen with the given server, and requires this `authorization` of every call.
    pub(crate) fn start_with(&mut self, mut server: Server, authorization: Option<&'static str>) {
        let listener = TcpListener::bind(self.address).expect("the port is still free");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        // A separate runtime, so that stopping it closes every connection like the end of a killed process.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads can be started");
        let service = WorkerServiceServer::with_interceptor(self.service.clone(), move |request: Request<()>| {
            let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            if authorization.is_none() || shown == authorization {
                Ok(request)
            } else {
                Err(Status::unauthenticated("another token"))
            }
        });
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the socket is non-blocking");
            server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await
        });
        self.server = Some(runtime);
    }

    /// Stops the server as if it was killed: connections and unanswered calls break.
    pub(crate) async fn kill(&mut self) {
        let runtime = self.server.take().expect("it was started");
        let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await;
        stopped.expect("shutting a runtime down does not panic");
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.server.take() {
            runtime.shutdown_background();
        }
    }
}
