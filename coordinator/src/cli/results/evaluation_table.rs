//! A front as a table.

use std::collections::BTreeSet;

use super::{Results, deviation};
use crate::cli::table::{Side, Table};
use crate::cli::units::show_percent;
use crate::client::Evaluation;

/// The uncached run and the front, fastest first, at most `rows` rows of it (0 for all).
pub fn front_table(results: &Results, rows: usize) -> String {
    let quality = results.quality();
    let mut table = Table::new(&[
        ("candidate", Side::Right),
        ("ms/image", Side::Right),
        ("spread", Side::Right),
        ("n", Side::Right),
        ("speed-up", Side::Right),
        (quality, Side::Right),
        ("of uncached", Side::Right),
        ("MACs", Side::Right),
        ("cache KiB", Side::Right),
        ("hits", Side::Right),
        ("steps", Side::Right),
        ("origin", Side::Left),
    ]);
    let keep: BTreeSet<u64> =
        results.choices.iter().filter_map(|c| c.answer.as_ref().ok()).map(|b| b.evaluation.candidate.0).collect();
    for e in thin(&results.front.evaluations, rows, |e| keep.contains(&e.candidate.0)) {
        table.row(row(e, quality));
    }
    let on_front = |b: &Evaluation| results.front.evaluations.iter().any(|e| e.candidate == b.candidate);
    if let Some(baseline) = results.front.baseline.as_ref().filter(|b| !on_front(b)) {
        let mut cells = row(baseline, quality);
        if let Some(origin) = cells.last_mut() {
            *origin = "uncached".into();
        }
        table.row(cells);
    }
    table.render()
}

fn row(e: &Evaluation, quality: &str) -> [String; 12] {
    let m = &e.measurement;
    let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.4}"));
    [
        e.candidate.to_string(),
        format!("{:.2}", e.latency() / 1e3),
        format!("±{}", show_percent(deviation(e))),
        e.measurements().to_string(),
        format!("{:.2}x", e.speedup()),
        number(e.value(quality)),
        e.quality_ratio(quality).map_or("-".to_owned(), show_percent),
        show_percent(m.macs as f64 / m.baseline_macs as f64),
        format!("{:.1}", m.peak_cache_bytes as f64 / 1024.0),
        show_percent(e.schedule.cache_hit_rate()),
        e.schedule.steps().to_string(),
        e.origin().to_string(),
    ]
}

/// At most `rows` of a list, spread over it evenly, with both ends and with those that must stay.
pub fn thin<T>(list: &[T], rows: usize, keep: impl Fn(&T) -> bool) -> Vec<&T> {
    if rows == 0 || list.len() <= rows {
        return list.iter().collect();
    }
    let kept: BTreeSet<usize> = (0..list.len()).filter(|&i| keep(&list[i])).collect();
    // Each kept one may fall between two of the grid, so the grid is that much coarser.
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
