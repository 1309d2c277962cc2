//! The store on sled 0.34, and everything that a replacement of sled would replace.
//!
//! sled keeps a log, and three of its properties shape these files:
//!
//! - Its `flush` ends in `sync_file_range` on Linux, which does not flush the disk: `database` calls fsync after it.
//! - After a crash it takes damage for the end of its log and continues without a word: `mark` keeps what was acknowledged
//!   outside of it.
//! - It puts large values into files that it never syncs: `pieces` splits them.
//!
//! From the bottom up; nothing imports from a file below it in this list:
//!
//! | file | what |
//! |---|---|
//! | `tally` | what a set of records adds up to |
//! | `mark` | what was acknowledged, in the database and in a file beside it |
//! | `errors` | sled's errors as the store's |
//! | `files` | names and durability of the files in a store's folder |
//! | `database` | an open sled database: opening, batches, fsync |
//! | `pieces` | large values in parts |
//! | `pending` | decided writes that are not in the database yet |
//! | `reader` | records that are added up as they are read |
//! | `moment` | the records of one moment, while others write |
//! | `live_backup` | a backup of such a moment |
//! | `store` | the store: all of the above under locks |
//! | `creation` | a new, empty database |
//! | `opening` | which folders are opened, and which are refused |
//! | `reopening` | a store that is opened again after it has failed |

mod creation;
mod database;
mod errors;
mod files;
mod live_backup;
mod mark;
mod moment;
#[cfg(test)]
mod moment_tests;
mod opening;
mod pending;
mod pieces;
mod reader;
mod reopening;
mod store;
mod tally;

pub use self::files::set_aside;
pub use self::reopening::ReopeningStore;
pub use self::store::SledStore;
