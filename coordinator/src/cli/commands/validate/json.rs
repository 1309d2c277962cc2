//! A validation as JSON.

use serde_json::{Map, Value, json};

use super::figures::{Figures, MetricMean};
use super::report::{Basis, Comparison, Report, Row, Verdict};

/// The whole report.
pub(super) fn report(r: &Report) -> Value {
    json!({
        "search_id": r.searches[0],
        "validation_id": r.searches[1],
        "quality_metric": r.quality,
        "min_quality_ratio": r.threshold,
        "prompts": r.prompts,
        "held": r.held(),
        "fewer_steps_not_told": r.without_grid,
        "front": r.front.iter().map(|(row, verdict)| member(row, *verdict)).collect::<Vec<_>>(),
        "seeds": r.seeds.iter().map(self::row).collect::<Vec<_>>(),
        "missing": r.missing.iter().map(|c| c.0).collect::<Vec<_>>(),
        "chosen_in_sample": comparison(&r.comparison(Basis::Seen)),
        "chosen_held_out": comparison(&r.comparison(Basis::HeldOut)),
    })
}

fn member(row: &Row, verdict: Verdict) -> Value {
    let (word, by) = match verdict {
        Verdict::Held => ("held", None),
        Verdict::Below => ("below", None),
        Verdict::Beaten(other) => ("beaten", Some(other.0)),
    };
    let mut value = self::row(row);
    value["verdict"] = word.into();
    value["beaten_by"] = by.into();
    value
}

fn row(r: &Row) -> Value {
    json!({
        "candidate": r.candidate.0,
        "origin": r.origin,
        "seed_family": r.family,
        "schedule_id": r.schedule.to_string(),
        "steps": r.steps,
        "cache_hit_rate": r.hit_rate,
        "in_sample": r.seen.as_ref().map(figures),
        "held_out": figures(&r.held_out),
    })
}

fn figures(f: &Figures) -> Value {
    json!({
        "speedup": f.speedup,
        "speedup_error": f.speedup * f.deviation,
        "measurements": f.measurements,
        "quality": f.quality,
        "quality_ratio": f.ratio,
        "quality_ratio_error": f.error,
        "metrics": f.metrics.iter().map(|m| (m.name.clone(), metric(m))).collect::<Map<_, _>>(),
    })
}

fn metric(m: &MetricMean) -> Value {
    json!({ "mean": m.mean, "uncached": m.uncached, "difference_error": m.error })
}

fn comparison(c: &Comparison<'_>) -> Value {
    let row = |r: Option<&Row>| r.map(row);
    let gain = |rival| c.gain_over(rival).map(|(value, error)| json!({ "value": value, "error": error }));
    json!({
        "front": row(c.front),
        "heuristic": row(c.heuristic),
        "families": c.families.iter().map(|(f, r)| ((*f).to_owned(), row(*r).into())).collect::<Map<_, _>>(),
        "fewer_steps": row(c.fewer_steps),
        "front_over_heuristic": gain(c.heuristic),
        "front_over_fewer_steps": gain(c.fewer_steps),
        "heuristics_as_good": {
            "fastest": row(c.as_good_fastest),
            "most_cached": row(c.as_good_most_cached),
            "front_over_fastest": gain(c.as_good_fastest),
        },
    })
}
