//! The verb `front`: the Pareto front of a search as a table, and on request as files.

use std::path::PathBuf;

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, no_evaluations};
use crate::cli::kit::view;
use crate::cli::results::{self, Results};
use crate::client::Client;

/// Show the front: the schedules that no other one beats in everything
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache front my-search
  evocache front my-search --out results           all that `local` writes
  evocache front my-search --svg front.svg --sheet pictures.png")]
pub struct FrontArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// Write front.json, front.svg, the chosen schedules and sheet.png to a folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Draw the front, as SVG
    #[arg(long, value_name = "FILE.svg", value_parser = svg_file)]
    pub svg: Option<PathBuf>,
    /// Compose the pictures of the chosen schedules beside the uncached ones, as PNG
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub sheet: Option<PathBuf>,
    /// Maximum number of table rows, spread over the front; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
}

fn svg_file(text: &str) -> Result<PathBuf, String> {
    ending(text, "svg", "SVG")
}

fn png_file(text: &str) -> Result<PathBuf, String> {
    ending(text, "png", "PNG")
}

/// Refuses a file name whose extension promises another format.
fn ending(text: &str, ending: &str, format: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(other) if !other.eq_ignore_ascii_case(ending) => {
            Err(format!("it is written as {format}; name it like {}", path.with_extension(ending).display()))
        }
        Some(_) | None => Ok(path),
    }
}

/// Runs the verb.
pub async fn front(client: &Client, args: FrontArgs, printer: Printer) -> Result<Exit, Failure> {
    let results = Results::fetch(client, &args.search.id).await?;
    if results.front.evaluations.is_empty() {
        return Err(no_evaluations(&args.search.id));
    }
    let mut written = vec![];
    if let Some(folder) = &args.out {
        for note in results::write_folder(&results, folder)? {
            printer.note(&note);
        }
        written.push(folder);
    }
    if let Some(file) = &args.svg {
        results::write_chart(&results, file)?;
        written.push(file);
    }
    if let Some(file) = &args.sheet {
        results::write_sheet(&results, file)?;
        written.push(file);
    }
    printer.answer(
        || view::front(&results.search, &results.front),
        || format!("{}\n{}", results::front_table(&results, args.rows), results.gain()),
    )?;
    if let Some(problem) = results.out_of_bounds() {
        printer.warning(&problem);
    }
    if let Some(warning) = results::noise(&results.evaluations) {
        printer.warning(&warning);
    }
    for path in written {
        printer.note(&format!("written: {}", path.display()));
    }
    Ok(Exit::Ok)
}
