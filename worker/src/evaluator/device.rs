//! Device names and number formats, as given on the command line.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use super::cuda;
use crate::files::error::{ModelError, Result};
use crate::layers::cpu::instruction_set;

/// A device to run on, written `cpu`, `cuda`, `cuda:1` or `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
    /// A Metal device by number.
    Metal(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let number = number.parse().map_err(|_| format!("'{number}' is not a device number"));
        match kind {
            "cpu" if !text.contains(':') => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(number?)),
            "metal" => Ok(Self::Metal(number?)),
            _ => Err(format!("'{text}' is not a device; use cpu, cuda, cuda:N or metal")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => cuda::open(number),
            Self::Metal(number) => Device::new_metal(number).map_err(|e| ModelError::Device {
                device: self.to_string(),
                problem: e.to_string(),
                hint: "build the worker with the feature metal on a Mac, or use --device cpu".into(),
            }),
        }
    }

    /// Free bytes on the device, if known: available memory on Linux for the CPU, free memory of a CUDA device.
    pub fn free_memory(self) -> Option<u64> {
        match self {
            Self::Cpu => {}
            Self::Cuda(number) => return cuda::free_memory(number),
            Self::Metal(_) => return None,
        }
        let info = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    }

    /// The device's name for a declaration, such as `AMD EPYC 7B13 (2 threads, avx2)` or `NVIDIA H100 80GB HBM3`.
    pub fn describe(self) -> String {
        match self {
            Self::Cpu => {}
            Self::Cuda(number) => return cuda::name(number).unwrap_or_else(|| self.to_string()),
            Self::Metal(_) => return self.to_string(),
        }
        let threads = rayon::current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(':'))
            .map_or("cpu", |(_, name)| name.trim());
        let name: String = name.chars().take(120).collect();
        format!("{name} ({threads} thread{plural}, {})", instruction_set())
    }
}

/// The number format that a transformer computes in. Text encoders and decoder always use f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 10 bits of mantissa, for models that were trained or tuned in f16; slow on the CPU.
    F16,
    /// bfloat16, with 7 bits of mantissa: half the memory of f32, and no overflow where f16 overflows. On the CPU only
    /// the weights of linear layers and their inputs are rounded to bf16; everything else is f32. Twice as fast as f32
    /// with AVX-512 BF16.
    Bf16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("'{text}' is not a precision; use f32, f16 or bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// bf16 on CUDA, f32 elsewhere.
    pub fn native(device: DeviceChoice) -> Self {
        if matches!(device, DeviceChoice::Cuda(_)) { Self::Bf16 } else { Self::F32 }
    }

    /// The format as candle's type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Several devices: `all` (every CUDA device), or names separated by commas, in which a device may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceList {
    /// Every CUDA device.
    All,
    /// The named devices, at least one.
    These(Vec<DeviceChoice>),
}

impl FromStr for DeviceList {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        text.split(',').map(|name| name.trim().parse()).collect::<std::result::Result<_, _>>().map(Self::These)
    }
}

impl DeviceList {
    /// The devices. `all` asks the driver for their number, without opening any.
    pub fn resolve(&self) -> Result<Vec<DeviceChoice>> {
        match self {
            Self::These(devices) => Ok(devices.clone()),
            Self::All => Ok((0..cuda::count("all")?).map(DeviceChoice::Cuda).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_devices_are_read_as_people_write_them() {
        use DeviceChoice::{Cpu, Cuda};
        for (text, devices) in [
            ("all", DeviceList::All),
            ("cuda:0, cuda:2", DeviceList::These(vec![Cuda(0), Cuda(2)])),
            ("cpu,cpu", DeviceList::These(vec![Cpu, Cpu])),
        ] {
            assert_eq!(text.parse(), Ok(devices));
        }
        for text in ["", "all,cpu", "cpu,", "cuda:0;cuda:1"] {
            assert!(text.parse::<DeviceList>().is_err(), "{text}");
        }
    }

    #[test]
    fn devices_are_read_as_people_write_them() {
        for (text, device) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("metal", DeviceChoice::Metal(0)),
        ] {
            assert_eq!(text.parse(), Ok(device));
        }
        for text in ["", "gpu", "cuda:x", "cpu:1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
