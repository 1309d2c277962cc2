//! The verbs that ask for results: front, best.

use std::path::Path;

use evocache_proto::domain::SearchId;

use super::args::{BestArgs, Format, FrontArgs};
use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::results::{self, Results};
use super::view;
use crate::client::Client;

pub(super) async fn front(client: &Client, args: FrontArgs, printer: Printer) -> Result<Exit, Failure> {
    let results = Results::fetch(client, &args.id).await?;
    if results.front.evaluations.is_empty() {
        return Err(no_evaluations(&args.id));
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

/// There is nothing to show of a search yet.
pub(super) fn no_evaluations(id: &SearchId) -> Failure {
    Failure::new(format!("search {id} has no evaluations yet"))
        .hint(format!("`evocache watch {id}` follows it"))
        .exit(Exit::NotFound)
}

pub(super) async fn best(client: &Client, args: BestArgs, printer: Printer) -> Result<Exit, Failure> {
    let best = client.best(&args.id, args.constraint.question(args.prefer.into()), false).await?;
    let search = client.search(&args.id).await?;
    if let Some(lost) = args.out.as_ref().and_then(|_| results::lost(&search, &best, args.format)) {
        printer.warning(&lost);
    }
    match &args.out {
        Some(file) if file == Path::new("-") => {
            printer.data(&results::schedule_text(&search, &best, args.format)?)?;
            printer.note(&results::describe(&best));
            return Ok(Exit::Ok);
        }
        Some(file) => results::write_schedule(&search, &best, file, args.format)?,
        None => {}
    }
    printer.answer(|| view::best(&search, &best), || results::describe(&best))?;
    if let Some(file) = &args.out {
        let format = match args.format {
            Format::Evocache => "evocache's",
            Format::Ecad => "ECAD's",
        };
        printer.note(&format!("written in {format} format: {}", file.display()));
    }
    Ok(Exit::Ok)
}
