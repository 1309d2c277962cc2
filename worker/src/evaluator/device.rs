//! Names of devices: which one to run on, and what to call it.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::files::error::{ModelError, Result};
use crate::layers::cpu::instruction_set;

/// A device to run on, as people write it: `cpu`, `cuda`, `cuda:1`, `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The processor.
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
        let number = number.parse().map_err(|_| format!("'{number}' is no device number"));
        match kind {
            "cpu" if !text.contains(':') => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(number?)),
            "metal" => Ok(Self::Metal(number?)),
            _ => Err(format!("'{text}' is no device; use cpu, cuda, cuda:N or metal")),
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
        let failed = |e: candle_core::Error| {
            ModelError::Input(format!(
                "device {self} cannot be used: {e} (was the worker built with feature {})",
                self.feature()
            ))
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number).map_err(failed),
            Self::Metal(number) => Device::new_metal(number).map_err(failed),
        }
    }

    fn feature(self) -> &'static str {
        match self {
            Self::Cpu => "candle",
            Self::Cuda(_) => "cuda",
            Self::Metal(_) => "metal",
        }
    }

    /// Bytes that are free on it now, where that can be told: on the CPU of a Linux machine.
    pub fn free_memory(self) -> Option<u64> {
        if self != Self::Cpu {
            return None;
        }
        let info = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    }

    /// What to call it in a declaration, such as `AMD EPYC 7B13 (2 threads, avx2)`.
    pub fn describe(self) -> String {
        if self != Self::Cpu {
            return self.to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

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
