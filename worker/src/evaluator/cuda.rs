//! Counts and opens CUDA devices, with errors that say what is missing.
//!
//! A worker with the feature `cuda` also starts on machines without a driver, so the driver is looked for at run time.

use candle_core::Device;

use crate::files::error::{ModelError, Result};

fn unusable(device: impl ToString, problem: impl ToString, hint: &str) -> ModelError {
    ModelError::Device { device: device.to_string(), problem: problem.to_string(), hint: hint.to_owned() }
}

#[cfg(feature = "cuda")]
mod driver {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    use candle_core::cuda_backend::cudarc::driver::sys::CUresult;

    use super::{Device, Result, unusable};

    /// How many devices the driver lists; at least one. `asked` is the device that an error names.
    pub(crate) fn count(asked: &str) -> Result<usize> {
        let found = match CudaContext::device_count() {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => match error.0 {
                // Returned by the stubs of deploy/cuda/shims.py if the library is missing.
                CUresult::CUDA_ERROR_STUB_LIBRARY => {
                    return Err(unusable(
                        asked,
                        "no NVIDIA driver found (libcuda.so.1 is missing)",
                        "install the driver, version 580 or newer, start the container with access to the GPUs, or use \
                         --device cpu",
                    ));
                }
                CUresult::CUDA_ERROR_NO_DEVICE => 0,
                _ => {
                    return Err(unusable(
                        asked,
                        error,
                        "install driver version 580 or newer; `nvidia-smi` shows the installed version",
                    ));
                }
            },
        };
        if found == 0 {
            return Err(unusable(
                asked,
                "the driver lists no CUDA device",
                "check `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES, or use --device cpu",
            ));
        }
        Ok(found)
    }

    pub(crate) fn open(number: usize) -> Result<Device> {
        let device = format!("cuda:{number}");
        let found = count(&device)?;
        if number >= found {
            let problem = format!("no such device: there are {found}, numbered from 0");
            return Err(unusable(device, problem, "choose another device, or use `run --devices all`"));
        }
        Device::new_cuda(number).map_err(|e| {
            unusable(
                device,
                e,
                "install libcublas.so.13 and libcurand.so.10 of CUDA 13 in the system's library path or in \
                 LD_LIBRARY_PATH (PyPI's nvidia-cublas and nvidia-curand contain them), and check that no other \
                 process uses the device exclusively",
            )
        })
    }

    /// Free bytes on the device.
    pub(crate) fn free_memory(number: usize) -> Option<u64> {
        count("").ok().filter(|&found| number < found)?;
        CudaContext::new(number).ok()?.mem_get_info().ok().map(|(free, _)| free as u64)
    }

    pub(crate) fn name(number: usize) -> Option<String> {
        CudaContext::new(number).ok()?.name().ok()
    }
}

#[cfg(not(feature = "cuda"))]
mod driver {
    use super::{Device, Result, unusable};

    const PROBLEM: &str = "this worker was built without CUDA";
    const HINT: &str = "build one with deploy/cuda/build.sh, which needs no GPU, or use --device cpu";

    pub(crate) fn count(asked: &str) -> Result<usize> {
        Err(unusable(asked, PROBLEM, HINT))
    }

    pub(crate) fn open(number: usize) -> Result<Device> {
        Err(unusable(format!("cuda:{number}"), PROBLEM, HINT))
    }

    pub(crate) fn free_memory(_number: usize) -> Option<u64> {
        None
    }

    pub(crate) fn name(_number: usize) -> Option<String> {
        None
    }
}

pub(crate) use driver::{count, free_memory, name, open};
