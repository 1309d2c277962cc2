//! Runs computations on a thread of rayon's pool.
//!
//! A kernel that is called from outside the pool is passed to a pool thread while the caller waits. The handover takes
//! as long as a small kernel, and a run calls thousands of kernels.

use candle_core::Device;

/// Runs `work` inside the pool if the device is the CPU.
pub(super) fn inside<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    if device.is_cpu() { rayon::scope(|_| work()) } else { work() }
}

/// Makes the calling thread part of the pool. To be called at the start of a program that computes on this thread only.
pub fn compute_here() {
    // An error means that the pool exists already: slower, but correct.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_for_the_cpu_is_done_by_a_thread_of_the_pool() {
        assert_eq!(rayon::current_thread_index(), None);
        assert!(inside(&Device::Cpu, rayon::current_thread_index).is_some());
    }
}
