//! Typed identifiers. They are names, not numbers to compute with, and one kind never stands for another.

use std::fmt;
use std::str::FromStr;

use crate::text::plain;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or too long.
    #[error("{kind} '{text}' must have 1 to 63 characters, it has {length}")]
    Length {
        /// Which identifier.
        kind: &'static str,
        /// The offending text, cut to 80 characters.
        text: String,
        /// Its length in characters.
        length: usize,
    },
    /// A character that an identifier may not hold.
    #[error("{kind} '{text}' may hold a-z, 0-9 and '-' only, and starts with a letter or digit; found '{}'", found.escape_debug())]
    Character {
        /// Which identifier.
        kind: &'static str,
        /// The offending text.
        text: String,
        /// The first offending character.
        found: char,
    },
}

/// Enough of it to be found again, on one line.
fn shown(text: &str) -> String {
    plain(&text.chars().take(80).collect::<String>()).into_owned()
}

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    let length = text.chars().count();
    if !(1..=63).contains(&length) {
        return Err(IdError::Length { kind, text: shown(text), length });
    }
    let bad =
        text.chars().enumerate().find(|&(i, c)| !(c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && i > 0)));
    match bad {
        Some((_, found)) => Err(IdError::Character { kind, text: shown(text), found }),
        None => Ok(()),
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the text: 1 to 63 of `a-z0-9-`, not starting with `-`.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

name_id!(
    /// A search: chosen by who creates it, or made by the coordinator.
    SearchId,
    "search id"
);
name_id!(
    /// A worker's registration. A worker that registers again gets a new one.
    WorkerId,
    "worker id"
);
name_id!(
    /// Names one mutating call; a repeat with the same id gets the first answer. Usually a UUID.
    RequestId,
    "request id"
);

name_id!(
    /// Tells a search from any other that had or will have the same id. Made by the coordinator, never used again.
    SearchUid,
    "search uid"
);

/// A search for good: its id may be used again once it is deleted, the pair never.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchRef {
    /// What people call it.
    pub id: SearchId,
    /// What tells it from others of that id.
    pub uid: SearchUid,
}

impl fmt::Display for SearchRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.id, self.uid)
    }
}

/// Why a text names no search for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchRefError {
    /// The id alone, or something else.
    #[error("'{text}' is no search_ref such as 'emoji~0199c2c4'; send back the one that came with the lease")]
    Form {
        /// The offending text, cut to 80 characters.
        text: String,
    },
    /// One of the two parts.
    #[error(transparent)]
    Part(#[from] IdError),
}

impl FromStr for SearchRef {
    type Err = SearchRefError;
    fn from_str(text: &str) -> Result<Self, SearchRefError> {
        let form = || SearchRefError::Form { text: text.chars().take(80).collect() };
        let (id, uid) = text.split_once('~').ok_or_else(form)?;
        Ok(Self { id: SearchId::new(id)?, uid: SearchUid::new(uid)? })
    }
}

/// The n-th candidate of its search, from 0. Candidate 0 is the all-compute schedule of the largest step count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateId(pub u64);

impl fmt::Display for CandidateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Fences a lease: every grant has a larger epoch than all before, of whatever candidate or search, across restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lower_case_names() {
        assert!(SearchId::new("emoji-2026").is_ok());
        assert_eq!(SearchId::new("0").unwrap().as_str(), "0");
        for bad in ["", "-a", "Emoji", "a b", "a/b", "é"] {
            assert!(SearchId::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(WorkerId::new("w".repeat(64)).is_err());
    }

    #[test]
    fn a_search_ref_is_an_id_and_a_uid() {
        let text = "emoji~0199c2c4-7d0e";
        assert_eq!(text.parse::<SearchRef>().unwrap().to_string(), text);
        for bad in ["emoji", "", "~", "emoji~", "~0199", "emoji~a~b", "Emoji~0199"] {
            assert!(bad.parse::<SearchRef>().is_err(), "{bad:?} must be refused");
        }
    }
}
