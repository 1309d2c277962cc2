//! All services behind one gate.

use evocache_proto::pb;
use evocache_proto::pb::fleet_service_server::FleetServiceServer;
use evocache_proto::pb::search_service_server::SearchServiceServer;
use evocache_proto::pb::store_service_server::StoreServiceServer;
use evocache_proto::pb::worker_service_server::WorkerServiceServer;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower_layer::{Identity, Stack};

use super::fleet::Fleet;
use super::searches::Searches;
use super::services::Services;
use super::stores::Stores;
use super::trace::Spans;
use super::workers::Workers;
use crate::server::gate::{Calls, Gate};
use crate::server::limits;

/// A server with the limits of connections. [`Incoming`](crate::server::Incoming) encrypts them, if at all.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(limits::KEEP_ALIVE))
        .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT))
        .http2_max_header_list_size(limits::MAX_HEADERS)
        .max_concurrent_streams(limits::CALLS_PER_CONNECTION)
}

/// The four services of evocache, health, and reflection in both versions. Every call is counted, also those that the gate
/// refuses; those that it admits have spans.
pub async fn router(
    server: Server,
    gate: Gate,
    calls: Calls,
    services: Services,
) -> Result<Router<Stack<Spans, Stack<Gate, Stack<Calls, Identity>>>>, tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SearchServiceServer<Searches>>().await;
    health.set_serving::<WorkerServiceServer<Workers>>().await;
    health.set_serving::<FleetServiceServer<Fleet>>().await;
    health.set_serving::<StoreServiceServer<Stores>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let searches = SearchServiceServer::new(Searches::new(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let workers = WorkerServiceServer::new(Workers(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let fleet = FleetServiceServer::new(Fleet(services.clone()))
        .max_decoding_message_size(limits::MAX_REQUEST)
        .max_encoding_message_size(limits::MAX_RESPONSE);
    let stores = StoreServiceServer::new(Stores(services))
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
        .add_service(stores))
}
