//! Open files: every connection is one, and many systems start a process with a thousand of the many more it may ask for.

use super::limits;

/// Raises the process's limit of open files as far as the system allows. Returns the number of connections that fit beside
/// the store and everything else that is open.
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
        // If it cannot be raised, the present limit holds.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: before.maximum });
    }
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

#[cfg(not(unix))]
fn raise() -> Option<usize> {
    None
}
