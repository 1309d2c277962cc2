//! Which workers serve a search, and its share of them.

use std::collections::BTreeMap;

use super::metric::Declaration;

/// What a search requires of workers, and how it shares them with other searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// A search gets every worker that it can use before searches of lower priority do.
    pub priority: i32,
    /// Searches of equal priority share workers in proportion to their weights.
    pub weight: u32,
    /// A part of the device name, ignoring case; empty: any device.
    pub device: String,
    /// The least device memory in bytes. A worker with unknown memory declares 0.
    pub memory_bytes: u64,
    /// Labels that a worker must have, with these values.
    pub labels: BTreeMap<String, String>,
}

impl Default for Placement {
    fn default() -> Self {
        Self { priority: 0, weight: 1, device: String::new(), memory_bytes: 0, labels: BTreeMap::new() }
    }
}

impl Placement {
    /// Whether a worker can serve this search. The error says why not.
    pub fn admits(&self, worker: &Declaration) -> Result<(), String> {
        if !worker.device.to_lowercase().contains(&self.device.to_lowercase()) {
            return Err(format!(
                "the search requires a device with '{}' in its name, the worker has '{}'",
                self.device, worker.device
            ));
        }
        if worker.memory_bytes < self.memory_bytes {
            return Err(format!(
                "the search requires {} bytes of device memory, the worker declares {}",
                self.memory_bytes, worker.memory_bytes
            ));
        }
        match self.labels.iter().find(|(key, value)| worker.labels.get(*key) != Some(*value)) {
            Some((key, value)) => Err(format!("the search requires the label {key}={value}")),
            None => Ok(()),
        }
    }
}
