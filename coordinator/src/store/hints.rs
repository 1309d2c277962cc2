//! Ways out of a store that cannot be used, as `hint:` lines.

/// For a store that cannot be read.
pub(crate) const RESTORE_HINT: &str = "restore a backup into an empty folder with `evocache store restore`";

/// For a store that lacks acknowledged records.
pub(crate) const LOSS_HINT: &str = "restore a backup into an empty folder with `evocache store restore`, or continue \
                                    with what is left: `evocache serve --accept-loss`";

/// For a store or a backup of another version than this program reads.
pub(crate) fn format_hint(found: u64, supported: u64) -> &'static str {
    if found > supported {
        "a newer evocache wrote it: use that version"
    } else {
        "a development build before 0.1.0 wrote it, and nothing converts it: read it with that build, or start with an empty \
         folder (--data)"
    }
}
