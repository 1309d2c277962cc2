//! The schedules that a specification imports from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evocache_proto::domain::Imported;
use evocache_proto::formats;

use super::file::{GridSection, SpecFile};
use super::wrong::Wrong;
use crate::cli::kit::exit::Failure;

/// Whether the search has this setting too.
fn has(file: &SpecFile, setting: &str, value: &str) -> bool {
    let sampling = &file.sampling;
    let ours = match setting {
        "height" => sampling.height.map(f64::from),
        "width" => sampling.width.map(f64::from),
        "guidance_scale" => Some(sampling.guidance_scale),
        _ => None,
    };
    ours.is_some() && ours == value.parse().ok()
}

/// Reads the schedules. Also returns a warning for each setting that they were made with and that the search does not
/// have.
pub(super) fn imports(
    file: &SpecFile,
    folder: &Path,
    wrong: &Wrong<'_>,
) -> Result<(Vec<Imported>, Vec<String>), Failure> {
    let mut made_with: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let import = |(i, name): (usize, &PathBuf)| {
        let field = format!("import[{i}]");
        let path = folder.join(name);
        let text =
            std::fs::read_to_string(&path).map_err(|e| wrong(&field, &Failure::file("read", &path, &e).message))?;
        let read = formats::read_whole(&text).map_err(|e| wrong(&field, &format!("'{}': {e}", path.display())))?;
        for (setting, value) in read.made_with.into_iter().filter(|(setting, value)| !has(file, setting, value)) {
            made_with.entry((setting, value)).or_default().push(name.display().to_string());
        }
        let grids = &file.sampling.grid;
        let here = grids.iter().find(|grid| grid.steps == read.schedule.steps()).cloned().map(GridSection::grid);
        if read.grid != here {
            let grid = if read.grid.is_some() { "a grid of its own" } else { "the folder's grid" };
            let setting = ("sampling".to_owned(), format!("on {grid}"));
            made_with.entry(setting).or_default().push(name.display().to_string());
        }
        Ok(Imported { name: name.display().to_string(), schedule: read.schedule })
    };
    let imported = file.import.iter().enumerate().map(import).collect::<Result<_, Failure>>()?;
    let warnings = made_with.into_iter().map(|((setting, value), files)| {
        let others = match files.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} other{}", if n == 1 { "" } else { "s" }),
        };
        let first = files.first().map_or("", String::as_str);
        format!("import: '{first}'{others}: made with {setting} {value}, but measured with the settings of this search")
    });
    Ok((imported, warnings.collect()))
}
