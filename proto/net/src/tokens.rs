//! The token file: who may call a server, in which role, and until when.
//!
//! It contains the SHA-256 of each token and never the token, so that reading the file does not allow any call. Servers
//! read it; the command line writes its entries. What a role may do is each server's own business.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::pace::Pace;

/// The role of a token's holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at searches and workers
    Reader,
    /// Looks, and creates and ends searches and drains workers
    Operator,
    /// Evaluates candidates
    Worker,
    /// May do everything
    Admin,
    /// Asks an image server for pictures
    Client,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Reader, Self::Operator, Self::Worker, Self::Admin, Self::Client];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Worker => "worker",
            Self::Admin => "admin",
            Self::Client => "client",
        }
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The holder. Several tokens may have one name, so that a new one can be handed out before the old one is removed.
    pub name: String,
    /// The holder's role.
    pub role: Role,
    /// When the token expires, in milliseconds since 1970.
    pub expires: Option<u64>,
    /// How many pictures the holder may have; `None`: as many as the server lets everybody have. Of role client only.
    pub pictures: Option<Pace>,
    digest: [u8; 32],
}

/// The tokens of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// Why a token file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tokens in '{path}': {problem}")]
pub struct TokensError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub problem: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    sha256: String,
    expires: Option<String>,
    pictures: Option<String>,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or an entry is wrong; then none of it is used.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let wrong = |problem: String| TokensError { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|e| {
            let text = e.to_string();
            wrong(format!("cannot be read: {}", text.split(" (os error").next().unwrap_or_default().to_lowercase()))
        })?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When an entry is wrong, with its line or number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| {
            // Not the error's own text: it shows the line, and somebody may have put a token there.
            let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            format!("line {line}: {}", e.message())
        })?;
        let mut tokens: Vec<Token> = vec![];
        for (number, entry) in file.token.into_iter().enumerate() {
            let token = token(entry).map_err(|problem| format!("[[token]] number {}: {problem}", number + 1))?;
            // A token with two roles would silently have the first.
            if tokens.iter().any(|other| other.digest == token.digest) {
                return Err(format!("[[token]] number {}: the same sha256 stands twice", number + 1));
            }
            tokens.push(token);
        }
        // Without a token nobody could make any call, which is hardly intended.
        if tokens.is_empty() {
            return Err("there is no [[token]] in it".to_owned());
        }
        Ok(Self(tokens))
    }

    /// The entry of a token, even if it has expired.
    pub fn find(&self, secret: &str) -> Option<&Token> {
        let digest = digest(secret);
        // A comparison in constant time is not needed: its duration discloses part of the digest, and to find a token with
        // that digest one would have to invert SHA-256.
        self.0.iter().find(|token| token.digest == digest)
    }

    /// The number of tokens.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn token(entry: Entry) -> Result<Token, String> {
    check_name(&entry.name)?;
    let digest = from_hex(&entry.sha256).ok_or("sha256 has not 64 hexadecimal digits")?;
    let expires = entry.expires.map(|text| instant(&text)).transpose()?;
    let pictures = entry.pictures.map(|text| text.parse::<Pace>().map_err(|e| format!("pictures {e}"))).transpose()?;
    // No other role gets pictures, so it would limit nothing.
    if pictures.is_some() && entry.role != Role::Client {
        return Err(format!("pictures is for tokens of role client, and this one is of role {}", entry.role.as_str()));
    }
    Ok(Token { name: entry.name, role: entry.role, digest, expires, pictures })
}

/// Checks the name of a token's holder.
///
/// # Errors
///
/// If the name has other characters or another length than logs and the store allow.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("name {name:?} is not 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'"))
}

fn instant(text: &str) -> Result<u64, String> {
    let wrong = || format!("expires '{text}' is no time; write it like 2027-01-01T00:00:00Z");
    let time: prost_types::Timestamp = text.parse().map_err(|_| wrong())?;
    let seconds = u64::try_from(time.seconds).map_err(|_| wrong())?;
    Ok(seconds.saturating_mul(1000))
}

/// The entry of a token in the file. `expires` is a time in RFC 3339.
pub fn entry(name: &str, role: Role, secret: &str, expires: Option<&str>) -> String {
    let hex: String = digest(secret).iter().map(|byte| format!("{byte:02x}")).collect();
    let expires = expires.map_or_else(String::new, |time| format!("expires = \"{time}\"\n"));
    format!("[[token]]\nname = \"{name}\"\nrole = \"{}\"\nsha256 = \"{hex}\"\n{expires}", role.as_str())
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_is_written() {
        let text = entry("ci", Role::Operator, "first", Some("2027-01-01T00:00:00Z"))
            + &entry("ci", Role::Operator, "second", None)
            + &entry("gpu-1", Role::Worker, "third", None);
        assert!(!text.contains("first") && !text.contains("third"), "{text}");
        let tokens = Tokens::parse(&text).unwrap();
        let first = tokens.find("first").unwrap();
        assert_eq!((first.name.as_str(), first.role), ("ci", Role::Operator));
        assert_eq!(first.expires, Some(1_798_761_600_000));
        assert_eq!(tokens.find("second").unwrap().name, "ci");
        assert_eq!(tokens.find("third").unwrap().role, Role::Worker);
        assert_eq!((tokens.find("fourth"), tokens.count()), (None, 3));
        let text = entry("ada", Role::Client, "first", None) + "pictures = \"60:20\"\n";
        let pictures = Tokens::parse(&text).unwrap().find("first").unwrap().pictures;
        assert_eq!(pictures.map(|pace| pace.to_string()).as_deref(), Some("60:20"));
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_number() {
        let good = entry("a", Role::Reader, "x", None);
        let cases = [
            ("[[token]]\nname = \"a\"\nrole = \"king\"\nsha256 = \"\"".to_owned(), "king"),
            (good.replace("sha256 = \"", "sha256 = \"z"), "number 1: sha256"),
            (format!("{good}expires = \"soon\""), "number 1: expires 'soon'"),
            (good.replace("name = \"a\"", "name = \"a b\""), "number 1: name \"a b\""),
            (format!("{good}{good}"), "number 2: the same sha256"),
            (format!("{good}secret = \"x\""), "secret"),
            (format!("{good}pictures = \"60\""), "number 1: pictures is for tokens of role client"),
            (entry("a", Role::Client, "x", None) + "pictures = \"0\"", "number 1: pictures '0' is not PER_MINUTE"),
            (String::new(), "no [[token]]"),
        ];
        for (text, expected) in cases {
            let problem = Tokens::parse(&text).unwrap_err();
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}
