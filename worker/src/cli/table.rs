//! Text tables, and counts and sizes as text.

use std::io::{Result, Write};

use evocache_proto::text::plain;

/// Rows of text under a header; the first column is left-aligned, the others right-aligned.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&name| name.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| plain(cell).into_owned()).collect());
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(i, (cell, &width))| if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
                .collect();
            writeln!(out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A count with an SI prefix and four digits, such as `8.521 G`.
pub(super) fn count(value: u64) -> String {
    scaled(value as f64, &["", "k", "M", "G", "T", "P"])
}

/// A size with an SI prefix, such as `65.54 kB`.
pub(super) fn bytes(value: u64) -> String {
    format!("{}B", scaled(value as f64, &["", "k", "M", "G", "T", "P"]))
}

fn scaled(mut value: f64, prefixes: &[&str]) -> String {
    let mut index = 0;
    while value >= 1000.0 && index + 1 < prefixes.len() {
        value /= 1000.0;
        index += 1;
    }
    let digits = if index == 0 || value >= 1000.0 { 0 } else { 3 - value.log10().floor() as usize };
    format!("{value:.digits$} {}", prefixes[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 999, 1000, 65_536, 8_521_000_000].map(count), ["0 ", "999 ", "1.000 k", "65.54 k", "8.521 G"]);
        assert_eq!(bytes(65_536), "65.54 kB");
    }
}
