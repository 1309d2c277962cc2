//! The instruction sets of this processor, detected when the program runs.

/// Whether the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2() -> bool {
    is_allowed(Level::Avx2) && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the processor has the parts of AVX-512 that the kernels are compiled for.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512() -> bool {
    is_allowed(Level::Avx512)
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && avx2()
}

/// Whether the processor also multiplies pairs of bf16 (`vdpbf16ps`).
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512_bf16() -> bool {
    is_allowed(Level::Avx512Bf16) && avx512() && is_x86_feature_detected!("avx512bf16")
}

/// The levels for which the kernels are compiled, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg(target_arch = "x86_64")]
pub(super) enum Level {
    #[cfg(test)]
    Baseline,
    Avx2,
    Avx512,
    Avx512Bf16,
}

#[cfg(all(target_arch = "x86_64", not(test)))]
fn is_allowed(_: Level) -> bool {
    true
}

/// Tests run the kernels of lesser processors too.
#[cfg(all(target_arch = "x86_64", test))]
mod limit {
    use std::cell::Cell;

    use super::Level;

    thread_local! {
        static LIMIT: Cell<Level> = const { Cell::new(Level::Avx512Bf16) };
    }

    pub(super) fn is_allowed(level: Level) -> bool {
        level <= LIMIT.get()
    }

    /// Calls `body` as if the processor had nothing above a level. Holds for this thread only.
    pub(in super::super) fn at_most<T>(level: Level, body: impl FnOnce() -> T) -> T {
        let before = LIMIT.replace(level);
        let result = body();
        LIMIT.set(before);
        result
    }
}

#[cfg(all(target_arch = "x86_64", test))]
pub(super) use limit::at_most;
#[cfg(all(target_arch = "x86_64", test))]
use limit::is_allowed;

/// Name of the instruction set that the kernels use on this processor, for display.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512_bf16() {
            return "avx512 with bf16";
        }
        if avx512() {
            return "avx512";
        }
        if avx2() {
            return "avx2";
        }
    }
    "baseline"
}
