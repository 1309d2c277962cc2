//! Pictures for clients that want an address instead of the picture itself, in memory, within a number of bytes. The
//! oldest leave first, and a restart drops all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::chance;

/// The pictures, by names that nobody can guess.
pub(super) struct Pictures {
    room: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    held: usize,
    files: HashMap<String, Arc<[u8]>>,
    order: VecDeque<String>,
}

impl Pictures {
    /// Room for this many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self { room, kept: Mutex::default() }
    }

    /// Keeps a PNG file and returns its name. `None` if there is never room for it.
    pub(super) fn put(&self, png: Vec<u8>) -> Option<String> {
        if png.len() > self.room {
            return None;
        }
        let name = format!("{}.png", chance::secret().simple());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.held += png.len();
        while kept.held > self.room {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.held -= kept.files.remove(&oldest).map_or(0, |file| file.len());
        }
        kept.files.insert(name.clone(), png.into());
        kept.order.push_back(name.clone());
        Some(name)
    }

    /// A PNG file.
    pub(super) fn get(&self, name: &str) -> Option<Arc<[u8]>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).files.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_picture_makes_room() {
        let pictures = Pictures::new(10);
        let names: Vec<String> = [4, 4, 4].into_iter().filter_map(|size| pictures.put(vec![1; size])).collect();
        assert!(pictures.get(&names[0]).is_none());
        assert_eq!(pictures.get(&names[2]).map(|file| file.len()), Some(4));
        assert_eq!(pictures.put(vec![0; 11]), None);
        assert!(pictures.get(&names[1]).is_some());
    }
}
