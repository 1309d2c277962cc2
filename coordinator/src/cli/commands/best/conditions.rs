//! Conditions in text form: `psnr>=28`, `lpips<=0.05`, `clip_score>=98%`, `latency<=35ms`.

use crate::cli::kit::units::{parse_bytes, parse_duration, parse_finite, parse_ratio, parse_times};
use crate::client::{Constraint, Operator};

/// Parses a condition on any metric.
pub(super) fn parse_condition(text: &str) -> Result<Constraint, String> {
    let wrong = || format!("'{text}' is not a condition; write a metric, >= or <=, and a value, such as psnr>=28");
    let at = text.find(['<', '>']).ok_or_else(wrong)?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let (operator, value) = match (rest.strip_prefix(">="), rest.strip_prefix("<=")) {
        (Some(value), _) => (Operator::AtLeast, value.trim()),
        (_, Some(value)) => (Operator::AtMost, value.trim()),
        (None, None) => return Err(wrong()),
    };
    if name.is_empty() || value.is_empty() {
        return Err(wrong());
    }
    let metric = |name: &str, value: f64, of_uncached: bool| Constraint::Metric {
        name: name.to_owned(),
        operator,
        value,
        of_uncached,
    };
    let within = |problem: String| format!("{problem}, in '{text}'");
    match name {
        "latency" => Ok(metric("latency_us", parse_duration(value).map_err(within)?.as_secs_f64() * 1e6, false)),
        "cache" | "cache_bytes" => Ok(metric("cache_bytes", parse_bytes(value).map_err(within)? as f64, false)),
        "speedup" => Ok(metric(name, parse_times(value).map_err(within)?, false)),
        _ if value.ends_with('%') => Ok(metric(name, parse_ratio(value).map_err(within)?, true)),
        _ => Ok(metric(name, parse_finite(value).map_err(within)?, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_a_metric_an_operator_and_a_value() {
        let metric = |name: &str, operator, value, of_uncached| {
            Ok(Constraint::Metric { name: name.into(), operator, value, of_uncached })
        };
        for (text, condition) in [
            ("psnr>=28", metric("psnr", Operator::AtLeast, 28.0, false)),
            (" lpips <= 0.05 ", metric("lpips", Operator::AtMost, 0.05, false)),
            ("image_reward>=-0.5", metric("image_reward", Operator::AtLeast, -0.5, false)),
            ("clip_score>=98%", metric("clip_score", Operator::AtLeast, 0.98, true)),
            ("latency<=35ms", metric("latency_us", Operator::AtMost, 35_000.0, false)),
            ("cache<=1MiB", metric("cache_bytes", Operator::AtMost, 1_048_576.0, false)),
            ("speedup>=2x", metric("speedup", Operator::AtLeast, 2.0, false)),
        ] {
            assert_eq!(parse_condition(text), condition, "{text}");
        }
        for bad in ["psnr", "psnr>28", "psnr=28", ">=28", "psnr>=", "psnr>=x", "latency<=35", "psnr>=NaN"] {
            assert!(parse_condition(bad).unwrap_err().contains(bad), "{bad}");
        }
    }
}
