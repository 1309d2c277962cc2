//! The results of a search: the front as a table, a drawing and files, and the three usual questions with their answers.
//! `front`, `best` and `local` share these functions.
//!
//! Does not judge which schedule is best: the coordinator does.

mod chart;
mod choice;
mod fetched;
mod folder;
mod font;
mod front_table;
mod noise;
mod picture;
mod schedule_file;
mod sheet;

pub(crate) use choice::describe_uncached;
pub use choice::{Choice, describe};
pub use fetched::Results;
pub use folder::{write_chart, write_folder, write_sheet};
pub use front_table::front_table;
pub use noise::{deviation, noise};
pub use schedule_file::{Format, lost, schedule_text, write_schedule};
