//! Which threads compute: rayon's, whoever asks.
//!
//! A kernel that is called from outside of the pool is handed over and waited for. That takes as long as a small kernel does, and
//! there are thousands in a run.

use candle_core::Device;

/// Does work inside of the pool, where the device is the CPU.
pub(super) fn inside<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    if device.is_cpu() { rayon::scope(|_| work()) } else { work() }
}

/// Makes the calling thread the first of the pool. For a program whose other threads ask for no computing, at its start.
pub fn compute_here() {
    // A pool that is there already does as well, only slower.
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
