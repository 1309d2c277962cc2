//! The allocator, and how long it keeps what is free.
//!
//! glibc gives large blocks back to the system and pages them in anew at every use. mimalloc keeps them, by itself for a second;
//! what a schedule stores is free for longer while uncached runs are timed.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, which the crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Milliseconds until free memory goes back to the system: longer than a run and what is between two.
const KEPT: std::ffi::c_long = 30_000;

/// Keeps free memory for the next run, unless the variable MIMALLOC_PURGE_DELAY says how long.
#[expect(unsafe_code, reason = "the allocator's options are set through its C interface")]
pub(super) fn keep_pages() {
    // SAFETY: options may be set at any time; a number that is none is ignored.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_option_is_the_delay() {
        // SAFETY: reads a number.
        let value = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(value(), 1000, "no other option has this default");
        keep_pages();
        assert_eq!(value(), KEPT);
    }
}
