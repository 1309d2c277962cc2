//! The imported schedules of a search: which candidate each of them became.

use serde_json::{Value, json};

use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::units::show_kept;
use crate::client::{Evaluation, Search};

/// Each imported schedule: name, steps and first evaluation.
fn pairs<'a>(
    search: &'a Search,
    evaluations: &'a [Evaluation],
) -> impl Iterator<Item = (&'a str, u32, Option<&'a Evaluation>)> {
    search.spec.imported.iter().map(|imported| {
        let is_it = |e: &&Evaluation| e.imported.iter().any(|name| *name == *imported.name);
        (imported.name.as_str(), imported.schedule.steps(), evaluations.iter().find(is_it))
    })
}

/// A table after an empty line; empty if the search imports nothing.
pub(super) fn table(search: &Search, evaluations: &[Evaluation]) -> String {
    if search.spec.imported.is_empty() {
        return String::new();
    }
    let objective = search.spec.quality();
    let quality = objective.map_or("quality", |o| o.metric.as_str());
    let mut table = Table::new(&[
        ("imported", Side::Left),
        ("steps", Side::Right),
        ("candidate", Side::Right),
        ("its steps", Side::Right),
        ("speed-up", Side::Right),
        (quality, Side::Right),
        ("of uncached", Side::Right),
    ]);
    let none = || "-".to_owned();
    for (name, steps, evaluation) in pairs(search, evaluations) {
        table.row([
            name.to_owned(),
            steps.to_string(),
            evaluation.map_or_else(none, |e| e.candidate.to_string()),
            evaluation.map_or_else(none, |e| e.schedule.steps().to_string()),
            evaluation.map_or_else(none, |e| format!("{:.2}x", e.speedup())),
            evaluation.and_then(|e| e.value(quality)).map_or_else(none, |value| format!("{value:.4}")),
            evaluation.zip(objective).and_then(|(e, o)| e.kept(o)).map_or_else(none, show_kept),
        ]);
    }
    format!("\n{}", table.render())
}

/// The same as JSON.
pub(super) fn json(search: &Search, evaluations: &[Evaluation]) -> Value {
    let rows = pairs(search, evaluations).map(|(name, steps, evaluation)| {
        json!({
            "name": name,
            "steps": steps,
            "candidate": evaluation.map(|e| e.candidate.0),
            "schedule_id": evaluation.map(|e| e.schedule.id().to_string()),
        })
    });
    Value::Array(rows.collect())
}
