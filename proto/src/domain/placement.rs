//! Which workers a search is for, and what it is worth beside others.

use std::collections::BTreeMap;

use super::metric::Declaration;

/// What a search asks of workers, and how it shares them with other searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// A search of higher priority gets every worker that it can use before others do.
    pub priority: i32,
    /// Searches of equal priority share workers in proportion to their weights.
    pub weight: u32,
    /// A part of the device's name, in any case; empty: any device.
    pub device: String,
    /// The least memory of the device in bytes; a worker that does not know its memory has none.
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
    /// Why a worker is not for this search, if it is not.
    pub fn admits(&self, worker: &Declaration) -> Result<(), String> {
        if !worker.device.to_lowercase().contains(&self.device.to_lowercase()) {
            return Err(format!(
                "the search is for devices named '{}', the worker has '{}'",
                self.device, worker.device
            ));
        }
        if worker.memory_bytes < self.memory_bytes {
            return Err(format!(
                "the search needs {} bytes of device memory, the worker declares {}",
                self.memory_bytes, worker.memory_bytes
            ));
        }
        match self.labels.iter().find(|(key, value)| worker.labels.get(*key) != Some(*value)) {
            Some((key, value)) => Err(format!("the search is for workers labelled {key}={value}")),
            None => Ok(()),
        }
    }
}
