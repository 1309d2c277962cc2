//! Energy that a device uses, where it tells: NVIDIA's since Volta do, through NVML, which comes with the driver.
//!
//! The counter is the whole board's, other processes included, and moves about every 20 to 100 ms: a batch should take
//! longer than that.

use evocache_proto::domain::{Direction, MetricDeclaration};

use super::api::EvaluateError;
use super::device::DeviceChoice;

/// The metric's name.
pub const METRIC: &str = "energy_j";

/// A counter of energy.
pub trait EnergyMeter: Send {
    /// Joules that the device has used since some moment, always the same.
    ///
    /// # Errors
    ///
    /// What the device says when it cannot tell.
    fn joules(&self) -> Result<f64, String>;
}

/// How it is declared.
pub(super) fn declaration() -> MetricDeclaration {
    MetricDeclaration {
        name: METRIC.into(),
        direction: Direction::Minimize,
        unit: "J".into(),
        description: "energy per image that the device used, of the batch with the image".into(),
    }
}

/// The device's counter, if it has one that can be read now.
pub(super) fn meter(device: DeviceChoice) -> Option<Box<dyn EnergyMeter>> {
    match device {
        DeviceChoice::Cuda(number) => nvml::open(number),
        DeviceChoice::Cpu | DeviceChoice::Metal(_) => None,
    }
}

/// Reads a counter before and after what is measured.
pub(super) struct Reading<'a> {
    meter: Option<(&'a dyn EnergyMeter, f64)>,
}

impl<'a> Reading<'a> {
    pub(super) fn start(meter: Option<&'a dyn EnergyMeter>) -> Result<Self, EvaluateError> {
        Ok(Self { meter: meter.map(|meter| Ok::<_, EvaluateError>((meter, read(meter)?))).transpose()? })
    }

    /// Joules per image of a batch, if there is a counter.
    pub(super) fn per_image(self, images: usize) -> Result<Option<f64>, EvaluateError> {
        let Some((meter, before)) = self.meter else { return Ok(None) };
        let spent = read(meter)? - before;
        if spent < 0.0 {
            return Err(failed("its counter of energy went back"));
        }
        Ok(Some(spent / images as f64))
    }
}

fn read(meter: &dyn EnergyMeter) -> Result<f64, EvaluateError> {
    meter.joules().map_err(|e| failed(&e))
}

fn failed(why: &str) -> EvaluateError {
    EvaluateError::Failed {
        message: format!("the device does not tell its energy: {why}"),
        hint: None,
        retryable: true,
    }
}

#[cfg(feature = "cuda")]
mod nvml {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    use nvml_wrapper::Nvml;

    use super::EnergyMeter;

    /// The name under which drivers install it; the unversioned one is for compilers.
    const LIBRARY: &str = "libnvidia-ml.so.1";

    struct Board {
        library: Nvml,
        /// CUDA numbers devices in another order than NVML.
        uuid: String,
    }

    impl EnergyMeter for Board {
        fn joules(&self) -> Result<f64, String> {
            let device = self.library.device_by_uuid(self.uuid.as_str()).map_err(|e| e.to_string())?;
            device.total_energy_consumption().map(|millijoules| millijoules as f64 / 1e3).map_err(|e| e.to_string())
        }
    }

    pub(super) fn open(number: usize) -> Option<Box<dyn EnergyMeter>> {
        let library = match Nvml::builder().lib_path(LIBRARY.as_ref()).init() {
            Ok(library) => library,
            Err(e) => {
                tracing::info!("energy is not measured: NVML does not start ({e})");
                return None;
            }
        };
        let bytes = CudaContext::new(number).ok()?.uuid().ok()?.bytes;
        let board = Board { library, uuid: name(bytes.map(|byte| byte.cast_unsigned())) };
        match board.joules() {
            Ok(_) => Some(Box::new(board)),
            Err(e) => {
                tracing::info!("energy is not measured: the device has no counter ({e})");
                None
            }
        }
    }

    /// As NVML writes it: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
    fn name(bytes: [u8; 16]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

#[cfg(not(feature = "cuda"))]
mod nvml {
    use super::EnergyMeter;

    pub(super) fn open(_number: usize) -> Option<Box<dyn EnergyMeter>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Tells these numbers one after the other, then nothing.
    struct Told(Mutex<Vec<f64>>);

    impl EnergyMeter for Told {
        fn joules(&self) -> Result<f64, String> {
            self.0.lock().map_err(|e| e.to_string())?.pop().ok_or_else(|| "gone".into())
        }
    }

    fn told(mut numbers: Vec<f64>) -> Told {
        numbers.reverse();
        Told(Mutex::new(numbers))
    }

    #[test]
    fn energy_is_what_the_counter_moved_per_image() {
        let meter = told(vec![5.0, 17.0, 3.0, 2.0, 1.0]);
        let start = || Reading::start(Some(&meter as &dyn EnergyMeter));
        assert_eq!(start().unwrap().per_image(4).unwrap(), Some(3.0));
        assert!(start().unwrap().per_image(4).unwrap_err().to_string().contains("went back"));
        let error = start().unwrap().per_image(1).unwrap_err();
        assert!(error.to_string().contains("gone") && error.is_retryable());
        assert_eq!(Reading::start(None).unwrap().per_image(4).unwrap(), None);
    }
}
