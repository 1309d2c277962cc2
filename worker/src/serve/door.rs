//! Who may ask: everybody, or the holders of the tokens of a file, which can be reloaded.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, StatusCode, header};
use evocache_net::tokens::{Role, Tokens, TokensError};

use super::refusal::Refusal;
use super::wall;

/// What a page needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Any token.
    Token,
    /// A token that may ask for pictures.
    Pictures,
}

/// The door.
pub(super) struct Door {
    file: Option<PathBuf>,
    tokens: RwLock<Option<Arc<Tokens>>>,
}

impl Door {
    /// A door that asks for the tokens of a file, if there is one.
    pub(super) fn open(file: Option<PathBuf>) -> Result<Self, TokensError> {
        let tokens = file.as_deref().map(Tokens::read).transpose()?;
        Ok(Self { file, tokens: RwLock::new(tokens.map(Arc::new)) })
    }

    /// Reads the file again. A file with a mistake changes nothing.
    pub(super) fn reload(&self) -> Result<(), TokensError> {
        let Some(file) = &self.file else { return Ok(()) };
        let tokens = Tokens::read(file)?;
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tokens));
        Ok(())
    }

    /// The name of the token's holder; `None` if no token is required.
    pub(super) fn admit(&self, headers: &HeaderMap, need: Need) -> Result<Option<String>, Refusal> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(tokens) = tokens else { return Ok(None) };
        let unknown = |message: &str| Refusal::unusable(StatusCode::UNAUTHORIZED, "invalid_api_key", message);
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let Some((_, secret)) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Err(unknown("send a token as 'authorization: Bearer TOKEN', the API key of OpenAI's clients"));
        };
        let token = tokens.find(secret.trim()).ok_or_else(|| unknown("the token is not known here"))?;
        if token.expires.is_some_and(|end| wall::now() >= end) {
            return Err(unknown("the token has expired"));
        }
        if need == Need::Pictures && !matches!(token.role, Role::Client | Role::Admin) {
            let message =
                format!("a token of role {} may not ask for pictures; use one of role client", token.role.as_str());
            return Err(Refusal::unusable(StatusCode::FORBIDDEN, "role_needed", message));
        }
        Ok(Some(token.name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use evocache_net::tokens::entry;

    use super::*;

    #[test]
    fn a_token_of_the_file_opens_what_its_role_may_see() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.toml");
        let client = entry("ada", Role::Client, "secret", None);
        let old = entry("old", Role::Client, "expired", Some("2020-01-01T00:00:00Z"));
        std::fs::write(&file, client.clone() + &old + &entry("eve", Role::Reader, "reads", None)).unwrap();
        let door = Door::open(Some(file.clone())).unwrap();
        let admit = |shown: Option<&str>, need: Need| {
            let headers = shown.map(|shown| (header::AUTHORIZATION, shown.parse().unwrap())).into_iter().collect();
            door.admit(&headers, need).map_err(|refusal| refusal.status().as_u16())
        };
        assert_eq!(admit(Some("Bearer secret"), Need::Pictures), Ok(Some("ada".into())));
        assert_eq!(admit(Some("bearer reads"), Need::Token), Ok(Some("eve".into())));
        assert_eq!(admit(Some("Bearer reads"), Need::Pictures), Err(403));
        for shown in [None, Some("secret"), Some("Basic secret"), Some("Bearer other"), Some("Bearer expired")] {
            assert_eq!(admit(shown, Need::Token), Err(401), "{shown:?}");
        }
        std::fs::write(&file, "nonsense").unwrap();
        assert!(door.reload().is_err());
        assert!(admit(Some("Bearer secret"), Need::Pictures).is_ok(), "the previous tokens stay in use");
        std::fs::write(&file, client.replace("ada", "bob")).unwrap();
        door.reload().unwrap();
        assert_eq!(admit(Some("Bearer secret"), Need::Pictures), Ok(Some("bob".into())));
        assert_eq!(admit(Some("Bearer reads"), Need::Token), Err(401));
        assert_eq!(Door::open(None).unwrap().admit(&HeaderMap::new(), Need::Pictures).map_err(drop), Ok(None));
    }
}
