//! Every limit of the API in one place.

use std::time::Duration;

/// Largest message that is read: a measurement with its thumbnails, or a specification with its schedules.
pub const MAX_REQUEST: usize = 16 * 1024 * 1024;
/// Largest message that says of a worker what it is: its layout, its metrics, and what each slot computes.
pub const MAX_REGISTRATION: usize = 1024 * 1024;
/// Largest message of any other call: ids, and reasons of which little is kept.
pub const MAX_SMALL_REQUEST: usize = 64 * 1024;
/// Largest sum of a call's headers.
pub const MAX_HEADERS: u32 = 16 * 1024;
/// Calls at the same time over one connection.
pub const CALLS_PER_CONNECTION: u32 = 256;
/// Connections from one address, if nobody says anything else.
pub const CONNECTIONS_PER_ADDRESS: usize = 16_384;
/// Largest message that is sent. Pages end well before it.
pub const MAX_RESPONSE: usize = 16 * 1024 * 1024;
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
        "/evocache.v1.SearchService/CreateSearch" | "/evocache.v1.WorkerService/CompleteEvaluation" => MAX_REQUEST,
        "/evocache.v1.WorkerService/RegisterWorker" => MAX_REGISTRATION,
        _ => MAX_SMALL_REQUEST,
    }
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
