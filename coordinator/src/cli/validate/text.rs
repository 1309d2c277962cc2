//! A validation in words and tables.

use super::figures::{Figures, MetricMean};
use super::report::{Basis, Comparison, Report, Row, Verdict, is_heuristic};
use crate::cli::table::{Side, Table};
use crate::cli::units::show_percent;

/// The whole report.
pub(super) fn report(r: &Report) -> String {
    let mut text = front(r).render();
    text += &format!(
        "\n{} of {} schedules of the front held on {} prompts that search {} has not seen\n",
        r.held(),
        r.front.len(),
        r.prompts,
        r.searches[0]
    );
    if !r.missing.is_empty() {
        let missing: Vec<String> = r.missing.iter().map(ToString::to_string).collect();
        text += &format!("not measured on them: candidates {}\n", missing.join(", "));
    }
    text += &others(r);
    for basis in [Basis::Seen, Basis::HeldOut] {
        text += &comparison(r, &r.comparison(basis));
    }
    text
}

fn front(r: &Report) -> Table {
    let mut table = Table::new(&[
        ("candidate", Side::Right),
        ("origin", Side::Left),
        ("steps", Side::Right),
        ("hits", Side::Right),
        ("speed-up", Side::Right),
        ("held out", Side::Left),
        ("of uncached", Side::Right),
        ("held out", Side::Left),
        ("verdict", Side::Left),
    ]);
    for (row, verdict) in &r.front {
        let [seen_speed, seen_ratio] = row.seen.as_ref().map_or(["-", "-"].map(str::to_owned), cells);
        let [speed, ratio] = cells(&row.held_out);
        table.row([
            row.candidate.to_string(),
            row.origin.clone(),
            row.steps.to_string(),
            show_percent(row.hit_rate),
            seen_speed,
            speed,
            seen_ratio,
            ratio,
            match verdict {
                Verdict::Held => "held".to_owned(),
                Verdict::Below => format!("did not hold: below {}", show_percent(r.threshold)),
                Verdict::Beaten(other) => format!("did not hold: {other} beats it"),
            },
        ]);
    }
    table
}

/// The metrics that are not quality, on the held-out prompts; nothing where there are none.
fn others(r: &Report) -> String {
    let Some((first, _)) = r.front.first() else { return String::new() };
    let other = |m: &&MetricMean| m.name != r.quality;
    let names: Vec<&str> = first.held_out.metrics.iter().filter(other).map(|m| m.name.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    let heads: Vec<(&str, Side)> =
        [("candidate", Side::Right)].into_iter().chain(names.iter().map(|&name| (name, Side::Left))).collect();
    let mut table = Table::new(&heads);
    let uncached = first.held_out.metrics.iter().filter(other).map(|m| format!("{:.4}", m.uncached));
    table.row(["uncached".to_owned()].into_iter().chain(uncached));
    for (row, _) in &r.front {
        let cells = row.held_out.metrics.iter().filter(other).map(|m| {
            let error = m.error.map_or(String::new(), |error| format!(" ±{error:.4}"));
            format!("{:.4}{error}", m.mean)
        });
        table.row([row.candidate.to_string()].into_iter().chain(cells));
    }
    format!("\nother metrics on the held-out prompts, with the error of the difference to uncached\n{}", table.render())
}

/// Speed-up and share of the uncached quality, each with its error.
fn cells(f: &Figures) -> [String; 2] {
    let error = f.error.map_or(String::new(), |error| format!(" ±{}", show_percent(error)));
    [with_error(f.speedup, f.speedup * f.deviation), format!("{}{error}", show_percent(f.ratio))]
}

fn with_error(times: f64, error: f64) -> String {
    format!("{times:.2}x ±{error:.2}")
}

fn comparison(r: &Report, c: &Comparison<'_>) -> String {
    let threshold = show_percent(r.threshold);
    let chosen = match c.basis {
        Basis::Seen => format!("chosen by what search {} had measured", r.searches[0]),
        Basis::HeldOut => "chosen by the held-out prompts themselves, so a little too well".to_owned(),
    };
    let kept = format!("keeps {threshold}");
    let mut table = Table::new(&[
        ("fastest", Side::Left),
        ("candidate", Side::Right),
        ("steps", Side::Right),
        ("hits", Side::Right),
        ("speed-up", Side::Left),
        ("of uncached", Side::Left),
        (&kept, Side::Left),
    ]);
    let mut line = |name: &str, row: Option<&Row>| {
        let cells = row.map(|row| {
            let [speed, ratio] = cells(&row.held_out);
            let kept = if row.held_out.ratio >= r.threshold { "yes" } else { "no" };
            let (hits, steps) = (show_percent(row.hit_rate), row.steps.to_string());
            [row.candidate.to_string(), steps, hits, speed, ratio, kept.to_owned()]
        });
        let none = || ["none", "", "", "", "", ""].map(str::to_owned);
        table.row([name.to_owned()].into_iter().chain(cells.unwrap_or_else(none)));
    };
    line("front", c.front);
    line("heuristic", c.heuristic);
    let (heuristics, others): (Vec<_>, Vec<_>) =
        c.families.iter().copied().partition(|(family, _)| is_heuristic(family));
    for (family, row) in heuristics {
        line(&format!("  {family}"), row);
    }
    for (family, row) in others {
        line(family, row);
    }
    let table = table.render();
    format!(
        "\nfastest with at least {threshold} of the uncached {}, {chosen}; held-out figures\n{table}{}{}",
        r.quality,
        gains(c),
        hits(c)
    )
}

fn gains(c: &Comparison<'_>) -> String {
    let rivals = [
        ("the heuristic", c.heuristic),
        ("the fastest heuristic with its quality or better", c.as_good_fastest),
        ("the plain run with fewer steps", c.fewer_steps),
    ];
    let gain = |(name, rival): (&str, Option<&Row>)| {
        let (gain, error) = c.gain_over(rival)?;
        Some(format!("the front's is {} as fast as {name}\n", with_error(gain, error)))
    };
    rivals.into_iter().filter_map(gain).collect()
}

fn hits(c: &Comparison<'_>) -> String {
    let Some(front) = c.front else { return String::new() };
    let rival = |row: Option<&Row>| row.map(|r| format!("{} ({} {})", show_percent(r.hit_rate), r.family, r.candidate));
    let rivals = match (rival(c.as_good_fastest), rival(c.as_good_most_cached)) {
        (Some(fastest), Some(most)) => format!("the fastest has {fastest}, the most cached {most}"),
        _ => "there is none".to_owned(),
    };
    format!(
        "{} of its module runs come from the cache; of the heuristics with its quality or better {rivals}\n",
        show_percent(front.hit_rate)
    )
}
