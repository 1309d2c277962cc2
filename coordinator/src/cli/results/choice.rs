//! The three questions that most people ask, and an answer in words.

use super::deviation;
use crate::cli::units::{show_bytes, show_percent};
use crate::client::{Best, Client, ClientError, Constraint, ErrorKind, Preference, Search};

/// A question and its answer.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Name of its files.
    pub key: &'static str,
    /// Short title for pictures.
    pub title: &'static str,
    /// The question in words.
    pub question: String,
    /// The schedule, or why there is none.
    pub answer: Result<Best, String>,
}

/// Asks for the fastest at 98 % quality, the best quality at twice the speed, and the knee.
pub async fn ask(client: &Client, search: &Search) -> Result<Vec<Choice>, ClientError> {
    let quality = search.quality_metric().unwrap_or("quality");
    let questions = [
        (
            "best-98",
            "98 % quality",
            format!("fastest with at least 98 % of the uncached {quality}"),
            Some(Constraint::MinQualityRatio(0.98)),
            Preference::Fastest,
        ),
        (
            "best-2x",
            "2x speed-up",
            format!("best {quality} at twice the speed or more"),
            Some(Constraint::MinSpeedup(2.0)),
            Preference::BestQuality,
        ),
        ("knee", "knee", "best bargain (knee of the front)".to_owned(), None, Preference::Knee),
    ];
    let mut choices = vec![];
    for (key, title, question, constraint, preference) in questions {
        let answer = match client.best(&search.id, constraint, preference, true).await {
            Ok(best) => Ok(best),
            // A question that does not fit the search (a ratio of a minimised metric) has no answer either.
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

/// An answer as indented lines.
pub fn describe(best: &Best) -> String {
    let (e, b) = (&best.evaluation, &best.baseline);
    let quality = &best.quality_metric;
    let number = |x: Option<f64>| x.map_or("?".to_owned(), |x| format!("{x:.4}"));
    let ratio = best.quality_ratio.map_or(String::new(), |r| format!(", {:.1} %", 100.0 * r));
    let origin = e.origin();
    let uncached = e.measurement.metric(quality).map(|m| m.baseline_mean);
    format!(
        "  candidate {} ({}, {} steps, {origin})\n  {:.2}x faster: {:.2} ms ±{} per image by {}, uncached {:.2}\n  \
         {quality} {} (uncached {}{ratio})\n  {:.1} % of the multiply-accumulates, {} cache per image, {:.1} % of \
         {} module runs from the cache\n",
        e.candidate,
        e.schedule.id().short(),
        e.schedule.steps(),
        best.speedup,
        e.latency() / 1e3,
        show_percent(deviation(e)),
        times(e.measurements()),
        e.measurement.baseline_latency() / 1e3,
        number(e.value(quality)),
        number(uncached.or(b.value(quality))),
        100.0 * e.measurement.macs as f64 / e.measurement.baseline_macs as f64,
        show_bytes(e.measurement.peak_cache_bytes),
        100.0 * e.schedule.cache_hit_rate(),
        e.schedule.steps() as usize * e.schedule.slots(),
    )
}

/// `1 measurement`, `3 measurements`.
fn times(measurements: u32) -> String {
    format!("{measurements} measurement{}", if measurements == 1 { "" } else { "s" })
}
