//! Durations, sizes and shares as text for people, and the parsers of such text that all programs share.

use std::time::Duration;

use evocache_proto::domain::Kept;
pub use evocache_proto::units::{
    parse_bytes, parse_duration, parse_finite, parse_listen, parse_positive, parse_ratio, parse_share, parse_times,
};

/// `1h05m`, `3m20s`, `12s`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// `812 B`, `64.0 KiB`, `1.5 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A share as a percentage: `98.1 %`.
pub fn show_percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The share kept of the uncached quality: `98.1 %`, or the difference where no share is defined: `+0.0312`.
pub fn show_kept(kept: Kept) -> String {
    match kept {
        Kept::Share(share) => show_percent(share),
        Kept::Difference(difference) => format!("{difference:+.4}"),
    }
}

/// Half the distance between the quartiles: how much timings usually vary.
pub fn spread(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = share * (sorted.len().saturating_sub(1)) as f64;
        let (low, high) = (position.floor() as usize, position.ceil() as usize);
        let (a, b) = (sorted.get(low).copied().unwrap_or(0.0), sorted.get(high).copied().unwrap_or(0.0));
        a + (b - a) * position.fract()
    };
    (at(0.75) - at(0.25)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_rounded_values() {
        assert_eq!(show_duration(Duration::from_secs(200)), "3m20s");
        assert_eq!(show_duration(Duration::from_millis(59_700)), "1m00s");
        assert_eq!(show_bytes(98304), "96.0 KiB");
        assert_eq!(show_bytes(5), "5 B");
        assert_eq!(show_percent(0.9806), "98.1 %");
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 5.0]), 1.0);
        assert_eq!(spread(&[]), 0.0);
    }
}
