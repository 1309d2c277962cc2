//! Typed identifiers.

use std::fmt;
use std::str::FromStr;

use crate::text::plain;

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or too long.
    #[error("{kind} '{text}' must have 1 to 63 characters, it has {length}")]
    Length {
        /// The kind of identifier, such as `search id`.
        kind: &'static str,
        /// The text, cut to 80 characters.
        text: String,
        /// The length of the text in characters.
        length: usize,
    },
    /// The text has an invalid character.
    #[error("{kind} '{text}' may have a-z, 0-9 and '-' only, and not start with '-'; found '{}'", found.escape_debug())]
    Character {
        /// The kind of identifier, such as `search id`.
        kind: &'static str,
        /// The text, cut to 80 characters.
        text: String,
        /// The first invalid character.
        found: char,
    },
}

/// The beginning of the text, escaped for one line.
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
    /// The id of a search: chosen by its creator or made by the coordinator. Free again once the search is deleted.
    SearchId,
    "search id"
);
name_id!(
    /// The id of a worker's registration. A worker that registers again gets a new one.
    WorkerId,
    "worker id"
);
name_id!(
    /// The idempotency key of a mutating call, usually a UUID. A repeat of the call with the same key changes nothing.
    RequestId,
    "request id"
);

name_id!(
    /// Made by the coordinator for each search and never used again, unlike [`SearchId`].
    SearchUid,
    "search uid"
);

/// Identifies a search for good. Its id may be used again after it is deleted, the pair of id and uid never.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchRef {
    /// The id that people use.
    pub id: SearchId,
    /// The uid that distinguishes it from other searches with this id.
    pub uid: SearchUid,
}

impl fmt::Display for SearchRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.id, self.uid)
    }
}

/// Why a text is not a search reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchRefError {
    /// The text has no `~`.
    #[error("'{text}' is not a search_ref such as 'emoji~0199c2c4'; send the one of the lease unchanged")]
    Form {
        /// The text, cut to 80 characters.
        text: String,
    },
    /// The id or the uid is invalid.
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

/// The number of a candidate within its search, from 0. Candidate 0 is the uncached run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CandidateId(pub u64);

impl fmt::Display for CandidateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Fences a lease: every grant has a larger epoch than all grants before it, across searches and restarts.
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
