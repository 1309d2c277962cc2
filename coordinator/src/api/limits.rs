//! Every limit of the API in one place.

use std::time::Duration;

use super::budget::Allotment;

/// Largest message that is read: a measurement with its thumbnails and its profile.
pub const MAX_REQUEST: usize = 12 * 1024 * 1024;
/// Largest specification of a search: what is in it is told again, to clients with gRPC's default limit.
pub const MAX_SPECIFICATION: usize = 7 * 512 * 1024;
/// Largest message that says of a worker what it is: its layout, its metrics, and what each slot computes.
pub const MAX_REGISTRATION: usize = 1024 * 1024;
/// Largest message of any other call: ids, and reasons of which little is kept.
pub const MAX_SMALL_REQUEST: usize = 64 * 1024;
/// Largest sum of a call's headers.
pub const MAX_HEADERS: u32 = 16 * 1024;
/// Calls at the same time over one connection.
pub const CALLS_PER_CONNECTION: u32 = 256;
/// Files that the process asks to have open: connections over which people and workers call, and others.
pub const FILES: usize = 1 << 20;
/// Those of them that are no such connections: the store's, the log's, those of operators.
pub const OTHER_FILES: usize = 192;
/// Connections over which operators ask for health and metrics.
pub const HTTP_CONNECTIONS: usize = 64;
/// A connection over which nobody has called within this time is closed.
pub const FIRST_CALL: Duration = Duration::from_secs(10);
/// One over which operators ask is closed when nothing was answered for this long.
pub const HTTP_SILENCE: Duration = Duration::from_secs(15);
/// How often connections are looked at.
pub const LOOK_AT_CONNECTIONS: Duration = Duration::from_secs(1);
/// Connections that are being closed to make room for others; more are not closed before these have gone.
pub const LEAVING: usize = 32;
/// How long whoever waits for one of them to go waits at once.
pub const LEAVING_TIME: Duration = Duration::from_millis(100);
/// Connections from one address, if nobody says anything else.
pub const CONNECTIONS_PER_ADDRESS: usize = 16_384;
/// Largest message that is sent: gRPC's default limit of what a client reads.
pub const MAX_RESPONSE: usize = 4 * 1024 * 1024;
/// A message that is no larger is too small to be counted.
pub const SMALL: usize = 16 * 1024;
/// Requests that are read and not yet taken in: by one principal, by the first of each, by all others.
pub(super) const REQUESTS: Allotment =
    Allotment { each: 64 << 20, first: 128 << 20, more: 128 << 20, patience: Duration::from_secs(10) };
/// Answers that are made and that nobody has read: by one principal, by the first of each, by all others. Enough for the
/// largest answer of 64 principals while a few others hold as many as they may.
pub(super) const ANSWERS: Allotment =
    Allotment { each: 32 << 20, first: 64 * MAX_RESPONSE, more: 128 << 20, patience: Duration::from_secs(10) };
/// Calls that people make and that are looked into at once.
pub const TURNS: usize = 16;
/// Those of one principal.
pub const TURNS_EACH: usize = 2;
/// A call is heard to its end within this time.
pub const HEARING: Duration = Duration::from_secs(60);
/// An answer of which nobody reads anything for this long is dropped.
pub const UNREAD: Duration = Duration::from_secs(30);
/// Bytes of an answer that are handed on at once.
pub const PIECE: usize = 64 * 1024;
/// Pieces of a backup that are read ahead of whoever takes them.
pub const BACKUP_PIECES: usize = 2;
/// Bytes of an evaluation's pictures that are sent with it; of more the first are.
pub const PICTURE_BYTES: usize = 1024 * 1024;
/// A page of evaluations ends when it has this many bytes, so that clients with gRPC's default limit can read it.
pub const PAGE_BYTES: usize = 3 * 1024 * 1024;
/// Evaluations per page, at most and by default.
pub const EVALUATIONS: PageLimit = PageLimit { most: 1000, default: 100 };
/// Searches per page.
pub const SEARCHES: PageLimit = PageLimit { most: 100, default: 50 };
/// Workers per page.
pub const WORKERS: PageLimit = PageLimit { most: 1000, default: 100 };
/// Searches whose fronts a search may start from.
pub const START_FROM: usize = 16;
/// Conditions of a question.
pub const CONDITIONS: usize = 16;
/// Leases per renewal.
pub const RENEWALS: usize = 100;
/// The longest wait of AcquireLease.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Waits as long as this last as long as they should; longer ones may end earlier.
pub const SURE_WAIT: Duration = Duration::from_secs(1);
/// Bytes of a failure's reason that are kept.
pub const REASON_BYTES: usize = 4096;
/// A silent connection is probed this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// And closed when a probe is not answered for this long.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest message of a call. Held against the length that stands before a message, before there is room made for it.
pub fn request_bytes(path: &str) -> usize {
    match path {
        "/evocache.v1.SearchService/CreateSearch" => MAX_SPECIFICATION,
        "/evocache.v1.WorkerService/CompleteEvaluation" => MAX_REQUEST,
        "/evocache.v1.WorkerService/RegisterWorker" => MAX_REGISTRATION,
        _ => MAX_SMALL_REQUEST,
    }
}

/// What an answer may come to, held against the budget before it is made; 0 for one that is small for certain.
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

/// Rows of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimit {
    /// At most.
    pub most: u32,
    /// If the caller does not say.
    pub default: u32,
}

impl PageLimit {
    /// What the caller gets.
    pub fn rows(self, asked: u32) -> usize {
        (if asked == 0 { self.default } else { asked.min(self.most) }) as usize
    }
}
