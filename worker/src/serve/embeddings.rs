//! Encoded texts that are likely to be asked for again, within a number of bytes. The one that was not used for longest
//! leaves first.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;

use crate::files::error::Result;
use crate::models::block_model::Prompts;

/// The encoded texts.
pub(super) struct Embeddings {
    room: u64,
    held: u64,
    /// Each text, with its place in `order`.
    texts: HashMap<String, (Prompts, u64)>,
    /// By last use, the oldest first.
    order: BTreeMap<u64, String>,
    uses: u64,
}

impl Embeddings {
    /// Room for this many bytes.
    pub(super) fn new(room: u64) -> Self {
        Self { room, held: 0, texts: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// Bytes in use.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// A text, if it is here.
    pub(super) fn get(&mut self, text: &str) -> Option<Prompts> {
        let (prompts, place) = self.texts.get_mut(text)?;
        self.uses += 1;
        if let Some(name) = self.order.remove(place) {
            self.order.insert(self.uses, name);
        }
        *place = self.uses;
        Some(prompts.clone())
    }

    /// Keeps row `row` of `encoded` as the encoding of `text`, and returns it.
    pub(super) fn put(&mut self, text: &str, encoded: &Prompts, row: usize) -> Result<Prompts> {
        // A copy: a view would keep the whole batch.
        let prompts = encoded.batch(row, 1)?.map(Tensor::copy)?;
        let bytes = size(text, &prompts);
        if bytes > self.room || self.texts.contains_key(text) {
            return Ok(prompts);
        }
        self.held += bytes;
        while self.held > self.room {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some((prompts, _)) = self.texts.remove(&oldest) {
                self.held -= size(&oldest, &prompts);
            }
        }
        self.uses += 1;
        self.order.insert(self.uses, text.to_owned());
        self.texts.insert(text.to_owned(), (prompts.clone(), self.uses));
        Ok(prompts)
    }
}

/// Bytes of a text and its encoding.
fn size(text: &str, prompts: &Prompts) -> u64 {
    let parts = [&prompts.embeddings, &prompts.mask, &prompts.pooled, &prompts.classes];
    let tensor = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
    // A text is held twice.
    2 * text.len() as u64 + parts.into_iter().flatten().map(|part| tensor(part) as u64).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn encoded(rows: usize) -> Prompts {
        let values: Vec<f32> = (0..rows * 8).map(|value| value as f32).collect();
        let embeddings = Tensor::from_vec(values, (rows, 2, 4), &Device::Cpu).unwrap();
        Prompts { embeddings: Some(embeddings), ..Prompts::default() }
    }

    #[test]
    fn the_least_recently_used_leaves_when_room_is_needed() {
        // 32 bytes of tensor and 2 of text each.
        let mut kept = Embeddings::new(100);
        let batch = encoded(3);
        for (row, text) in ["a", "b"].into_iter().enumerate() {
            kept.put(text, &batch, row).unwrap();
        }
        assert!(kept.get("a").is_some());
        let third = kept.put("c", &batch, 2).unwrap();
        let values = third.embeddings.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values[0], 16.0);
        assert_eq!(kept.held(), 68);
        assert!(kept.get("b").is_none() && kept.get("a").is_some() && kept.get("c").is_some());
        // One that does not fit at all displaces nothing.
        kept.put(&"x".repeat(50), &batch, 0).unwrap();
        assert_eq!((kept.held(), kept.order.len(), kept.texts.len()), (68, 2, 2));
    }
}
