//! The argument that names a search, and what several verbs say of one.

use clap::Args;
use evocache_proto::domain::SearchId;
use evocache_proto::text::plain;

use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::view;
use crate::client::Search;

/// A search by its id.
#[derive(Debug, Args)]
pub struct SearchArg {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
}

/// Evaluations made, of those that the budget allows: `31/40`, or `31` without such a limit.
pub(crate) fn evaluations(search: &Search) -> String {
    match search.spec.budget.evaluations {
        Some(budget) => format!("{}/{budget}", search.progress.used()),
        None => search.progress.used().to_string(),
    }
}

/// Why a pending search does not run. The coordinator's reason comes first: there may be workers that do not fit.
pub(crate) fn waits(search: &Search) -> String {
    match search.end_reason.is_empty() {
        true => format!("waits for a worker with model '{}'", plain(&search.spec.model.name)),
        false => search.end_reason.to_string(),
    }
}

/// Prints a search whose state the verb has changed.
pub(crate) fn changed(search: &Search, printer: Printer) -> Result<Exit, Failure> {
    printer.answer(|| view::search(search), || format!("{} {}", search.id, search.state.as_str()))?;
    Ok(Exit::Ok)
}

/// The failure of a verb that shows results of a search without any.
pub(crate) fn no_evaluations(id: &SearchId) -> Failure {
    Failure::new(format!("search {id} has no evaluations yet"))
        .hint(format!("`evocache watch {id}` follows it"))
        .exit(Exit::NotFound)
}
