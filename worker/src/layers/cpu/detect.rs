//! The instruction sets of this processor, detected when the program runs.

/// Whether the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the processor has the parts of AVX-512 that the kernels are compiled for.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && avx2()
}

/// Whether the processor also multiplies pairs of bf16 (`vdpbf16ps`).
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512_bf16() -> bool {
    avx512() && is_x86_feature_detected!("avx512bf16")
}

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
