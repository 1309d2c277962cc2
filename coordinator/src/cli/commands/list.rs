//! The verb `list`: the searches of a coordinator.

use clap::Args;
use serde_json::Value;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::evaluations;
use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::view;
use crate::client::{Client, rfc3339};

/// List the searches, newest first
#[derive(Debug, Args)]
pub struct ListArgs {}

/// Runs the verb.
pub async fn list(client: &Client, printer: Printer) -> Result<Exit, Failure> {
    let searches = client.searches().await?;
    if printer.is_json() {
        printer.json(&Value::Array(searches.iter().map(view::search).collect()))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        ("search", Side::Left),
        ("state", Side::Left),
        ("evaluations", Side::Right),
        ("front", Side::Right),
        ("hypervolume", Side::Right),
        ("best at 98 %", Side::Right),
        ("model", Side::Left),
        ("created", Side::Left),
    ]);
    for search in &searches {
        let p = &search.progress;
        table.row([
            search.id.to_string(),
            search.state.as_str().to_owned(),
            evaluations(search),
            p.front_size.to_string(),
            format!("{:.4}", p.hypervolume),
            p.best_speedup.map_or("-".to_owned(), |x| format!("{x:.2}x")),
            search.spec.model.name.clone(),
            search.create_time.map_or("-".to_owned(), rfc3339),
        ]);
    }
    if table.is_empty() {
        printer.note("no searches; `evocache launch SPEC.toml` creates one");
    } else {
        printer.data(&table.render())?;
    }
    Ok(Exit::Ok)
}
