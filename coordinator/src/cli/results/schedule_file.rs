//! A schedule as a file, in evocache's format or in ECAD's.

use std::path::Path;

use clap::ValueEnum;
use evocache_proto::formats;

use crate::cli::kit::exit::Failure;
use crate::cli::kit::view;
use crate::client::{Best, Search};

/// A format of schedule files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// evocache's own: a line per cacheable module
    Evocache,
    /// ECAD's: PixArt and FLUX, without forecasts
    Ecad,
}

/// Writes a schedule to a file: in evocache's format with its measurement, or in ECAD's without.
pub fn write_schedule(search: &Search, best: &Best, path: &Path, format: Format) -> Result<(), Failure> {
    let text = schedule_text(search, best, format)?;
    std::fs::write(path, text).map_err(|e| Failure::file("write", path, &e))
}

/// The text of a schedule file.
pub fn schedule_text(search: &Search, best: &Best, format: Format) -> Result<String, Failure> {
    let schedule = &best.evaluation.schedule;
    match format {
        Format::Evocache => Ok(formats::write_own(schedule, Some(view::about(search, &best.evaluation)))),
        Format::Ecad => formats::write_ecad(schedule, &format!("evocache-{}", schedule.id().short()))
            .map_err(|e| Failure::new(e).hint("evocache's own format (--format evocache) can express every schedule")),
    }
}

/// A warning if a format cannot express how a schedule samples.
pub fn lost(search: &Search, best: &Best, format: Format) -> Option<String> {
    let grid = search.spec.sampling.grid(best.evaluation.schedule.steps())?;
    matches!(format, Format::Ecad).then(|| {
        format!("ECAD's format cannot express how the schedule samples; configure it where the schedule runs: {grid}")
    })
}
