//! The offline tools, for a store that no coordinator runs on: check, back up, restore, compact.
//!
//! sled's lock keeps a running coordinator and these tools apart.
//!
//! **Invariant:** knows no terminals and arguments, which are `cli`'s, nor how records are read and written, which is
//! `store`'s.

mod check;
mod compact;
mod copies;
mod error;
mod files;

pub use crate::ports::Progress;
pub use crate::store::Damage;
pub use crate::store::backup::Summary;
pub use check::{Checked, SearchNote, check};
pub use compact::{Compacted, compact};
pub use copies::{Unfinished, backup, restore};
pub use error::UpkeepError;
#[cfg(feature = "cli")]
pub(crate) use files::size as folder_size;
