//! Speed and quality of a schedule on one set of prompts, with standard errors. Pure.

use evocache_proto::domain::{Direction, MetricValues, Objective, Paired};

use crate::cli::results::deviation;
use crate::client::Evaluation;

/// Speed and quality of a schedule on one set of prompts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    /// Uncached latency over its latency.
    pub(super) speedup: f64,
    /// Relative standard deviation of the speed-up.
    pub(super) deviation: f64,
    /// Number of measurements behind the speed-up.
    pub(super) measurements: u32,
    /// Mean of the quality metric.
    pub(super) quality: f64,
    /// Share kept of the uncached mean.
    pub(super) ratio: f64,
    /// Standard error of the ratio over the prompts, from the paired differences to the uncached run; `None` if unknown.
    pub(super) error: Option<f64>,
    /// The quality metric for each prompt.
    pub(super) values: Vec<f64>,
    /// All metrics of the workers, including quality, in the order of their declaration.
    pub(super) metrics: Vec<MetricMean>,
}

/// A metric on one set of prompts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MetricMean {
    /// Name of the metric.
    pub(super) name: String,
    /// Mean over the prompts.
    pub(super) mean: f64,
    /// Mean of the uncached run.
    pub(super) uncached: f64,
    /// Standard error of the difference to the uncached run over the prompts; `None` if unknown.
    pub(super) error: Option<f64>,
}

impl Figures {
    /// The figures of an evaluation; errors need the uncached evaluation of the same prompts. `None` where no share of the
    /// uncached quality is defined.
    pub(super) fn new(e: &Evaluation, uncached: Option<&Evaluation>, quality: &Objective) -> Option<Self> {
        let measured = e.measurement.metric(&quality.metric)?;
        let ratio = e.kept(quality)?.share()?;
        let error = |of: &MetricValues| {
            let plain = uncached.and_then(|u| u.measurement.metric(&of.name));
            plain.and_then(|plain| difference(&of.values, &plain.values)).map(|d| d.error())
        };
        let mean = |of: &MetricValues| MetricMean {
            name: of.name.clone(),
            mean: of.mean(),
            uncached: of.baseline_mean,
            error: error(of),
        };
        Some(Self {
            speedup: e.speedup(),
            deviation: deviation(e),
            measurements: e.measurements(),
            quality: measured.mean(),
            ratio,
            error: error(measured).map(|error| error / measured.baseline_mean.abs()),
            values: measured.values.clone(),
            metrics: e.measurement.metrics.iter().map(mean).collect(),
        })
    }
}

impl Figures {
    /// Whether the bound of an objective holds. One that was not measured counts as held.
    pub(super) fn keeps(&self, floor: &Objective) -> bool {
        let mean = self.metrics.iter().find(|m| m.name == floor.metric).map(|m| m.mean);
        match (mean, floor.bound, floor.direction) {
            (Some(mean), Some(bound), Direction::Minimize) => mean <= bound,
            (Some(mean), Some(bound), Direction::Maximize) => mean >= bound,
            (None, ..) | (_, None, _) => true,
        }
    }
}

/// The values of `a` minus those of `b`. `None` unless both have the same number of prompts, two or more: one prompt says
/// nothing about how prompts vary.
pub(super) fn difference(a: &[f64], b: &[f64]) -> Option<Paired> {
    let comparable = a.len() == b.len() && a.len() >= 2;
    Paired::of(a.iter().zip(b).map(|(a, b)| a - b)).filter(|_| comparable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kit::samples::{sample, search};

    #[test]
    fn errors_are_those_of_differences_prompt_by_prompt() {
        // Prompts vary widely, the two runs differ little: 0.1, 0.2, 0.3 apart.
        let d = difference(&[1.1, 5.2, 9.3], &[1.0, 5.0, 9.0]).unwrap();
        assert!((d.mean - 0.2).abs() < 1e-12 && (d.error() - (0.01_f64 / 3.0).sqrt()).abs() < 1e-12, "{d:?}");
        assert_eq!(difference(&[1.0], &[0.5]), None);
        assert_eq!(difference(&[1.0, 2.0], &[0.5]), None);
    }

    #[test]
    fn a_ratio_has_an_error_if_the_uncached_run_is_known() {
        let (cached, uncached) = (sample(1, 2, &[0.8, 1.0]), sample(0, 1, &[0.9, 1.1]));
        let search = search();
        let quality = search.spec.quality().unwrap();
        let figures = Figures::new(&cached, Some(&uncached), quality).unwrap();
        assert_eq!((figures.speedup, figures.deviation, figures.measurements), (2.0, 0.01, 2));
        assert!((figures.ratio - 0.9).abs() < 1e-12 && figures.error.unwrap() < 1e-12, "{figures:?}");
        assert_eq!(Figures::new(&cached, None, quality).unwrap().error, None);
        let psnr = Objective { metric: "psnr".into(), ..quality.clone() };
        assert_eq!(Figures::new(&cached, None, &psnr), None);
        let mut nothing = cached;
        nothing.measurement.metrics[0].baseline_mean = 0.0;
        assert_eq!(Figures::new(&nothing, None, quality), None, "no share of nothing");
        let mean = &figures.metrics[0];
        assert_eq!((mean.name.as_str(), mean.uncached), ("clip_score", 1.0));
        assert!((mean.mean - 0.9).abs() < 1e-12 && mean.error.unwrap() < 1e-12, "{mean:?}");
    }
}
