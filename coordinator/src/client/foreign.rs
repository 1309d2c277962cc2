//! Text from others: the name of a worker, a reason, a label.

use std::fmt;

use evocache_proto::text;

/// A text from others. Displayed, it is one line without anything that acts on a terminal; [`raw`](Self::raw) is for
/// programs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Foreign(String);

impl Foreign {
    /// The text as it was sent.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::plain(&self.0))
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<T: Into<String>> From<T> for Foreign {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Foreign {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Foreign {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_on_one_line_and_kept_as_it_is() {
        let name = Foreign::from("a\u{1b}[2J\nhint: run this");
        assert_eq!(format!("{name}|{name:?}"), "a\\u{1b}[2J\\nhint: run this|\"a\\u{1b}[2J\\nhint: run this\"");
        assert_eq!(name.raw(), "a\u{1b}[2J\nhint: run this");
        assert_eq!(format!("{:>4}", Foreign::from("x")), "   x");
    }
}
