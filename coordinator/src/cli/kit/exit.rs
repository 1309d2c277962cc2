//! How a command ends: exit codes, and failures with a hint.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use crate::client::{ClientError, ErrorKind};

/// The exit codes of `evocache`. Scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it succeeded.
    Ok,
    /// 1: it failed; the error says why.
    Failed,
    /// 2: the command line, a specification or an address is wrong.
    Usage,
    /// 3: no such search, worker or candidate, or no schedule satisfies the conditions.
    NotFound,
    /// 130: Ctrl-C ended it.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a command failed, what to do about it, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, with values; further lines are indented.
    pub message: String,
    /// What to do about it, as an imperative.
    pub hint: Option<String>,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, exit: Exit::Failed }
    }

    /// A mistake on the command line or in a specification: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, exit: Exit::Usage }
    }

    /// A file operation failed; `doing` is a verb such as "write".
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        Self::new(format!("cannot {doing} '{}': {reason}", path.display()))
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match (&error, error.kind()) {
            (_, Some(ErrorKind::NotFound)) => Exit::NotFound,
            (ClientError::Address(_), _) | (_, Some(ErrorKind::Invalid)) => Exit::Usage,
            _ => Exit::Failed,
        };
        let hint = error.hint().or_else(|| {
            let hint = match error.reason() {
                "SEARCH_NOT_FOUND" => "`evocache list` shows the searches",
                "SEARCH_EXISTS" => "choose another id with --id, or delete the old search with `evocache delete`",
                "WORKER_NOT_FOUND" => "`evocache workers` shows the workers",
                "TOKEN_MISSING" => "pass one with --token-file FILE or in the variable EVOCACHE_TOKEN",
                "TOKEN_UNKNOWN" => {
                    "the coordinator's operator makes one with `evocache token new`; the coordinator may have to read its \
                     --tokens again (SIGHUP)"
                }
                "TOKEN_EXPIRED" => "ask for a new one; `evocache token new` makes it",
                "ROLE_NEEDED" => "use another token with --token-file FILE or EVOCACHE_TOKEN",
                _ => return None,
            };
            Some(hint.to_owned())
        });
        Self { message: error.to_string(), hint, exit }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evocache_net::channel::AddressError;

    use super::*;
    use crate::client::Refusal;

    fn refused(kind: ErrorKind) -> ClientError {
        ClientError::Refused(Box::new(Refusal {
            call: "GetSearch",
            kind,
            message: "search 'x' does not exist".into(),
            violations: vec![],
            reason: "SEARCH_NOT_FOUND".into(),
            facts: Default::default(),
            retry_after: None,
        }))
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let url = || "http://h:1".to_owned();
        let cases = [
            (refused(ErrorKind::NotFound), 3),
            (refused(ErrorKind::Invalid), 2),
            (refused(ErrorKind::Precondition), 1),
            (refused(ErrorKind::AlreadyExists), 1),
            (AddressError::Url { url: url(), problem: "x".into() }.into(), 2),
            (ClientError::Unreachable { url: url(), problem: "x".into() }, 1),
            (ClientError::Deadline { call: "GetFront", url: url(), deadline: Duration::from_secs(1) }, 1),
        ];
        for (error, code) in cases {
            assert_eq!(Failure::from(error.clone()).exit.code(), code, "{error:?}");
        }
        assert_eq!([Exit::Ok.code(), Exit::Interrupted.code()], [0, 130]);
    }

    #[test]
    fn a_refused_caller_is_told_which_credentials_to_present() {
        for reason in ["TOKEN_MISSING", "TOKEN_UNKNOWN", "TOKEN_EXPIRED", "ROLE_NEEDED"] {
            let ClientError::Refused(mut refusal) = refused(ErrorKind::Other) else { unreachable!() };
            refusal.reason = reason.into();
            let failure = Failure::from(ClientError::Refused(refusal));
            assert!(failure.exit == Exit::Failed && failure.hint.is_some_and(|h| h.contains("token")), "{reason}");
        }
    }

    #[test]
    fn an_unreachable_coordinator_comes_with_a_hint() {
        let failure = Failure::from(ClientError::Unreachable { url: "http://h:1".into(), problem: "refused".into() });
        assert_eq!(failure.message, "coordinator at http://h:1 is not reachable: refused");
        assert!(failure.hint.is_some_and(|hint| hint.contains("evocache serve")));
    }
}
