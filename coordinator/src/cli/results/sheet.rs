//! The contact sheet: a row per prompt, a column per schedule, the uncached pictures first.

use super::font::{ADVANCE, LINE, wrap};
use super::picture::Picture;

const MARGIN: usize = 12;
const GAP: usize = 6;
const LABEL_CHARACTERS: usize = 24;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [40; 3];
const FAINT: [u8; 3] = [150; 3];

/// Pictures with no side longer than this, in pixels, are drawn at twice the size.
const SMALL: usize = 160;

/// The pictures of one schedule.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    /// Lines of text above the pictures.
    pub(super) titles: Vec<String>,
    /// PNG, one per prompt, in their order.
    pub(super) pictures: Vec<Vec<u8>>,
}

/// Composes the sheet as PNG. The place of a missing picture stays empty.
pub(super) fn compose(prompts: &[String], columns: &[Column]) -> Result<Vec<u8>, String> {
    let mut unpacked = vec![];
    for column in columns {
        let title = column.titles.first().map_or("", |t| t.as_str());
        let pictures = column.pictures.iter().enumerate();
        let pictures: Result<Vec<_>, _> = pictures
            .map(|(i, png)| Picture::from_png(png).map_err(|e| format!("picture {i} of '{title}' is not a PNG: {e}")))
            .collect();
        unpacked.push(pictures?);
    }
    let all = || unpacked.iter().flatten();
    let rows = unpacked.iter().map(Vec::len).max().unwrap_or(0);
    if rows == 0 {
        return Err("there are no pictures".into());
    }
    let side = all().map(|p| p.width.max(p.height)).max().unwrap_or(1);
    let scale = if side <= SMALL { 2 } else { 1 };
    let cell = side * scale;
    let per_title = cell / ADVANCE;
    let titles: Vec<Vec<String>> =
        columns.iter().map(|c| c.titles.iter().flat_map(|t| wrap(t, per_title, 2)).collect()).collect();
    let head = titles.iter().map(Vec::len).max().unwrap_or(0) * LINE + GAP;
    let label = LABEL_CHARACTERS * ADVANCE;
    let left = |column: usize| MARGIN + label + GAP + column * (cell + GAP);
    let top = |row: usize| MARGIN + head + row * (cell + GAP);
    let mut sheet = Picture::new(left(columns.len()) - GAP + MARGIN, top(rows) - GAP + MARGIN, PAPER);
    for (c, lines) in titles.iter().enumerate() {
        for (i, line) in lines.iter().enumerate() {
            let color = if i == 0 { INK } else { FAINT };
            sheet.write(left(c), MARGIN + i * LINE, line, color);
        }
    }
    for row in 0..rows {
        let prompt = prompts.get(row).map_or("", String::as_str);
        for (i, line) in wrap(prompt, LABEL_CHARACTERS - 1, cell / LINE).iter().enumerate() {
            sheet.write(MARGIN, top(row) + 2 + i * LINE, line, INK);
        }
        for (c, pictures) in unpacked.iter().enumerate() {
            if let Some(picture) = pictures.get(row) {
                sheet.draw(left(c), top(row), picture, scale);
            }
        }
    }
    sheet.to_png()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(title: &str, colors: &[[u8; 3]]) -> Column {
        let pictures = colors.iter().map(|&c| Picture::new(8, 8, c).to_png().unwrap()).collect();
        Column { titles: vec![title.into()], pictures }
    }

    #[test]
    fn each_picture_is_in_its_row_and_column() {
        let (red, green, blue) = ([255, 0, 0], [0, 255, 0], [0, 0, 255]);
        let columns = [column("a", &[red, green]), column("b", &[blue])];
        let prompts = ["first".to_owned(), "second".to_owned()];
        let sheet = Picture::from_png(&compose(&prompts, &columns).unwrap()).unwrap();
        let left = MARGIN + LABEL_CHARACTERS * ADVANCE + GAP;
        // Two characters of 6 pixels fit above a cell of 16, so each title is one line.
        let top = MARGIN + LINE + GAP;
        assert_eq!(sheet.get(left, top), red);
        assert_eq!(sheet.get(left + 15, top + 15), red);
        assert_eq!(sheet.get(left + 16, top), PAPER);
        assert_eq!(sheet.get(left + 16 + GAP, top), blue);
        assert_eq!(sheet.get(left, top + 16 + GAP), green);
        assert_eq!(sheet.get(left + 16 + GAP, top + 16 + GAP), PAPER);
        assert_eq!((sheet.width, sheet.height), (left + 32 + GAP + MARGIN, top + 32 + GAP + MARGIN));
    }

    #[test]
    fn a_damaged_picture_is_named() {
        let mut bad = column("b", &[[0; 3]]);
        bad.pictures.push(vec![1, 2, 3]);
        let error = compose(&[], &[bad]).unwrap_err();
        assert!(error.contains("picture 1 of 'b'"), "{error}");
        assert!(compose(&[], &[]).is_err());
    }
}
