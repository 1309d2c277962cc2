//! The allocator of programs that run workers, and how long it keeps free memory.
//!
//! glibc returns large blocks to the system, so that each new use causes page faults. mimalloc keeps them, by default
//! for one second; stored outputs of a schedule are free for longer than that while uncached runs are timed.

/// What such a program declares as its `#[global_allocator]`. Not declared here: tests that count bytes declare another.
pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of `mimalloc.h`, for which the crate has no constant.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Milliseconds until free memory is returned to the system: longer than a run and the pause after it.
const KEPT: std::ffi::c_long = 30_000;

/// Keeps free memory for the next run. The variable MIMALLOC_PURGE_DELAY takes precedence.
#[expect(unsafe_code, reason = "the allocator's options are set through its C interface")]
pub fn keep_pages() {
    // SAFETY: options may be set at any time; an unknown option number is ignored.
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
        assert_eq!(value(), 1000, "the default of this option only");
        keep_pages();
        assert_eq!(value(), KEPT);
    }
}
