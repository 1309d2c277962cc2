//! The schedule that the server runs, with what is known of it: its speed-up and quality, and what they were measured at.
//!
//! **Invariant:** a figure is told only for runs like those that it was measured in.

use std::sync::Arc;

use evocache_proto::domain::{Grid, Schedule};
use evocache_proto::formats::{self, FormatError};
use serde_json::Value;

/// What a schedule was measured at.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredAt {
    /// The guidance scale.
    pub guidance: f64,
    /// Height in pixels; `None`: the model's native one.
    pub height: Option<u32>,
    /// Width in pixels; `None`: the model's native one.
    pub width: Option<u32>,
}

/// A schedule and its figures.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The schedule.
    pub schedule: Arc<Schedule>,
    /// The grid that its runs sample on; `None`: that of the model's folder.
    pub grid: Option<Grid>,
    /// What it was measured at; `None`: nobody said.
    pub measured_at: Option<MeasuredAt>,
    /// Its figures, as the headers tell them.
    pub figures: Figures,
    /// Why it is used, in ASCII.
    pub why: String,
}

/// The figures of a schedule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// How many times as fast as the uncached run.
    pub speedup: Option<f64>,
    /// Each metric's mean, its standard error over the prompts, and the mean of the uncached run.
    pub quality: Vec<Quality>,
}

/// One metric of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// The metric's name.
    pub metric: String,
    /// The mean over the prompts.
    pub mean: f64,
    /// The standard error of the mean; `None`: of fewer than two prompts.
    pub error: Option<f64>,
    /// The mean of the uncached run.
    pub uncached: Option<f64>,
    /// The share kept of the uncached quality, if the metric is that of the search's quality.
    pub kept: Option<f64>,
}

impl Plan {
    /// Reads a schedule file in evocache's or ECAD's format. `evocache best --out` writes figures into its own.
    ///
    /// # Errors
    ///
    /// If the text is not a schedule.
    pub fn read(text: &str) -> Result<Self, FormatError> {
        let read = formats::read_whole(text)?;
        // The text is JSON, or it would not have been read.
        let json: Value = serde_json::from_str(evocache_proto::text::without_mark(text)).unwrap_or_default();
        let told = |name: &str| read.made_with.iter().find(|(setting, _)| setting == name).map(|(_, value)| value);
        let side = |name: &str| told(name).and_then(|value| value.parse().ok());
        let measured_at = told("guidance_scale").and_then(|scale| scale.parse().ok()).map(|guidance| MeasuredAt {
            guidance,
            height: side("height"),
            width: side("width"),
        });
        Ok(Self {
            schedule: Arc::new(read.schedule),
            grid: read.grid,
            measured_at,
            figures: Figures::read(&json["about"]),
            why: "given with --schedule".into(),
        })
    }
}

impl Figures {
    fn read(about: &Value) -> Self {
        let speedup = about["speedup"].as_f64().filter(|speedup| speedup.is_finite());
        let metrics = about["metrics"].as_object();
        let quality = metrics.into_iter().flatten().filter_map(|(name, metric)| {
            let values: Vec<f64> = metric["values"].as_array()?.iter().filter_map(Value::as_f64).collect();
            Quality::of(name, &values, metric["uncached_mean"].as_f64())
        });
        Self { speedup, quality: quality.collect() }
    }

    /// The speed-up as a header's value.
    pub fn speedup_header(&self) -> Option<String> {
        self.speedup.map(|speedup| format!("{speedup:.3}"))
    }

    /// The metrics as a header's value: a dictionary of RFC 9651, `clip_score=0.301;error=0.002;uncached=0.306`.
    pub fn quality_header(&self) -> Option<String> {
        let metric = |quality: &Quality| {
            let error = quality.error.map(|error| format!(";error={error:.4}")).unwrap_or_default();
            let uncached = quality.uncached.map(|mean| format!(";uncached={mean:.4}")).unwrap_or_default();
            let kept = quality.kept.map(|kept| format!(";kept={kept:.4}")).unwrap_or_default();
            format!("{}={:.4}{error}{uncached}{kept}", quality.metric, quality.mean)
        };
        let all: Vec<String> = self.quality.iter().map(metric).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

impl Quality {
    /// The metric with these values of the prompts. `None` if there are none, or if its name does not fit in a header.
    pub fn of(name: &str, values: &[f64], uncached: Option<f64>) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        if values.is_empty() || !name.bytes().all(fits) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
        Some(Self { metric: name.to_owned(), mean, error, uncached, kept: None })
    }
}

#[cfg(test)]
mod tests {
    use evocache_proto::domain::Layout;
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_and_settings_are_read_from_what_best_writes() {
        let schedule = Schedule::all_compute(Arc::new(Layout::pixart(1).unwrap()), 2).unwrap();
        let about = json!({
            "speedup": 1.5,
            "metrics": {
                "clip_score": { "values": [1.0, 2.0, 3.0, 2.0], "uncached_mean": 2.5 },
                "psnr": { "values": [20.0], "uncached_mean": null },
                "Bad Name": { "values": [1.0], "uncached_mean": 1.0 },
            },
            "made_for": { "sampling": { "guidance_scale": 3.0, "height": null, "width": 64 } },
        });
        let plan = Plan::read(&formats::write_own(&schedule, Some(about))).unwrap();
        let at = MeasuredAt { guidance: 3.0, height: None, width: Some(64) };
        assert_eq!((plan.measured_at, plan.schedule.id()), (Some(at), schedule.id()));
        assert_eq!(plan.figures.speedup_header().as_deref(), Some("1.500"));
        let quality = plan.figures.quality_header();
        // The standard deviation of 1, 2, 3, 2 is sqrt(2 / 3).
        assert_eq!(quality.as_deref(), Some("clip_score=2.0000;error=0.4082;uncached=2.5000, psnr=20.0000"));

        let plain = Plan::read(&formats::write_own(&schedule, None)).unwrap();
        assert_eq!((plain.measured_at, plain.figures), (None, Figures::default()));
        assert!(Plan::read("{}").is_err());
    }
}
