//! The contract of evocache, shared by the coordinator, the workers and the clients.
//!
//! - [`domain`]: validated types both sides speak in. Knows nothing of protobuf, gRPC, clocks or files.
//! - [`pb`]: the protobuf messages and gRPC stubs generated from `proto/evocache/v1/*.proto`.
//! - [`wire`]: conversions between the two; the only place where a message becomes a domain type.
//! - [`formats`]: schedules as JSON, in evocache's own format and in ECAD's.
//! - [`credentials`]: the certificates and the token that a caller shows.
//! - [`telemetry`]: traces across coordinator and worker.
//! - [`units`]: durations, sizes, ratios and addresses as people write them.
//! - [`text`]: text from others, made fit for terminals, logs and files.
//!
//! **Architecture invariant:** `domain` imports none of the others. It builds with `--no-default-features`.

pub mod domain;
pub mod text;
pub mod units;

#[cfg(feature = "formats")]
pub mod formats;

#[cfg(feature = "wire")]
pub mod credentials;
#[cfg(feature = "wire")]
pub mod telemetry;
#[cfg(feature = "wire")]
pub mod wire;

/// Messages and stubs generated from `evocache.v1`.
#[cfg(feature = "wire")]
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the documentation stands in the .proto files"
)]
pub mod pb {
    tonic::include_proto!("evocache.v1");

    /// The encoded `FileDescriptorSet` of the contract, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("evocache_v1");
}

/// The version of the protocol between coordinator and worker. A worker that speaks another one is refused.
pub const PROTOCOL_VERSION: u32 = 1;
