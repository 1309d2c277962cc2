//! The benchmark's landscapes are the ones that they are said to be: numpy gives the same values.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../benches/search_bench/landscapes.rs"]
#[expect(dead_code, reason = "shared with the benchmark, which uses the rest")]
mod landscapes;

use landscapes::{CELLS, Landscape, NAMES, SLOTS};

/// Schedules with the values that numpy gives for them: bits, share, `pair`, `age`.
const CHECKS: &str = include_str!("../benches/data/checks.txt");

fn bits(digits: &str) -> Vec<u8> {
    let digit = |d: char| d.to_digit(16).unwrap();
    digits.chars().flat_map(|d| (0..4).map(move |i| (digit(d) >> (3 - i) & 1) as u8)).collect()
}

#[test]
fn pair_and_age_equal_their_originals() {
    let (pair, age) = (Landscape::new("pair").unwrap(), Landscape::new("age").unwrap());
    for line in CHECKS.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let bits = bits(fields[0]);
        assert_eq!(bits.len(), CELLS);
        let wanted: Vec<f64> = fields[1..].iter().map(|f| f.parse().unwrap()).collect();
        let found = [pair.truth(&bits).0, pair.truth(&bits).1, age.truth(&bits).1];
        for (wanted, found) in wanted.iter().zip(found) {
            assert!((wanted - found).abs() < 1e-12, "wanted {wanted}, found {found}");
        }
    }
}

#[test]
fn errors_run_from_none_to_nearly_all() {
    for name in NAMES {
        let landscape = Landscape::new(name).unwrap();
        let everything = landscape.truth(&vec![1; CELLS]);
        let nothing = landscape.truth(&(0..CELLS).map(|i| u8::from(i < SLOTS)).collect::<Vec<_>>());
        assert_eq!(everything, (1.0, 0.0), "{name}");
        assert!(nothing.1 > 0.75 && nothing.1 <= 1.0, "{name}: {nothing:?}");
    }
}
