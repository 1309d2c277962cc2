//! Where facts outlive the process: a store on sled, and an in-memory one for tests.
//!
//! Stored: searches (specification, extended budget, phase, what the first worker declared), candidates (schedule,
//! provenance), the state of each candidate's lease, evaluations, thumbnails, worker registrations, and request ids for a
//! limited time.
//!
//! Not stored, because it can be derived or is not worth a write: renewals and deadlines (after a restart every lease gets
//! a full term), worker liveness, the order of the queue, fronts, running figures, watchers.
//!
//! Each record is one key with a prost message as its value. All records of a decision go into one batch, together with
//! those of neighboring decisions, and what was acknowledged is also known outside of the database (`sled/mark.rs`).
//!
//! **Formats.** Storage format 4 is the first that is kept: from 0.1.0 on, every release reads the stores and backups of
//! the releases before it. Formats 1 to 3 belonged to development builds; they are refused by their number and nothing
//! reads them. The number does not restart at 1, because a store that such a build wrote as format 1 would then be misread.
//!
//! Read in this order; nothing imports from a file below it in this list:
//!
//! | file | what |
//! |---|---|
//! | `hints` | ways out of a store that cannot be used |
//! | `records` | the stored messages and the format's number |
//! | `medium` | what the codec needs of a database |
//! | `codec` | facts to records and back |
//! | `memory` | the in-memory store |
//! | `stream` | the byte format of a backup |
//! | `sled` | everything that a replacement of sled would replace |
//! | `inspect`, `backup` | what the offline tools do with a store |
//!
//! One suite (`tests/server/store.rs`) runs over both stores. A running coordinator has a [`ReopeningStore`].
//!
//! **Invariant:** knows the ports and the domain only; nothing of the engine, calls or the command line.

pub mod backup;
mod codec;
mod hints;
mod inspect;
mod medium;
mod memory;
mod records;
mod sled;
mod stream;

pub(crate) use self::hints::{LOSS_HINT, RESTORE_HINT, format_hint};
pub use self::inspect::{Damage, Inspection, inspect};
pub use self::memory::MemoryStore;
pub use self::records::FORMAT_VERSION;
pub use self::sled::{ReopeningStore, SledStore, set_aside};
