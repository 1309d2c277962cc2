//! The three usual questions about a search, and their answers as text.

use super::noise::deviation;
use crate::cli::kit::units::{show_bytes, show_percent};
use crate::client::{Best, Client, ClientError, Constraint, ErrorKind, Preference, Question, Reference, Search};

/// A question and its answer.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Base name of its files.
    pub key: &'static str,
    /// Short title for pictures.
    pub title: &'static str,
    /// The question as text.
    pub question: String,
    /// The schedule, or why no schedule satisfies the question.
    pub answer: Result<Best, String>,
}

/// Asks for the fastest at 98 % quality, the best quality at twice the speed, and the knee.
pub(super) async fn ask(client: &Client, search: &Search) -> Result<Vec<Choice>, ClientError> {
    let quality = search.quality_metric().unwrap_or("quality");
    let questions = [
        (
            "best-98",
            "98 % quality",
            format!("fastest with at least 98 % of the uncached {quality}"),
            vec![Constraint::MinQualityRatio(0.98)],
            Preference::Fastest,
        ),
        (
            "best-2x",
            "2x speed-up",
            format!("best {quality} at twice the speed or more"),
            vec![Constraint::MinSpeedup(2.0)],
            Preference::BestQuality,
        ),
        ("knee", "knee", "best bargain (knee of the front)".to_owned(), vec![], Preference::Knee),
    ];
    let mut choices = vec![];
    for (key, title, question, constraints, preference) in questions {
        let answer = match client.best(&search.id, Question::new(constraints, preference), true).await {
            Ok(best) => Ok(best),
            // A question may not fit the search, such as a share of a metric that is 0: that is no answer either.
            Err(error) if matches!(error.kind(), Some(ErrorKind::NotFound | ErrorKind::Invalid)) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error),
        };
        choices.push(Choice { key, title, question, answer });
    }
    Ok(choices)
}

impl Choice {
    /// Question and answer as lines.
    pub fn describe(&self) -> String {
        match &self.answer {
            Ok(best) => format!("{}\n{}", self.question, describe(best)),
            Err(nearest) => format!("{}\n  none: {nearest}\n", self.question),
        }
    }
}

/// An answer as indented lines of text.
pub fn describe(best: &Best) -> String {
    let e = &best.evaluation;
    let uncached = best.references.first().map_or_else(|| e.latency() * best.speedup, |r| r.uncached_us);
    let mut text = format!(
        "  candidate {} ({}, {} steps, {})\n  {:.2}x faster: estimated {:.2} ms ±{} per image by {}; uncached {:.2} ms\n",
        e.candidate,
        e.schedule.id().short(),
        e.schedule.steps(),
        e.origin(),
        best.speedup,
        e.latency() / 1e3,
        show_percent(deviation(e)),
        times(e.measurements()),
        uncached / 1e3,
    );
    // Quality first, then what else was measured.
    let (first, others): (Vec<_>, Vec<_>) =
        e.measurement.metrics.iter().partition(|metric| metric.name == best.quality_metric);
    for metric in first.into_iter().chain(others) {
        let kept = best.quality_ratio.filter(|_| metric.name == best.quality_metric);
        let kept = kept.map_or(String::new(), |share| format!(", {} of it kept", show_percent(share)));
        text += &format!("  {} {:.4} (uncached {:.4}{kept})\n", metric.name, metric.mean(), metric.baseline_mean);
    }
    text += &format!(
        "  {:.1} % of the multiply-accumulates, {} cache per image, {:.1} % of {} module runs from the cache\n",
        100.0 * e.measurement.macs as f64 / e.measurement.baseline_macs as f64,
        show_bytes(e.measurement.peak_cache_bytes),
        100.0 * e.schedule.cache_hit_rate(),
        e.schedule.steps() as usize * e.schedule.slots(),
    );
    text
}

/// A line about the uncached latency behind the ms/image column; empty before it was measured.
pub(super) fn describe_reference(references: &[Reference]) -> String {
    let Some((first, others)) = references.split_first() else { return String::new() };
    let others: String = others.iter().map(|r| format!("; elsewhere {}", describe_uncached(r))).collect();
    format!("ms/image: the uncached {} over the speed-up{others}\n", describe_uncached(first))
}

/// An uncached latency with its device and spread.
pub(crate) fn describe_uncached(r: &Reference) -> String {
    let spread = show_percent(r.spread);
    format!("{:.2} ms on {} (median of {}, ±{spread})", r.uncached_us / 1e3, r.device, r.measurements)
}

/// `1 measurement`, `3 measurements`.
fn times(measurements: u32) -> String {
    format!("{measurements} measurement{}", if measurements == 1 { "" } else { "s" })
}
