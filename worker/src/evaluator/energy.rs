//! Energy per image, on devices with an energy counter: NVIDIA GPUs since Volta, through NVML, a library of the driver.
//!
//! The counter covers the whole board, including other processes, and is updated every 20 to 100 ms: a batch should
//! take longer than that.

use evocache_proto::domain::{Direction, MetricDeclaration};

use super::api::EvaluateError;
use super::device::DeviceChoice;

/// Name of the metric.
pub const METRIC: &str = "energy_j";

/// An energy counter.
pub trait EnergyMeter: Send {
    /// Joules that the device has used since a fixed point in time.
    ///
    /// # Errors
    ///
    /// The device's error message if it cannot be read.
    fn joules(&self) -> Result<f64, String>;
}

/// The metric's declaration.
pub(super) fn declaration() -> MetricDeclaration {
    MetricDeclaration {
        name: METRIC.into(),
        direction: Direction::Minimize,
        unit: "J".into(),
        description: "energy per image that the device used, of the batch with the image".into(),
    }
}

/// The device's energy counter, or `None` if it has none or it cannot be read.
pub(super) fn meter(device: DeviceChoice) -> Option<Box<dyn EnergyMeter>> {
    match device {
        DeviceChoice::Cuda(number) => nvml::open(number),
        DeviceChoice::Cpu | DeviceChoice::Metal(_) => None,
    }
}

/// The energy used since [`start`](Self::start), if the device has a counter.
pub(super) struct Reading<'a> {
    meter: Option<(&'a dyn EnergyMeter, f64)>,
}

impl<'a> Reading<'a> {
    pub(super) fn start(meter: Option<&'a dyn EnergyMeter>) -> Result<Self, EvaluateError> {
        Ok(Self { meter: meter.map(|meter| Ok::<_, EvaluateError>((meter, read(meter)?))).transpose()? })
    }

    /// Joules per image of a batch, or `None` without a counter.
    pub(super) fn per_image(self, images: usize) -> Result<Option<f64>, EvaluateError> {
        let Some((meter, before)) = self.meter else { return Ok(None) };
        let spent = read(meter)? - before;
        if spent < 0.0 {
            return Err(failed("the counter decreased"));
        }
        Ok(Some(spent / images as f64))
    }
}

fn read(meter: &dyn EnergyMeter) -> Result<f64, EvaluateError> {
    meter.joules().map_err(|e| failed(&e))
}

fn failed(why: &str) -> EvaluateError {
    EvaluateError::Failed {
        message: format!("cannot read the device's energy counter: {why}"),
        hint: None,
        retryable: true,
    }
}

#[cfg(feature = "cuda")]
mod nvml {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    use nvml_wrapper::Nvml;

    use super::EnergyMeter;

    /// The name that drivers install; the unversioned name exists on development systems only.
    const LIBRARY: &str = "libnvidia-ml.so.1";

    struct Board {
        library: Nvml,
        /// The device's UUID; its number would not do, because CUDA and NVML number devices differently.
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
                tracing::info!("energy is not measured: cannot load NVML ({e})");
                return None;
            }
        };
        let bytes = CudaContext::new(number).ok()?.uuid().ok()?.bytes;
        let board = Board { library, uuid: name(bytes.map(|byte| byte.cast_unsigned())) };
        match board.joules() {
            Ok(_) => Some(Box::new(board)),
            Err(e) => {
                tracing::info!("energy is not measured: the device has no energy counter ({e})");
                None
            }
        }
    }

    /// A UUID as NVML writes it: `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
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

    /// Returns these readings one after the other, then an error.
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
        assert!(start().unwrap().per_image(4).unwrap_err().to_string().contains("decreased"));
        let error = start().unwrap().per_image(1).unwrap_err();
        assert!(error.to_string().contains("gone") && error.is_retryable());
        assert_eq!(Reading::start(None).unwrap().per_image(4).unwrap(), None);
    }
}
