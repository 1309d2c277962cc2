//! Specification files: TOML in, a checked search out.
//!
//! Paths in a file (prompts, schedules) are relative to it. Every error names the file and the field, and the values that
//! would be right.

mod difference;
mod file;
mod imports;
pub(crate) mod prompts;
mod resolve;
mod wrong;

pub use difference::differences;
pub use file::SpecFile;
pub use resolve::{Specification, load};
