//! Parsers for durations, sizes, ratios and addresses on command lines and in specification files of both programs.
//! One parser per kind of value, so that every place accepts the same syntax. Does not format values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Parses a duration: `35ms`, `1.5s`, `90m`, `1h30m`, `2d`. Only zero needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("'{text}' is not a duration; write numbers with units (us, ms, s, m, h, d), such as 35ms or 1h30m");
    let mut rest = text.trim();
    match rest.parse::<f64>() {
        Ok(0.0) => return Ok(Duration::ZERO),
        Ok(number) if number > 0.0 && number.is_finite() => {
            return Err(format!("'{text}' has no unit; write {number}s, or {number}ms, {number}m, {number}h"));
        }
        _ => {}
    }
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
    // Rounded to nanoseconds, so that 35ms is not 34.999999 ms.
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9).map_err(|_| wrong())
}

/// Parses a size in bytes: `4096`, `64KiB`, `1.5GB`, `8G`. `k`, `M`, `G`, `T` are powers of 1000, or of 1024 with `i`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "'{text}' is not a size; write bytes, or a number with KB, MB, GB, TB (1000) or KiB, MiB, GiB, TiB (1024)"
        )
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit = trimmed[digits..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (prefix, base) = unit.strip_suffix('i').map_or((unit, 1000.0), |prefix| (prefix, 1024.0));
    let power = match prefix {
        "" if base == 1000.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let bytes = (number * f64::powi(base, power)).round();
    if bytes < 9.0e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Parses a finite number.
pub fn parse_finite(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("'{text}' is not a number")),
    }
}

/// Parses a finite positive number.
pub fn parse_positive(text: &str) -> Result<f64, String> {
    parse_finite(text).ok().filter(|&number| number > 0.0).ok_or_else(|| format!("'{text}' is not a positive number"))
}

/// Parses a number or a percentage.
fn share(text: &str) -> Option<f64> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    Some(parse_finite(number).ok()? * scale)
}

/// Parses a positive ratio: `0.98` or `98%`. Refuses `98`, which is likely a percentage without its sign.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = share(text).filter(|&ratio| ratio > 0.0);
    let ratio = ratio.ok_or_else(|| format!("'{text}' is not a ratio; write 0.98 or 98%"))?;
    if ratio >= 2.0 && !text.contains('%') {
        return Err(format!("'{text}' would be {:.0} %; write {ratio}% or {}", 100.0 * ratio, ratio / 100.0));
    }
    Ok(ratio)
}

/// Parses a share in `[0, 1)`: `0.02` or `2%`.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let share = share(text).filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| format!("'{text}' is not a share from 0 up to 1; write 0.02 or 2%"))
}

/// Parses a speed-up: `2`, `2x`, `2.10x`.
pub fn parse_times(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches(['x', 'X', '×']);
    parse_positive(number).map_err(|_| format!("'{text}' is not a speed-up; write 2 or 2x"))
}

/// Parses an address to listen on: `127.0.0.1:7447`, `[::1]:7447`, `localhost:7447`, or `:7447` for loopback only.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let wrong =
        |why: &str| format!("'{text}' is not an address to listen on: {why}; write HOST:PORT, such as 127.0.0.1:7447");
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.contains("://") {
        return Err(wrong("it has a scheme"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
    let port: u16 = port.parse().map_err(|_| wrong(&format!("'{port}' is not a port")))?;
    if host.is_empty() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let found = (host, port).to_socket_addrs().map_err(|_| wrong(&format!("'{host}' cannot be resolved")))?;
    let found: Vec<SocketAddr> = found.collect();
    // A name with both kinds of addresses: IPv4, which older clients reach too.
    let four = found.iter().find(|address| address.is_ipv4()).or(found.first());
    four.copied().ok_or_else(|| wrong(&format!("'{host}' has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, millis) in
            [("35ms", 35), ("1.5s", 1500), ("1h30m", 5_400_000), ("2d", 172_800_000), ("90 m", 5_400_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "35", "ms", "-1s", "1x", "1s2", "1.2.3s", "99999999999999999999d", "NaN", "inf"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(parse_duration("60").unwrap_err().contains("no unit; write 60s"));
    }

    #[test]
    fn sizes_are_numbers_with_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64KiB", 65536),
            ("1.5 MiB", 1_572_864),
            ("1GB", 1_000_000_000),
            ("8G", 8_000_000_000),
            ("512M", 512_000_000),
            ("1.5k", 1500),
            ("40Gi", 40 << 30),
            ("40GiB", 40 << 30),
            ("2TiB", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "-1", "1XB", "1e30GB", "8Q", "1ib", "1bb"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn ratios_may_be_percentages_and_forgotten_signs_are_told() {
        for (text, ratio) in [("98%", 0.98), ("0.98", 0.98), ("101 %", 1.01), ("1.05", 1.05), ("250%", 2.5)] {
            assert!((parse_ratio(text).unwrap() - ratio).abs() < 1e-12, "{text}");
        }
        assert!(parse_ratio("98").unwrap_err().contains("would be 9800 %; write 98% or 0.98"));
        for bad in ["-1", "0", "NaN", "%", "inf", "x"] {
            assert!(parse_ratio(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!((parse_share("2%"), parse_share("0")), (Ok(0.02), Ok(0.0)));
        assert!(parse_share("1").is_err() && parse_share("-0.1").is_err());
    }

    #[test]
    fn a_speed_up_is_read_as_it_is_printed() {
        assert_eq!(["2", "2x", "2.10x", "2×"].map(|text| parse_times(text).unwrap()), [2.0, 2.0, 2.1, 2.0]);
        for bad in ["", "x", "0x", "-2x", "2y"] {
            assert!(parse_times(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn an_address_may_be_a_name_and_says_what_is_wrong() {
        let at = |text: &str| parse_listen(text).unwrap().to_string();
        assert_eq!([at("127.0.0.1:0"), at("[::1]:7447"), at(":80")], ["127.0.0.1:0", "[::1]:7447", "127.0.0.1:80"]);
        assert!(parse_listen("localhost:7447").unwrap().ip().is_loopback());
        for (bad, why) in
            [("7447", "no port"), ("http://a:1", "scheme"), ("a:x", "'x' is not a port"), ("localhost", "no port")]
        {
            assert!(parse_listen(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
