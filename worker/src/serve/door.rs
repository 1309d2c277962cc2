//! Who may ask, and for how many pictures: everybody, or the holders of the tokens of a file, which can be reloaded.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::{HeaderMap, StatusCode, header};
use evocache_net::pace::Pace;
use evocache_net::tokens::{Role, Tokens, TokensError};
use tokio::time::Instant;

use super::paces::{Paces, TooFast};
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

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guest {
    /// The token's holder, or the address if no token is required.
    pub(super) name: String,
    /// How many pictures it may have; `None`: any number.
    pace: Option<Pace>,
}

/// Pictures that were taken from a guest's account. Given back when dropped, unless they are [kept](Self::keep).
pub(super) struct Charge<'a> {
    door: &'a Door,
    guest: &'a Guest,
    count: u32,
}

impl Charge<'_> {
    /// The pictures are drawn.
    pub(super) fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(pace) = self.guest.pace {
            self.door.lock().give_back(&self.guest.name, pace, self.count);
        }
    }
}

/// The door.
pub(super) struct Door {
    file: Option<PathBuf>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    /// Of guests whose token says nothing.
    pace: Option<Pace>,
    paces: Mutex<Paces>,
}

impl Door {
    /// A door that asks for the tokens of a file, if there is one.
    pub(super) fn open(file: Option<PathBuf>, pace: Option<Pace>) -> Result<Self, TokensError> {
        let tokens = file.as_deref().map(Tokens::read).transpose()?;
        Ok(Self { file, tokens: RwLock::new(tokens.map(Arc::new)), pace, paces: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Paces> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many pictures from a guest's account.
    pub(super) fn charge<'a>(&'a self, guest: &'a Guest, count: u32) -> Result<Charge<'a>, Refusal> {
        if let Some(pace) = guest.pace {
            self.lock().take(&guest.name, pace, count, Instant::now()).map_err(|too_fast| match too_fast {
                TooFast::Wait(wait) => Refusal::greedy(
                    "rate_limit_exceeded",
                    format!("you may have {} pictures a minute", pace.per_minute),
                    wait,
                ),
                TooFast::Never(most) => {
                    Refusal::invalid("n", "invalid_value", format!("you may have {most} pictures at once"))
                }
            })?;
        }
        Ok(Charge { door: self, guest, count })
    }

    /// Reads the file again. A file with a mistake changes nothing.
    pub(super) fn reload(&self) -> Result<(), TokensError> {
        let Some(file) = &self.file else { return Ok(()) };
        let tokens = Tokens::read(file)?;
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tokens));
        Ok(())
    }

    /// The guest at this address, if it has the token that it needs.
    pub(super) fn admit(&self, headers: &HeaderMap, address: IpAddr, need: Need) -> Result<Guest, Refusal> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(tokens) = tokens else { return Ok(Guest { name: address.to_string(), pace: self.pace }) };
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
        Ok(Guest { name: token.name.clone(), pace: token.pictures.or(self.pace) })
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
        let door = Door::open(Some(file.clone()), None).unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        let admit = |shown: Option<&str>, need: Need| {
            let headers = shown.map(|shown| (header::AUTHORIZATION, shown.parse().unwrap())).into_iter().collect();
            door.admit(&headers, here, need).map(|guest| guest.name).map_err(|refusal| refusal.status().as_u16())
        };
        assert_eq!(admit(Some("Bearer secret"), Need::Pictures), Ok("ada".into()));
        assert_eq!(admit(Some("bearer reads"), Need::Token), Ok("eve".into()));
        assert_eq!(admit(Some("Bearer reads"), Need::Pictures), Err(403));
        for shown in [None, Some("secret"), Some("Basic secret"), Some("Bearer other"), Some("Bearer expired")] {
            assert_eq!(admit(shown, Need::Token), Err(401), "{shown:?}");
        }
        std::fs::write(&file, "nonsense").unwrap();
        assert!(door.reload().is_err());
        assert!(admit(Some("Bearer secret"), Need::Pictures).is_ok(), "the previous tokens stay in use");
        std::fs::write(&file, client.replace("ada", "bob")).unwrap();
        door.reload().unwrap();
        assert_eq!(admit(Some("Bearer secret"), Need::Pictures), Ok("bob".into()));
        assert_eq!(admit(Some("Bearer reads"), Need::Token), Err(401));
        let open = Door::open(None, None).unwrap().admit(&HeaderMap::new(), here, Need::Pictures);
        assert_eq!(open.map(|guest| guest.name).map_err(drop), Ok("127.0.0.1".into()));
    }

    #[test]
    fn what_is_not_drawn_is_given_back() {
        let door = Door::open(None, Some("1:2".parse().unwrap())).unwrap();
        let guest = door.admit(&HeaderMap::new(), IpAddr::from([127, 0, 0, 1]), Need::Pictures).unwrap();
        let status = |count: u32| door.charge(&guest, count).map_err(|refusal| refusal.status().as_u16());
        assert_eq!(status(3).err(), Some(400));
        drop(status(2).unwrap());
        status(2).unwrap().keep();
        assert_eq!(status(1).err(), Some(429));
    }
}
