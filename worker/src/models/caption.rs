//! Caption cleaning as in PixArt's pipelines (`clean_caption=True`, their default): removes addresses, file names,
//! article numbers, symbols and shop phrases, and replaces typographic dashes and quotes by plain ones.
//!
//! diffusers also passes the text through BeautifulSoup (HTML) and ftfy (damaged characters). Texts that neither
//! library would change are cleaned exactly as in diffusers; texts that either might change are rejected.

use std::borrow::Cow;

use fancy_regex::Regex;

use crate::files::error::{ModelError, Result};

/// Replacements before the HTML parser, in order.
const FIRST: &[(&str, &str)] = &[
    (r"<person>", "person"),
    (
        r"\b((?:https?:(?:\/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)))",
        "",
    ),
    (r"\b((?:www:(?:\/{1,3}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)))", ""),
];

/// Replacements between the HTML parser and ftfy.
const SECOND: &[(&str, &str)] = &[
    (r"@[\w\d]+\b", ""),
    (
        r"[\u{31c0}-\u{31ef}\u{31f0}-\u{31ff}\u{3200}-\u{32ff}\u{3300}-\u{33ff}\u{3400}-\u{4dbf}\u{4dc0}-\u{4dff}\u{4e00}-\u{9fff}]+",
        "",
    ),
    (
        r"[\u{2D}\u{58A}\u{5BE}\u{1400}\u{1806}\u{2010}-\u{2015}\u{2E17}\u{2E1A}\u{2E3A}\u{2E3B}\u{2E40}\u{301C}\u{3030}\u{30A0}\u{FE31}\u{FE32}\u{FE58}\u{FE63}\u{FF0D}]+",
        "-",
    ),
    (r"[`´«»“”¨]", "\""),
    (r"[‘’]", "'"),
    (r"&quot;?", ""),
    (r"&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (r"[\S]+\.(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)", ""),
    (r#"["']{2,}"#, "\""),
    (r"[.]{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
];

/// Replaced by blanks in a text that has more than three of them: there they join words.
const JOINTS: [char; 2] = ['-', '_'];

/// Replacements after ftfy.
const LAST: &[(&str, &str)] = &[
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (r"\b(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", "${1} "),
    (r"\s+", " "),
    (r#"^["']([\w\W]+)["']$"#, "${1}"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
];

/// Cleans captions with the compiled rules.
pub(super) struct Cleaner {
    first: Vec<(Regex, &'static str)>,
    second: Vec<(Regex, &'static str)>,
    last: Vec<(Regex, &'static str)>,
}

impl Cleaner {
    pub(super) fn new() -> Result<Self> {
        let compile = |rules: &'static [(&str, &str)]| {
            let rule = |&(rule, by): &(&'static str, &'static str)| match Regex::new(rule) {
                Ok(rule) => Ok((rule, by)),
                Err(error) => Err(ModelError::Input(format!("cannot clean captions by '{rule}': {error}"))),
            };
            rules.iter().map(rule).collect::<Result<Vec<_>>>()
        };
        Ok(Self { first: compile(FIRST)?, second: compile(SECOND)?, last: compile(LAST)? })
    }

    /// The cleaned caption for T5. Like diffusers, cleans it twice. Fails if BeautifulSoup or ftfy might change it.
    pub(super) fn clean(&self, caption: &str) -> Result<String> {
        let refused =
            |why: String| ModelError::Input(format!("prompt '{caption}' cannot be cleaned as diffusers does: {why}"));
        let once = self.once(caption).map_err(refused)?;
        self.once(&once).map_err(refused)
    }

    fn once(&self, caption: &str) -> std::result::Result<String, String> {
        let mut text = unquoted(caption).trim().to_lowercase();
        replace(&mut text, &self.first)?;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            // BeautifulSoup may parse the text from here as HTML.
            if c == '<' || c == '&' && rest.peek().is_some_and(|next| !next.is_whitespace()) {
                return Err(format!("'{c}' may begin HTML; leave it out"));
            }
        }
        replace(&mut text, &self.second)?;
        if text.matches(JOINTS).count() > 3 {
            text = text.replace(JOINTS, " ");
        }
        if let Some(c) = for_ftfy(&text) {
            return Err(format!("ftfy may change '{}'; leave it out", c.escape_debug()));
        }
        replace(&mut text, &self.last)?;
        Ok(text.trim().to_owned())
    }
}

fn replace(text: &mut String, rules: &[(Regex, &'static str)]) -> std::result::Result<(), String> {
    for (rule, by) in rules {
        let replaced = match rule.try_replacen(text, 0, *by).map_err(|e| e.to_string())? {
            Cow::Borrowed(_) => None,
            Cow::Owned(replaced) => Some(replaced),
        };
        if let Some(replaced) = replaced {
            *text = replaced;
        }
    }
    Ok(())
}

/// Python's `urllib.parse.unquote_plus`.
fn unquoted(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        match (byte, digit(i + 1), digit(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((16 * high + low) as u8);
                i += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The first character that ftfy may change. Printable ASCII, white space, and a lower-case accented letter after one
/// of these are safe: damaged UTF-8 has at least two characters, except for 'â' and 'ã', after which one may be lost.
fn for_ftfy(text: &str) -> Option<char> {
    let plain = |c: char| c.is_ascii_graphic() || matches!(c, ' ' | '\t' | '\n' | '\r');
    let letter = |c: char| ('à'..='ÿ').contains(&c) && !matches!(c, 'â' | 'ã' | '÷');
    let mut before = ' ';
    text.chars().find(|&c| {
        let fine = plain(c) || letter(c) && plain(before);
        before = c;
        !fine
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_become_what_diffusers_makes_of_them_or_are_refused() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captions.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cleaner = Cleaner::new().unwrap();
        let pairs = golden["cleaned"].as_array().unwrap();
        assert!(pairs.len() > 30);
        for pair in pairs {
            let (caption, wanted) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            assert_eq!(cleaner.clean(caption).unwrap(), wanted, "{caption:?}");
        }
        for caption in golden["refused"].as_array().unwrap() {
            let error = cleaner.clean(caption.as_str().unwrap()).unwrap_err().to_string();
            assert!(error.contains("cannot be cleaned as diffusers does"), "{error}");
        }
    }
}
