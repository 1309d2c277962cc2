//! Plain text tables: columns as wide as their widest cell, numbers to the right. Every cell is one line: control
//! characters in it are escaped.

use evocache_proto::text::plain;

/// How the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the left, for text.
    Left,
    /// To the right, for numbers.
    Right,
}

/// A table that grows row by row.
#[derive(Debug, Clone)]
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let sides = columns.iter().map(|(_, side)| *side).collect();
        let head = columns.iter().map(|(name, _)| plain(name).into_owned()).collect();
        Self { sides, rows: vec![head] }
    }

    /// Adds a row with a cell per column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell).into_owned()).collect());
    }

    /// Whether the table has no rows below its head.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as lines of text.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match side {
                    Side::Left => line.extend([cell.as_str(), &gap]),
                    Side::Right => line.extend([gap.as_str(), cell]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("id", Side::Left), ("n", Side::Right)]);
        table.row(["long-name".into(), "7".into()]);
        table.row(["é".into(), "1234".into()]);
        assert_eq!(table.render(), "id            n\nlong-name     7\né          1234\n");
        table.row(["a\nb  9\u{1b}".into(), "0".into()]);
        assert!(table.render().ends_with("a\\nb  9\\u{1b}     0\n"), "{}", table.render());
    }
}
