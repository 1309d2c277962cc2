//! A validation as text and tables.

use evocache_proto::domain::{Direction, Objective};

use super::figures::{Figures, MetricMean};
use super::report::{Basis, Comparison, Report, Row, Verdict, is_heuristic};
use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::units::show_percent;

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
    if !r.without_grid.is_empty() {
        let steps: Vec<String> = r.without_grid.iter().map(u32::to_string).collect();
        text += &format!(
            "\nnote: fewer-steps with {} steps uses the sampler's default grid of timesteps and order; another grid or a lower order can keep\n\
             more with as few steps. `[[sampling.grid]]` in the specification sets them\n",
            steps.join(", ")
        );
    }
    text + &in_short(r)
}

/// The last line: the schedule to use, and how it compares.
fn in_short(r: &Report) -> String {
    let chosen = r.comparison(Basis::Seen);
    let found = chosen.front.map_or_else(
        || format!("none keeps {}", show_percent(r.threshold)),
        |row| {
            let [speed, ratio] = cells(&row.held_out);
            let kept = if r.keeps(&row.held_out) { "" } else { ", which is not enough" };
            let beside = match (chosen.fewer_steps, chosen.gain_over(chosen.fewer_steps)) {
                (Some(plain), _) if plain.schedule == row.schedule => {
                    ": it is the plain run with fewer steps, to which caching adds nothing".to_owned()
                }
                (_, Some((gain, error))) => {
                    format!(": {} as fast as the plain run with fewer steps", with_error(gain, error))
                }
                (_, None) => String::new(),
            };
            format!("candidate {} is {speed} as fast as uncached and keeps {ratio}{kept}{beside}", row.candidate)
        },
    );
    format!("\nin short: {} of {} schedules held; {found}\n", r.held(), r.front.len())
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

/// The table of metrics other than quality on the held-out prompts; empty if there are none.
fn others(r: &Report) -> String {
    let Some((first, _)) = r.front.first() else { return String::new() };
    let other = |m: &&MetricMean| m.name != r.quality;
    let names = other_metrics(r);
    if names.is_empty() {
        return String::new();
    }
    let heads: Vec<(&str, Side)> =
        [("candidate", Side::Right)].into_iter().chain(names.iter().map(|&name| (name, Side::Left))).collect();
    let mut table = Table::new(&heads);
    let uncached = first.held_out.metrics.iter().filter(other).map(|m| format!("{:.4}", m.uncached));
    table.row(["uncached".to_owned()].into_iter().chain(uncached));
    for (row, _) in &r.front {
        let cells = row.held_out.metrics.iter().filter(other).map(mean_with_error);
        table.row([row.candidate.to_string()].into_iter().chain(cells));
    }
    format!("\nother metrics on the held-out prompts, with the error of the difference to uncached\n{}", table.render())
}

/// Names of the metrics other than quality.
fn other_metrics(r: &Report) -> Vec<&str> {
    let all = r.front.first().map_or(&[][..], |(row, _)| &row.held_out.metrics);
    all.iter().map(|m| m.name.as_str()).filter(|name| *name != r.quality).collect()
}

fn mean_with_error(m: &MetricMean) -> String {
    let error = m.error.map_or(String::new(), |error| format!(" ±{error:.4}"));
    format!("{:.4}{error}", m.mean)
}

/// A further requirement as text: ` and psnr >= 28`.
fn floor(objective: &Objective) -> String {
    let side = if objective.direction == Direction::Minimize { "<=" } else { ">=" };
    format!(" and {} {side} {}", objective.metric, objective.bound.unwrap_or_default())
}

/// Speed-up and share of the uncached quality, each with its standard error.
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
        Basis::HeldOut => "chosen by the held-out prompts themselves, so slightly too well".to_owned(),
    };
    let floors: String = r.floors.iter().map(floor).collect();
    let kept = format!("keeps {threshold}{floors}");
    let names = other_metrics(r);
    let heads = ["fastest", "candidate", "steps", "hits", "speed-up", "of uncached"].into_iter().zip([
        Side::Left,
        Side::Right,
        Side::Right,
        Side::Right,
        Side::Left,
        Side::Left,
    ]);
    let metrics = names.iter().map(|&name| (name, Side::Left));
    let heads: Vec<(&str, Side)> = heads.chain(metrics).chain([(kept.as_str(), Side::Left)]).collect();
    let mut table = Table::new(&heads);
    let width = heads.len();
    let mut line = |name: &str, row: Option<&Row>| {
        let mut line = vec![name.to_owned()];
        match row {
            Some(row) => {
                let figures = &row.held_out;
                line.extend([row.candidate.to_string(), row.steps.to_string(), show_percent(row.hit_rate)]);
                line.extend(cells(figures));
                let mean = |name: &&str| figures.metrics.iter().find(|m| m.name == **name);
                line.extend(names.iter().map(|name| mean(name).map_or("-".to_owned(), mean_with_error)));
                line.push(if r.keeps(figures) { "yes" } else { "no" }.to_owned());
            }
            None => {
                line.push("none".to_owned());
                line.resize(width, String::new());
            }
        }
        table.row(line);
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
        "\nfastest with at least {threshold} of the uncached {}{floors}, {chosen}; held-out figures\n{table}{}{}",
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
        _ => "there are none".to_owned(),
    };
    format!(
        "{} of its module runs come from the cache; of the heuristics with its quality or better {rivals}\n",
        show_percent(front.hit_rate)
    )
}
