//! Escapes untrusted text (names, reasons, labels, messages) before it is shown.
//!
//! Characters that a terminal, a log reader or a browser would interpret are escaped: control characters, line and
//! paragraph separators, marks that reverse or hide text. Each kind of output has one function here. Does not escape
//! markup: writers of SVG or HTML escape `<` and `&` themselves.

use std::borrow::Cow;
use std::io::{self, Write};

/// Whether this character can do more than show a glyph. Joiners that emoji and scripts need are allowed.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn spell(text: &str, keep: impl Fn(char) -> bool, spelled: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let shown = |c: char| !acts(c) || keep(c);
    // Nearly all text is ASCII, which needs no decoding.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || text.chars().all(shown) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if shown(c) { out.push(c) } else { spelled(&mut out, c) }
    }
    Cow::Owned(out)
}

/// Strips the byte-order mark that some editors put in front of UTF-8.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Escapes a value for one line: `\n`, `\u{1b}`, `\u{202e}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    spell(text, |_| false, |out, c| out.extend(c.escape_default()))
}

/// Escapes text of several lines: as [`plain`], but keeps line ends and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    spell(text, |c| matches!(c, '\n' | '\t'), |out, c| out.extend(c.escape_default()))
}

/// Escapes JSON text with JSON's own escapes, so that its meaning stays the same.
///
/// Outside strings, JSON has no such characters but line ends and tabs; inside strings, those are already escaped.
pub fn json(text: &str) -> Cow<'_, str> {
    spell(
        text,
        |c| matches!(c, '\n' | '\t'),
        |out, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        },
    )
}

/// Escapes a log line and keeps its line end. With `colors`, color sequences stay: they come from the log itself, which
/// escapes untrusted ones before it adds any.
fn log_line(text: &str, colors: bool) -> String {
    let (body, end) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    let mut out = String::with_capacity(text.len());
    let mut rest = body;
    while let Some(at) = rest.find('\u{1b}').filter(|_| colors) {
        out.push_str(&plain(&rest[..at]));
        let sequence = rest[at + 1..].strip_prefix('[').and_then(|s| {
            let length = s.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
            s[length..].starts_with('m').then_some(2 + length + 1)
        });
        let length = sequence.unwrap_or(1);
        let part = &rest[at..at + length];
        if sequence.is_some() {
            out.push_str(part);
        } else {
            out.push_str(&plain(part));
        }
        rest = &rest[at + length..];
    }
    out.push_str(&plain(rest));
    out.push_str(end);
    out
}

/// A writer that escapes with [`lines`]. Each write must hold whole characters, as `write!` sends them.
#[derive(Debug)]
pub struct Lines<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A writer for a log in text form that escapes each write as one line.
#[derive(Debug)]
pub struct LogLines<W> {
    /// The underlying writer.
    pub to: W,
    /// Whether the log uses colors.
    pub colors: bool,
}

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(log_line(&String::from_utf8_lossy(bytes), self.colors).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A writer that escapes with [`json`].
#[derive(Debug)]
pub struct Json<W>(pub W);

impl<W: Write> Write for Json<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape, carriage return, line end, C1 CSI, right-to-left override, separators, isolate, byte-order mark, a tag.
    const HOSTILE: &str = "a\u{1b}[2J\r\n\u{9b}31m\u{202e}\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}\u{7f}b";

    #[test]
    fn what_acts_is_spelled_out_and_the_rest_stays() {
        assert_eq!(plain(HOSTILE), r"a\u{1b}[2J\r\n\u{9b}31m\u{202e}\u{2028}\u{2029}\u{2066}\u{feff}\u{e0041}\u{7f}b");
        assert_eq!(lines("a\tb\n\u{1b}c\n"), "a\tb\n\\u{1b}c\n");
        for fine in ["", "naïve café", "木 ± µs", "👩\u{200d}🚀", "שלום", "a\\b \"c\"", "\u{2026}"] {
            assert!(matches!(plain(fine), Cow::Borrowed(same) if same == fine), "{fine}");
        }
    }

    #[test]
    fn a_log_has_a_line_for_each_event() {
        assert_eq!(log_line("one\ntwo\u{1b}[31m\n", false), "one\\ntwo\\u{1b}[31m\n");
        let own = "\u{1b}[2m2026\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m";
        assert_eq!(
            log_line(&format!("{own} a\u{1b}[2Jb\u{1b}]0;c\u{202e}\n"), true),
            format!("{own} a\\u{{1b}}[2Jb\\u{{1b}}]0;c\\u{{202e}}\n")
        );
    }

    #[cfg(feature = "formats")]
    #[test]
    fn json_means_the_same_after() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, 1.5, "\u{1f468}"] });
        for text in [format!("{value:#}"), value.to_string()] {
            let written = json(&text);
            assert!(written.chars().all(|c| c == '\n' || !acts(c)), "{written}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), value);
        }
    }

    #[test]
    fn writers_write_what_the_functions_give() {
        let mut out = Lines(vec![]);
        write!(out, "{}\n{}", HOSTILE, 7).unwrap();
        let (first, second) = HOSTILE.split_once('\n').unwrap();
        assert_eq!(String::from_utf8(out.0).unwrap(), format!("{}\n{}\n7", plain(first), plain(second)));
    }
}
