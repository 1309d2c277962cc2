//! Facts to records, and records back to facts. `keys` has the table of all records.
//!
//! A lease is what its evaluation says, else what `l/` says, else what its candidate says: so an evaluation costs two
//! records, and both are written at the end of their kind.
//!
//! `write` and `replay` go through the kinds of facts; a file per kind below them has both directions of it.

mod candidate;
mod decode;
mod evaluation;
pub(super) mod keys;
mod lease;
mod replay;
mod request;
mod search;
mod worker;
mod write;

pub(super) use self::decode::{corrupt, decode};
pub(super) use self::evaluation::thumbnails;
pub(super) use self::replay::replay;
pub(super) use self::write::writes;
