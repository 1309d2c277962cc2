//! A front as a table.

use std::collections::BTreeSet;

use evocache_proto::domain::{Objective, builtin_direction};

use super::choice::describe_reference;
use super::fetched::Results;
use super::noise::deviation;
use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::units::{show_kept, show_percent};
use crate::client::Evaluation;

/// The most metrics that get a column: objectives first, then others that the workers measure.
const METRICS: usize = 4;

/// The uncached run and the front, fastest first, at most `rows` rows of it (0 for all). Each objective has a column.
pub fn front_table(results: &Results, rows: usize) -> String {
    let quality = results.search.spec.quality();
    let metrics = metrics(results);
    let heads =
        ["candidate", "ms/image", "spread", "n", "speed-up"].into_iter().chain(metrics.iter().enumerate().flat_map(
            |(i, name)| [Some(*name), (i == 0 && quality.is_some()).then_some("of uncached")].into_iter().flatten(),
        ));
    let heads = heads.chain(["MACs", "cache KiB", "hits", "steps"]).map(|head| (head, Side::Right));
    let heads: Vec<(&str, Side)> = heads.chain([("origin", Side::Left)]).collect();
    let mut table = Table::new(&heads);
    let keep: BTreeSet<u64> =
        results.choices.iter().filter_map(|c| c.answer.as_ref().ok()).map(|b| b.evaluation.candidate.0).collect();
    let members = &results.front.evaluations;
    let shown = thin(members, rows, |e| keep.contains(&e.candidate.0));
    let rest = match members.len() - shown.len() {
        0 => String::new(),
        _ => {
            format!("{} of {} members of the front; `evocache front --rows 0` shows all\n", shown.len(), members.len())
        }
    };
    for e in shown {
        table.row(row(e, quality, &metrics));
    }
    let on_front = |b: &Evaluation| results.front.evaluations.iter().any(|e| e.candidate == b.candidate);
    if let Some(baseline) = results.front.baseline.as_ref().filter(|b| !on_front(b)) {
        let mut cells = row(baseline, quality, &metrics);
        if let Some(origin) = cells.last_mut() {
            *origin = "uncached".into();
        }
        table.row(cells);
    }
    table.render() + &rest + &describe_reference(&results.front.references)
}

/// The quality metrics to show: the objectives, then others that were measured.
fn metrics(results: &Results) -> Vec<&str> {
    let objectives = results.search.spec.objectives.iter().map(|o| o.metric.as_str());
    let mut names: Vec<&str> = objectives.filter(|name| builtin_direction(name).is_none()).collect();
    let measured = results.front.evaluations.first().or(results.front.baseline.as_ref());
    for metric in measured.iter().flat_map(|e| &e.measurement.metrics) {
        if names.len() < METRICS && !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    names
}

fn row(e: &Evaluation, quality: Option<&Objective>, metrics: &[&str]) -> Vec<String> {
    let m = &e.measurement;
    let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.4}"));
    let mut cells = vec![
        e.candidate.to_string(),
        format!("{:.2}", e.latency() / 1e3),
        format!("±{}", show_percent(deviation(e))),
        e.measurements().to_string(),
        format!("{:.2}x", e.speedup()),
    ];
    for (i, metric) in metrics.iter().enumerate() {
        cells.push(number(e.value(metric)));
        if let Some(quality) = quality.filter(|_| i == 0) {
            cells.push(e.kept(quality).map_or("-".to_owned(), show_kept));
        }
    }
    cells.extend([
        show_percent(m.macs as f64 / m.baseline_macs as f64),
        format!("{:.1}", m.peak_cache_bytes as f64 / 1024.0),
        show_percent(e.schedule.cache_hit_rate()),
        e.schedule.steps().to_string(),
        e.origin().to_string(),
    ]);
    cells
}

/// At most `rows` items of a list, evenly spread, with both ends and those to `keep`.
fn thin<T>(list: &[T], rows: usize, keep: impl Fn(&T) -> bool) -> Vec<&T> {
    if rows == 0 || list.len() <= rows {
        return list.iter().collect();
    }
    let kept: BTreeSet<usize> = (0..list.len()).filter(|&i| keep(&list[i])).collect();
    // A kept item may fall between two of the grid, so the grid is made coarser until all fit.
    let mut chosen = kept.clone();
    let mut grid = rows;
    while grid >= 2 {
        chosen = kept.clone();
        chosen.extend((0..grid).map(|k| k * (list.len() - 1) / (grid - 1)));
        if chosen.len() <= rows {
            break;
        }
        grid -= 1;
    }
    chosen.into_iter().filter_map(|i| list.get(i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_front_is_thinned_but_keeps_its_ends_and_the_chosen() {
        let list: Vec<u32> = (0..97).collect();
        let thinned = thin(&list, 20, |&x| x == 41 || x == 42);
        assert!(thinned.len() <= 20 && thinned.len() >= 17, "{thinned:?}");
        for must in [0, 41, 42, 96] {
            assert!(thinned.contains(&&must), "{must} is gone");
        }
        assert_eq!(thin(&list, 0, |_| false).len(), 97);
        assert_eq!(thin(&list[..3], 20, |_| false), [&0, &1, &2]);
    }
}
