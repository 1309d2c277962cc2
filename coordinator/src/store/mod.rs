//! Where facts outlive the process: on sled, and a twin in memory for tests.
//!
//! Stored: searches (spec, extended budget, phase, what the first worker declared), candidates (schedule, provenance), the state of
//! each candidate's lease, evaluations, thumbnails, worker registrations, request ids of bounded age.
//!
//! Not stored, because it follows from the rest or is not worth a write: renewals and deadlines (after a restart
//! every lease gets a full term), worker liveness, the order of the queue, fronts, running figures, watchers.
//!
//! Each record is one key with a prost message as value; all records of a decision are written as one batch, together
//! with those of the decisions beside it, and what was acknowledged is known outside of the database too (`mark`). A
//! coordinator that runs has a [`ReopeningStore`].
//! One suite (`tests/server/store.rs`) runs over both stores. `inspect` is for the offline tools, and so is `backup`, which
//! also reads one `moment` of a store that goes on.

pub mod backup;
mod codec;
mod creation;
mod inspect;
mod mark;
mod memory;
mod moment;
mod opening;
mod pending;
mod pieces;
mod records;
mod reopening;
mod sled_store;
mod tally;

pub use inspect::{Damage, Inspection, inspect};
pub use memory::MemoryStore;
pub use opening::set_aside;
pub use reopening::ReopeningStore;
pub use sled_store::{FORMAT_VERSION, SledStore};

use crate::ports::StoreError;

/// The way out for a store that cannot be read.
pub(crate) const RESTORE_HINT: &str = "restore a backup into an empty folder with `evocache store restore`";

/// The ways out for a store that is short of what was acknowledged.
pub(crate) const LOSS_HINT: &str = "restore a backup into an empty folder with `evocache store restore`, or go on with \
                                    what is left: `evocache serve --accept-loss`";

/// What a fact does to the records.
enum Write {
    /// A record whose key was never written before, or was removed.
    New(Vec<u8>, Vec<u8>),
    /// A record in the place of one that may be there.
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

/// Takes a record's key and value.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// A key-value view that both stores share, so that the memory twin differs from sled in nothing but the medium.
trait Records {
    fn scan(&self, prefix: &[u8], each: &mut Visit<'_>) -> Result<(), StoreError>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Passes over records that nobody wants to read, but whoever adds all of them up.
    fn pass(&self, prefix: &[u8]) -> Result<(), StoreError>;
}
