//! The conditions of `best` on the command line, and the question that they make.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::conditions::parse_condition;
use crate::cli::kit::units::{parse_bytes, parse_duration, parse_finite, parse_ratio, parse_times};
use crate::client::{Constraint, Preference, Question};

/// Conditions on a schedule; a schedule must satisfy all that are given.
#[derive(Debug, Args)]
pub struct ConstraintArgs {
    /// Latency over the uncached latency, at most (0.5 or 50%)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub max_latency_ratio: Option<f64>,
    /// Uncached latency over the latency, at least (2 or 2x)
    #[arg(long, value_name = "X", value_parser = parse_times)]
    pub min_speedup: Option<f64>,
    /// Latency per image, at most (35ms)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_latency: Option<Duration>,
    /// Value of the quality metric, at least; at most if it is minimized
    #[arg(long, value_name = "X", value_parser = parse_finite, allow_negative_numbers = true)]
    pub min_quality: Option<f64>,
    /// Share to keep of the uncached quality, at least (0.98 or 98%)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub min_quality_ratio: Option<f64>,
    /// Peak bytes of cached outputs per image, at most (100MiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub max_cache: Option<u64>,
    /// Any metric, at least or at most, or a share kept of the uncached one's: psnr>=28, lpips<=0.05, clip_score>=98%.
    /// May be repeated
    #[arg(long = "where", value_name = "CONDITION", value_parser = parse_condition)]
    pub conditions: Vec<Constraint>,
    /// Ignore the bounds of the search's objectives
    #[arg(long)]
    pub ignore_bounds: bool,
}

impl ConstraintArgs {
    /// The question to the coordinator, with this preference.
    pub fn question(self, preference: Preference) -> Question {
        let named = [
            self.max_latency_ratio.map(Constraint::MaxLatencyRatio),
            self.min_speedup.map(Constraint::MinSpeedup),
            self.max_latency.map(Constraint::MaxLatency),
            self.min_quality.map(Constraint::MinQuality),
            self.min_quality_ratio.map(Constraint::MinQualityRatio),
            self.max_cache.map(Constraint::MaxCacheBytes),
        ];
        let constraints = named.into_iter().flatten().chain(self.conditions).collect();
        Question { constraints, preference, ignore_bounds: self.ignore_bounds }
    }
}

/// Which to prefer among the schedules that satisfy the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prefer {
    /// The lowest latency
    Fastest,
    /// The best quality
    Quality,
    /// The best bargain: farthest from the line between the front's ends
    Knee,
}

impl From<Prefer> for Preference {
    fn from(prefer: Prefer) -> Self {
        match prefer {
            Prefer::Fastest => Self::Fastest,
            Prefer::Quality => Self::BestQuality,
            Prefer::Knee => Self::Knee,
        }
    }
}
