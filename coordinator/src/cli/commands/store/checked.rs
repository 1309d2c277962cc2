//! The findings of `store check`, as JSON and as text.

use serde_json::json;

use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::units::show_bytes;
use crate::upkeep::Checked;

/// The findings as JSON.
pub(super) fn view(checked: &Checked) -> serde_json::Value {
    let searches = checked.searches.iter().map(|s| {
        json!({ "id": s.id, "state": s.phase, "candidates": s.candidates, "evaluations": s.evaluations,
            "failed": s.failed, "front": s.front })
    });
    let kinds: serde_json::Map<String, serde_json::Value> =
        checked.kinds.iter().map(|(name, count)| (name.replace(' ', "_"), json!(count))).collect();
    json!({
        "sound": checked.is_sound(),
        "format": checked.format,
        "records": kinds,
        "bytes": checked.bytes,
        "bytes_on_disk": checked.on_disk,
        "searches": searches.collect::<Vec<_>>(),
        "damages": checked.damages,
        "damaged": checked.damaged.iter().map(|d| json!({ "key": d.key, "problem": d.problem })).collect::<Vec<_>>(),
        "contradiction": checked.contradiction,
        "lost": checked.lost,
    })
}

/// The findings as text.
pub(super) fn text(checked: &Checked) -> String {
    let mut kinds = Table::new(&[("records", Side::Left), ("n", Side::Right)]);
    for (name, count) in checked.kinds.iter().filter(|(_, count)| *count > 0) {
        kinds.row([(*name).to_owned(), count.to_string()]);
    }
    let mut text = format!(
        "format {}, {} records of {}, {} on disk\n",
        checked.format,
        checked.records(),
        show_bytes(checked.bytes),
        show_bytes(checked.on_disk)
    );
    if !kinds.is_empty() {
        text.push_str(&kinds.render());
    }
    let mut searches = Table::new(&[
        ("search", Side::Left),
        ("state", Side::Left),
        ("candidates", Side::Right),
        ("evaluations", Side::Right),
        ("failed", Side::Right),
        ("front", Side::Right),
    ]);
    for s in &checked.searches {
        let figures = [s.candidates, s.evaluations, s.failed, s.front];
        searches.row([s.id.clone(), s.phase.clone()].into_iter().chain(figures.map(|n| n.to_string())));
    }
    if !searches.is_empty() {
        text.push_str(&searches.render());
    }
    for damage in &checked.damaged {
        text.push_str(&format!("damaged: {}: {}\n", damage.key, damage.problem));
    }
    let more = checked.damages.saturating_sub(checked.damaged.len() as u64);
    if more > 0 {
        text.push_str(&format!("damaged: {more} more\n"));
    }
    if let Some(contradiction) = &checked.contradiction {
        text.push_str(&format!("contradiction: {contradiction}\n"));
    }
    if let Some(lost) = &checked.lost {
        text.push_str(&format!("lost: {lost}\n"));
    }
    if checked.is_sound() {
        text.push_str("sound\n");
    }
    text
}
