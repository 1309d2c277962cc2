//! The typed client: domain types in, domain types out, one method per call of the contract.
//!
//! Every call has a deadline. Reads are repeated while the coordinator is unavailable. So are calls that change something:
//! each carries a request id made once, and the coordinator answers a repeat with its first answer.
//!
//! Messages (`pb`) do not leave this module. It knows nothing of terminals, files or formats.

mod backup;
mod channel;
mod connection;
mod error;
mod fleet;
mod foreign;
mod ids;
mod model;
mod paging;
mod read;
mod retry;
mod searches;
mod time;
mod watch;

pub use backup::{Backup, BackupPiece};
pub use channel::ConnectOptions;
pub use connection::Client;
#[cfg(feature = "server")]
pub(crate) use error::is_unanswered;
pub use error::{ClientError, ErrorKind, Refusal, Violation};
pub use evocache_proto::domain::{Constraint, Operator, Preference, Question, SearchState};
pub use foreign::Foreign;
pub use ids::{new_request_id, new_token};
pub use model::evaluation::{Best, Estimate, Evaluation, EvaluationNote, Front};
pub use model::reference::Reference;
pub use model::search::{Insight, ModelFacts, ModelRecord, OperatorShare, Progress, Search, WatchEvent};
pub use model::worker::{LeaseNote, Worker, WorkerState};
pub use retry::RetryPolicy;
pub use time::rfc3339;
pub use watch::Watch;
