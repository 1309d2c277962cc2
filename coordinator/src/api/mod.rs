//! The gRPC services: messages in, commands and questions to the engine, messages out.
//!
//! Absent on purpose: decisions. A service checks a message, hands it to the engine and encodes the answer; the one
//! place where an error becomes a status is `status.rs`, the one where limits stand is `limits.rs`, the one that knows
//! who may call what is `access.rs`, and how often `quota.rs`.

mod access;
mod body;
mod budget;
mod connections;
mod counts;
mod encode;
mod files;
mod fleet;
mod gate;
mod incoming;
pub mod limits;
mod meter;
mod page;
mod question;
mod quota;
mod search;
mod status;
mod store;
mod tls;
mod trace;
mod turns;
mod watches;
mod worker;

use std::net::SocketAddr;

use evocache_proto::pb;
use evocache_proto::pb::fleet_service_server::FleetServiceServer;
use evocache_proto::pb::search_service_server::SearchServiceServer;
use evocache_proto::pb::store_service_server::StoreServiceServer;
use evocache_proto::pb::worker_service_server::WorkerServiceServer;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower_layer::{Identity, Stack};

pub use connections::{ConnectionCounts, ConnectionLimits, Connections, Peer, Watched};
pub(crate) use files::raise_limit;
pub use gate::Gate;
pub use incoming::{Connection, Incoming};
pub use meter::{Call, Calls, Metered};
pub use quota::{Allowance, Kind, Limiter, Quotas};
pub use tls::{Expiry, Tls, TlsFiles};
pub use trace::{Spans, Traced};

use crate::engine::{Handle, Request};

/// What the services need.
#[derive(Clone)]
pub struct Services {
    /// The engine.
    pub engine: Handle,
    /// How long a lease lives without renewal.
    pub lease_ttl: std::time::Duration,
    /// Turns true when the coordinator begins to stop: long polls and watches end.
    pub stopping: watch::Receiver<bool>,
}

impl Services {
    /// Returns when the coordinator begins to stop.
    async fn stopped(&self) {
        // An error means that nobody can tell any more: that is a stop as well.
        let _ = self.stopping.clone().wait_for(|&stopping| stopping).await;
    }
}

/// A server. Its connections come encrypted or not, as [`Incoming`] takes them.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(limits::KEEP_ALIVE))
        .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT))
        .http2_max_header_list_size(limits::MAX_HEADERS)
        .max_concurrent_streams(limits::CALLS_PER_CONNECTION)
}

/// All services behind one gate: the four of evocache, health, and reflection in both versions. Every call is counted,
/// those that the gate refuses too; those that it lets in have spans.
pub async fn router(
    server: Server,
    gate: Gate,
    calls: Calls,
    services: Services,
) -> Result<Router<Stack<Spans, Stack<Gate, Stack<Calls, Identity>>>>, tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SearchServiceServer<search::Searches>>().await;
    health.set_serving::<WorkerServiceServer<worker::Workers>>().await;
    health.set_serving::<FleetServiceServer<fleet::Fleet>>().await;
    health.set_serving::<StoreServiceServer<store::Stores>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let searches = SearchServiceServer::new(search::Searches::new(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let workers = WorkerServiceServer::new(worker::Workers(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let fleet = FleetServiceServer::new(fleet::Fleet(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let store = StoreServiceServer::new(store::Stores(services))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    Ok(server
        .layer(calls)
        .layer(gate)
        .layer(Spans)
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(searches)
        .add_service(workers)
        .add_service(fleet)
        .add_service(store))
}

/// The request id and content of a mutating call; `None` if the caller gave no id and takes the risk of a repeat.
fn request<M: prost::Message>(id: &str, message: &M) -> Result<Option<Request>, tonic::Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = id.parse().map_err(|e| status::invalid("request_id", e))?;
    Ok(Some(Request { id, digest: Sha256::digest(message.encode_to_vec()).into() }))
}

/// A worker that was not heard of for longer is told as gone.
pub fn silence(lease_ttl: std::time::Duration) -> std::time::Duration {
    lease_ttl.max(limits::MAX_WAIT) * 2
}

/// Whether an address is reachable from this machine only.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}
