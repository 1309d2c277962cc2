//! How many files the process may have open: every connection is one.
//!
//! What a process may have at its start is often a thousand, a small part of what it may ask for. Absent: the connections.

use super::limits;

/// Raises the limit as far as the process may, and says how many connections that leaves room for beside the store and all
/// else that is open.
pub(crate) fn raise_limit() -> usize {
    let files = raise().unwrap_or(limits::FILES);
    files.saturating_sub(limits::OTHER_FILES).max(files / 2)
}

#[cfg(unix)]
fn raise() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let most = limits::FILES as u64;
    let wanted = before.maximum.map_or(most, |hard| hard.min(most));
    let current = before.current?;
    if current < wanted {
        // Where it cannot be raised, what there is has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: before.maximum });
    }
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

#[cfg(not(unix))]
fn raise() -> Option<usize> {
    None
}
