//! Durations, sizes and numbers, read from and written for people.

use std::time::Duration;

/// Reads `35ms`, `1.5s`, `90m`, `1h30m`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is no duration; write a number with a unit of us, ms, s, m, h, d, such as 35ms or 1h30m");
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match rest[..letters].trim() {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &rest[letters..];
    }
    // Nanoseconds, so that 35ms is 35 ms and not 34.999999999.
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9).map_err(|_| wrong())
}

/// Reads `4096`, `64KiB`, `100MiB`, `1.5GB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size; write bytes, or a number with a unit of KiB, MiB, GiB, KB, MB, GB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit: f64 = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(wrong()),
    };
    let bytes = (number * unit).round();
    if bytes < 9.0e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A finite positive number.
pub fn parse_positive(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err(format!("'{text}' is no positive number")),
    }
}

/// A finite number.
pub fn parse_finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("'{text}' is no number")),
    }
}

/// A ratio: `0.98` or `98%`.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    parse_positive(number).map(|n| n * scale).map_err(|_| format!("'{text}' is no ratio; write 0.98 or 98%"))
}

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

/// A share in per cent: `98.1 %`.
pub fn show_percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Half the distance between the quartiles: how far timings usually stray.
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
    fn durations_are_numbers_with_units() {
        for (text, millis) in
            [("35ms", 35), ("1.5s", 1500), ("1h30m", 5_400_000), ("2d", 172_800_000), ("90 m", 5_400_000)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "35", "ms", "-1s", "1x", "1s2", "1.2.3s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn sizes_are_numbers_with_units() {
        for (text, bytes) in
            [("4096", 4096), ("64KiB", 65536), ("1.5 MiB", 1_572_864), ("1GB", 1_000_000_000), ("7b", 7)]
        {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "-1", "1XB", "1e30GB"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn ratios_may_be_percentages() {
        assert_eq!(parse_ratio("98%").unwrap(), 0.98);
        assert_eq!(parse_ratio("0.98").unwrap(), 0.98);
        assert!(parse_ratio("-1").is_err() && parse_ratio("NaN").is_err() && parse_ratio("%").is_err());
    }

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
