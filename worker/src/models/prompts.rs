//! Encoding of prompts by the text encoders of a folder, as in diffusers' pipelines.
//!
//! Encoders are loaded and dropped one at a time: together they may be larger than the transformer.

use candle_core::{D, Device, Tensor};

use super::block_model::Prompts;
use super::caption::Cleaner;
use super::clip_text::ClipTextEncoder;
use super::t5::T5Encoder;
use super::tokenizer::{Tokenizer, Tokens};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// Texts encoded at once.
const BATCH: usize = 8;

/// T5 with its tokenizer.
pub struct TextEncoder<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) encoder: T5Encoder,
    pub(super) device: Device,
    /// Whether captions are cleaned.
    pub(super) cleans: bool,
}

impl TextEncoder<'_> {
    /// Token ids as in diffusers' PixArt pipelines: of cleaned captions, or else of captions in lower case without
    /// surrounding blanks.
    pub fn tokenize(&self, texts: &[&str]) -> Result<Tokens> {
        let texts: Vec<String> = if self.cleans {
            let cleaner = Cleaner::new()?;
            texts.iter().map(|text| cleaner.clean(text)).collect::<Result<_>>()?
        } else {
            texts.iter().map(|text| text.to_lowercase().trim().to_owned()).collect()
        };
        self.tokenizer.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Prompts for PixArt: embeddings with their padding mask.
    pub fn masked(&self, texts: &[&str]) -> Result<Prompts> {
        let tokens = self.tokenize(texts)?;
        Ok(Prompts::masked(self.in_batches(&tokens)?, tokens.mask(&self.device)?))
    }

    /// Embeddings `[b, tokens, channels]` for FLUX and SD3, where padding is attended like text.
    pub(super) fn unmasked(&self, texts: &[&str]) -> Result<Tensor> {
        self.in_batches(&self.tokenizer.encode(texts)?.unmasked())
    }

    fn in_batches(&self, tokens: &Tokens) -> Result<Tensor> {
        let parts = batches(tokens).map(|part| self.encoder.encode(&part)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }
}

/// The input of CLIP's last layer, `[b, tokens, width]`, and the pooled vector of each text, `[b, channels]`.
pub(super) fn clip(tokenizer: &Tokenizer, encoder: &ClipTextEncoder, texts: &[&str]) -> Result<(Tensor, Tensor)> {
    let tokens = tokenizer.encode(texts)?;
    let parts = batches(&tokens).map(|part| encoder.encode(&part)).collect::<Result<Vec<_>>>()?;
    let (states, pooled): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    Ok((Tensor::cat(&states, 0)?, Tensor::cat(&pooled, 0)?))
}

fn batches(tokens: &Tokens) -> impl Iterator<Item = Tokens> {
    let count = tokens.batch();
    (0..count).step_by(BATCH).map(move |first| tokens.range(first..count.min(first + BATCH)))
}

/// Prompts for SD3: the states of both CLIPs, joined along channels and zero-padded to T5's width, then those of T5.
pub(super) fn stable_diffusion_3(clips: [(Tensor, Tensor); 2], t5: &Tensor) -> Result<Prompts> {
    let [(first, first_pooled), (second, second_pooled)] = clips;
    let states = Tensor::cat(&[first, second], D::Minus1)?;
    let (found, room) = (states.dim(D::Minus1)?, t5.dim(D::Minus1)?);
    let missing = room.checked_sub(found).ok_or_else(|| {
        ModelError::Input(format!("the CLIP text encoders give {found} channels, more than the {room} of T5"))
    })?;
    let states = states.pad_with_zeros(D::Minus1, 0, missing)?;
    let pooled = Tensor::cat(&[first_pooled, second_pooled], D::Minus1)?;
    Ok(Prompts::pooled(Tensor::cat(&[&states, t5], 1)?, pooled))
}

/// The classes of a model, found by number or name.
pub(super) struct Classes {
    count: usize,
    /// Names in lower case with their classes; a class may have several.
    names: Vec<(String, u32)>,
}

impl Classes {
    /// Reads `id2label` of a `model_index.json`, whose labels are lists of names separated by commas, for a model of
    /// `count` classes.
    pub(super) fn read(index: &Config, count: usize) -> Result<Self> {
        let mut names = Vec::new();
        if let Some(labels) = index.object_opt("id2label")? {
            for (id, label) in labels.texts_by_name()? {
                let number = id.parse().ok().filter(|&number: &u32| (number as usize) < count);
                let number =
                    number.ok_or_else(|| labels.wrong(&id, format!("a class below {count}"), format!("'{id}'")))?;
                names.push((label.to_lowercase(), number));
                names.extend(label.split(',').map(|name| (name.trim().to_lowercase(), number)));
            }
        }
        Ok(Self { count, names })
    }

    /// Prompts from numbers or names of classes; an empty text means no class.
    pub(super) fn prompts(&self, texts: &[&str], device: &Device) -> Result<Prompts> {
        let classes = texts.iter().map(|text| self.find(text.trim())).collect::<Result<Vec<u32>>>()?;
        Ok(Prompts::classes(Tensor::from_vec(classes, texts.len(), device)?))
    }

    fn find(&self, text: &str) -> Result<u32> {
        if text.is_empty() {
            return Ok(self.count as u32);
        }
        let number = text.parse().ok().filter(|&number: &u32| (number as usize) < self.count);
        let named = || {
            let name = text.to_lowercase();
            self.names.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
        };
        number.or_else(named).ok_or_else(|| {
            let such_as =
                self.names.first().map(|(name, _)| format!(" or a name such as '{name}'")).unwrap_or_default();
            let count = self.count;
            ModelError::Input(format!("'{text}' is not a class of the model: use a number below {count}{such_as}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_class_is_found_by_number_and_by_any_of_its_names() {
        let text = r#"{"id2label": {"0": "tench, Tinca tinca", "2": "goldfish"}}"#;
        let index = Config::parse(Path::new("model_index.json"), text).unwrap();
        let classes = Classes::read(&index, 3).unwrap();
        let found = |text: &str| classes.find(text);
        assert_eq!([found("1").unwrap(), found("Goldfish").unwrap(), found("tinca tinca").unwrap()], [1, 2, 0]);
        assert_eq!([found("tench, tinca tinca").unwrap(), found("").unwrap()], [0, 3]);
        let error = found("3").unwrap_err().to_string();
        assert_eq!(
            error,
            "'3' is not a class of the model: use a number below 3 or a name such as 'tench, tinca tinca'"
        );
        assert!(Classes::read(&index, 2).is_err(), "a label of a class that is not there");
    }
}
