//! CUDA devices: how many there are, opening one, and saying why it cannot be done.
//!
//! A worker with the feature `cuda` starts on machines without a driver, so whether there is one is only known at run time.

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

    /// How many devices the driver shows. `asked` is what an error names.
    pub(crate) fn count(asked: &str) -> Result<usize> {
        let found = match CudaContext::device_count() {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => match error.0 {
                // What deploy/cuda/shims.py returns where there is no library.
                CUresult::CUDA_ERROR_STUB_LIBRARY => {
                    return Err(unusable(
                        asked,
                        "there is no NVIDIA driver (libcuda.so.1 was not found)",
                        "install the driver, 580 or newer, or start the container with access to the GPUs; --device cpu needs \
                         none",
                    ));
                }
                CUresult::CUDA_ERROR_NO_DEVICE => 0,
                _ => {
                    return Err(unusable(
                        asked,
                        error,
                        "the driver must be 580 or newer; `nvidia-smi` tells which one it is and whether it works",
                    ));
                }
            },
        };
        if found == 0 {
            return Err(unusable(
                asked,
                "the driver shows no CUDA device",
                "look at `nvidia-smi` and at the variable CUDA_VISIBLE_DEVICES, or use --device cpu",
            ));
        }
        Ok(found)
    }

    pub(crate) fn open(number: usize) -> Result<Device> {
        let device = format!("cuda:{number}");
        let found = count(&device)?;
        if number >= found {
            let problem = format!("there are {found}, numbered from 0");
            return Err(unusable(device, problem, "name another, or use `run --devices all`"));
        }
        Device::new_cuda(number).map_err(|e| {
            unusable(
                device,
                e,
                "the worker needs libcublas.so.13 and libcurand.so.10 of CUDA 13 where the system looks for libraries (or in \
                 LD_LIBRARY_PATH; the packages nvidia-cublas and nvidia-curand of PyPI have them), and a device that no \
                 other process holds for itself",
            )
        })
    }

    /// Bytes that are free on it now.
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
    const HINT: &str = "deploy/cuda/build.sh builds one with it, on any machine; --device cpu needs none";

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
