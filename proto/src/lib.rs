//! The contract of evocache, shared by the coordinator, the workers and the clients.
//!
//! - [`domain`]: the validated types that both sides use.
//! - [`pb`]: the messages and gRPC stubs generated from `proto/evocache/v1/*.proto`.
//! - [`wire`]: the conversions between the two. Only here does a message become a domain type.
//! - [`formats`]: schedules as JSON, in evocache's own format and in ECAD's.
//! - [`units`]: parsers for durations, sizes, ratios and addresses.
//! - [`text`]: escapes untrusted text for terminals, logs and files.
//!
//! **Invariant:** `domain` knows nothing of protobuf, gRPC, JSON, clocks, randomness or files. It builds with
//! `--no-default-features`.

pub mod domain;
pub mod text;
pub mod units;

#[cfg(feature = "formats")]
pub mod formats;

#[cfg(feature = "wire")]
pub mod wire;

/// Messages and stubs generated from `evocache.v1`. Their documentation is that of the `.proto` files.
#[cfg(feature = "wire")]
#[expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
pub mod pb {
    tonic::include_proto!("evocache.v1");

    /// The encoded `FileDescriptorSet` of the contract, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("evocache_v1");
}

/// The version of the worker protocol. The coordinator refuses a worker that speaks another version.
pub const PROTOCOL_VERSION: u32 = 1;
