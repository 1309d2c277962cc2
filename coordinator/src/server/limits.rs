//! Every limit of the coordinator's services in one place: bytes, times, rows and connections.
//!
//! Plain numbers that depend on nothing. The limits on what a message may contain are `evocache_proto::domain::limits`;
//! how often a principal may call is configured, with defaults in `gate/quota.rs`.

use std::time::Duration;

/// Largest message of any call: a measurement with its thumbnails and its profile.
pub const MAX_REQUEST: usize = 12 * 1024 * 1024;
/// Largest specification of a search. Answers repeat it, to clients with gRPC's default limit of 4 MiB.
pub const MAX_SPECIFICATION: usize = 7 * 512 * 1024;
/// Largest registration of a worker: its layout, its metrics, and the cost of each slot.
pub const MAX_REGISTRATION: usize = 1024 * 1024;
/// Largest message of any other call: ids, and reasons that are cut to [`REASON_BYTES`].
pub const MAX_SMALL_REQUEST: usize = 64 * 1024;
/// Largest sum of a call's headers.
pub const MAX_HEADERS: u32 = 16 * 1024;
/// Concurrent calls over one connection.
pub const CALLS_PER_CONNECTION: u32 = 256;
/// Open files that the process asks the system for. Every connection is one.
pub const FILES: usize = 1 << 20;
/// Open files reserved for everything but gRPC connections: the store, the log, the operators' connections.
pub const OTHER_FILES: usize = 192;
/// Connections to the HTTP endpoint for health and metrics.
pub const HTTP_CONNECTIONS: usize = 64;
/// A connection without a call within this time is closed.
pub const FIRST_CALL: Duration = Duration::from_secs(10);
/// A connection to the HTTP endpoint is closed after this time without an answer.
pub const HTTP_SILENCE: Duration = Duration::from_secs(15);
/// Interval at which silent connections are looked for.
pub const LOOK_AT_CONNECTIONS: Duration = Duration::from_secs(1);
/// Connections that may be closing at the same time to make room for others.
pub const LEAVING: usize = 32;
/// How long a new connection waits, at a time, for one of the closing ones to end.
pub const LEAVING_TIME: Duration = Duration::from_millis(100);
/// Default for the connections from one address.
pub const CONNECTIONS_PER_ADDRESS: usize = 16_384;
/// Largest message that is sent: gRPC's default limit for clients.
pub const MAX_RESPONSE: usize = 4 * 1024 * 1024;
/// Messages up to this size do not count against a principal's bytes.
pub const SMALL: usize = 16 * 1024;
/// Bytes of requests that were received and are not processed yet.
pub(crate) const REQUESTS: Allotment =
    Allotment { each: 64 << 20, first: 128 << 20, more: 128 << 20, patience: Duration::from_secs(10) };
/// Bytes of answers that were made and not read yet. Enough for the largest answer of 64 principals while a few others
/// hold as much as they may.
pub(crate) const ANSWERS: Allotment =
    Allotment { each: 32 << 20, first: 64 * MAX_RESPONSE, more: 128 << 20, patience: Duration::from_secs(10) };
/// Calls of readers and operators that are processed at the same time.
pub const TURNS: usize = 16;
/// The same for one principal.
pub const TURNS_EACH: usize = 2;
/// A request must arrive completely within this time.
pub const HEARING: Duration = Duration::from_secs(60);
/// An answer is dropped after this time without a byte being read.
pub const UNREAD: Duration = Duration::from_secs(30);
/// Bytes of an answer that are handed to HTTP/2 at a time.
pub const PIECE: usize = 64 * 1024;
/// Pieces of a backup that are read ahead of the caller.
pub const BACKUP_PIECES: usize = 2;
/// Bytes of an evaluation's thumbnails in an answer; the rest is left out.
pub const PICTURE_BYTES: usize = 1024 * 1024;
/// A page of rows ends at this many bytes, so that clients with gRPC's default limit can read it.
pub const PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Evaluations per page.
pub const EVALUATIONS: PageLimit = PageLimit { most: 1000, default: 100 };
/// Searches per page.
pub const SEARCHES: PageLimit = PageLimit { most: 100, default: 50 };
/// Workers per page.
pub const WORKERS: PageLimit = PageLimit { most: 1000, default: 100 };
/// Searches whose fronts a new search may start from.
pub const START_FROM: usize = 16;
/// Leases per renewal.
pub const RENEWALS: usize = 100;
/// Longest wait of AcquireLease.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Waits up to this long are never shortened; longer ones may end earlier.
pub const SURE_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a failure's reason that are kept.
pub const REASON_BYTES: usize = 4096;
/// Interval of the keep-alive probes on a silent connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A connection is closed when a probe is not answered within this time.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest message of a call. Held against the length prefix of a message before memory is reserved for it.
pub fn request_bytes(path: &str) -> usize {
    match path {
        "/evocache.v1.SearchService/CreateSearch" => MAX_SPECIFICATION,
        "/evocache.v1.WorkerService/CompleteEvaluation" => MAX_REQUEST,
        "/evocache.v1.WorkerService/RegisterWorker" => MAX_REGISTRATION,
        _ => MAX_SMALL_REQUEST,
    }
}

/// Bytes that the answer of a call may have, reserved before it is made; 0 if it is always small.
pub fn answer_bytes(path: &str) -> usize {
    let (service, method) = path.rsplit_once('/').unwrap_or_default();
    match (service, method) {
        ("/evocache.v1.SearchService", "DeleteSearch" | "WatchSearch") => 0,
        ("/evocache.v1.SearchService", _) => MAX_RESPONSE,
        ("/evocache.v1.FleetService", _) | (_, "GetCalibration") => MAX_RESPONSE,
        _ => 0,
    }
}

/// Whether a call takes or gives more than one message.
pub fn is_stream(path: &str) -> bool {
    const STREAMS: [&str; 3] = [
        "/evocache.v1.SearchService/WatchSearch",
        "/evocache.v1.StoreService/BackUpStore",
        "/grpc.health.v1.Health/Watch",
    ];
    STREAMS.contains(&path) || path.starts_with("/grpc.reflection.")
}

/// A worker that is silent for longer than this is shown as silent or gone.
pub(crate) fn silence(lease_ttl: Duration) -> Duration {
    lease_ttl.max(MAX_WAIT) * 2
}

/// Bytes that callers may make the coordinator hold; `gate/budget.rs` enforces it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allotment {
    /// Bytes of one principal.
    pub(crate) each: usize,
    /// Bytes of the first shares of all principals together.
    pub(crate) first: usize,
    /// Bytes of all further shares together.
    pub(crate) more: usize,
    /// How long a caller waits for a share.
    pub(crate) patience: Duration,
}

/// Rows of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// Largest page.
    pub most: u32,
    /// Page size if the caller names none.
    pub default: u32,
}

impl PageLimit {
    /// The page size for a caller that asked for `asked` rows; 0 asks for the default.
    pub fn rows(self, asked: u32) -> usize {
        (if asked == 0 { self.default } else { asked.min(self.most) }) as usize
    }
}
