//! Tokenization of texts to padded token ids, by the tokenizer of a folder.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use tokenizers::TruncationDirection;

use super::tokenizer_files::TokenizerFiles;
pub use super::tokenizer_files::{FILES, Kind};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// Token ids of a batch of texts, padded to the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    mask: Vec<u32>,
    length: usize,
}

impl Tokens {
    /// Tokens from ids and mask (one for a real token, zero for padding) of texts with `length` tokens each. Fails if
    /// the numbers of values do not match.
    pub fn new(ids: Vec<u32>, mask: Vec<u32>, length: usize) -> Result<Self> {
        if length == 0 || ids.len() != mask.len() || !ids.len().is_multiple_of(length) {
            let (ids, mask) = (ids.len(), mask.len());
            return Err(ModelError::Input(format!(
                "{ids} ids and {mask} mask values do not form texts of {length} tokens"
            )));
        }
        Ok(Self { ids, mask, length })
    }

    /// Number of texts.
    pub fn batch(&self) -> usize {
        self.ids.len() / self.length
    }

    /// Tokens per text, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// All ids, text after text.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The mask `[b, length]` in f32: one for a real token, zero for padding.
    pub fn mask(&self, device: &Device) -> Result<Tensor> {
        let values: Vec<f32> = self.mask.iter().map(|&one| one as f32).collect();
        Ok(Tensor::from_vec(values, (self.batch(), self.length), device)?)
    }

    /// Sets the mask to one everywhere, so that padding counts as text.
    #[must_use]
    pub fn unmasked(self) -> Self {
        Self { mask: vec![1; self.mask.len()], ..self }
    }

    /// The tokens of a range of texts.
    pub fn range(&self, texts: std::ops::Range<usize>) -> Self {
        let values = texts.start * self.length..texts.end * self.length;
        Self { ids: self.ids[values.clone()].into(), mask: self.mask[values].into(), length: self.length }
    }
}

/// Most tokens that a text may be padded to.
const MAX_TOKENS: usize = 4096;

/// `model_max_length` of the config; `None` if there is no limit, which transformers writes as 1e30.
fn limit(config: &Config) -> Result<Option<usize>> {
    let Some(limit) = config.number_opt("model_max_length")? else { return Ok(None) };
    if limit < 1.0 || limit.is_nan() {
        return Err(config.wrong("model_max_length", "a positive number", limit.to_string()));
    }
    Ok((limit <= MAX_TOKENS as f64).then_some(limit as usize))
}

/// The text of a special token; in older files the token is an object.
fn token(config: &Config, field: &str) -> Result<String> {
    match config.object_opt(field) {
        Ok(Some(token)) => Ok(token.text("content")?.to_owned()),
        _ => Ok(config.text(field)?.to_owned()),
    }
}

/// BERT's padding token.
const BERT_PADDING: &str = "[PAD]";

/// A tokenizer with the length that it pads and truncates to.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    length: usize,
    pad: u32,
    pads_left: bool,
    cuts_left: bool,
}

impl Tokenizer {
    /// Opens the tokenizer in a folder. Texts are padded and truncated to `length` tokens, or to the config's
    /// `model_max_length` if `None`.
    pub fn open(folder: &Path, kind: Kind, length: Option<usize>) -> Result<Self> {
        let files = TokenizerFiles::open(folder, kind)?;
        let path = files.path();
        let failed = |e: tokenizers::Error| ModelError::Parse { path: path.clone(), message: e.to_string() };
        let mut inner = files.build()?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        let config = &files.config;
        let length = match length {
            Some(length) => length,
            None => limit(config)?.ok_or_else(|| {
                config.wrong("model_max_length", format!("a number of tokens, at most {MAX_TOKENS}"), "none")
            })?,
        };
        let default = match kind {
            Kind::T5 => Some("<pad>"),
            Kind::Clip => Some("<|endoftext|>"),
            // Older BERT folders do not name the padding token.
            Kind::AsWritten => Some(BERT_PADDING).filter(|token| inner.token_to_id(token).is_some()),
        };
        let pad_token = match (default, config.has("pad_token")) {
            (Some(default), false) => default.to_owned(),
            _ => token(config, "pad_token")?,
        };
        let pad = inner.token_to_id(&pad_token).ok_or_else(|| files.unknown("pad_token", &pad_token))?;
        let (pads_left, cuts_left) =
            (files.is_left("padding_side", "padding")?, files.is_left("truncation_side", "truncation")?);
        Ok(Self { path, inner, length, pad, pads_left, cuts_left })
    }

    /// Opens the tokenizer of a model that takes `most` tokens. Texts are padded and truncated to `most` tokens, or to
    /// the config's `model_max_length` if that is less.
    pub fn open_within(folder: &Path, most: usize) -> Result<Self> {
        let files = TokenizerFiles::open(folder, Kind::AsWritten)?;
        let length = limit(&files.config)?.map_or(most, |limit| limit.min(most));
        Self::open(folder, Kind::AsWritten, Some(length))
    }

    /// Tokens per text, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tokenizes texts as transformers does with `padding="max_length", truncation=True`: truncation keeps the special
    /// tokens.
    pub fn encode(&self, texts: &[&str]) -> Result<Tokens> {
        let failed = |e: tokenizers::Error| ModelError::Parse { path: self.path.clone(), message: e.to_string() };
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new(), length: self.length };
        let special = self.inner.get_post_processor().map_or(0, |post| {
            use tokenizers::PostProcessor as _;
            post.added_tokens(false)
        });
        let room = self.length.checked_sub(special).ok_or_else(|| {
            ModelError::Input(format!("{} tokens per text leave no room for {special} special tokens", self.length))
        })?;
        for text in texts {
            let mut encoding = self.inner.encode(*text, false).map_err(failed)?;
            let side = if self.cuts_left { TruncationDirection::Left } else { TruncationDirection::Right };
            encoding.truncate(room, 0, side);
            let encoding = self.inner.post_process(encoding, None, true).map_err(failed)?;
            let used = encoding.get_ids().len().min(self.length);
            let (before, after) = if self.pads_left { (self.length - used, 0) } else { (0, self.length - used) };
            let padded = |pad: u32, real: &mut dyn Iterator<Item = u32>, to: &mut Vec<u32>| {
                to.extend(std::iter::repeat_n(pad, before));
                to.extend(real);
                to.extend(std::iter::repeat_n(pad, after));
            };
            padded(self.pad, &mut encoding.get_ids()[..used].iter().copied(), &mut tokens.ids);
            padded(0, &mut std::iter::repeat_n(1, used), &mut tokens.mask);
        }
        Ok(tokens)
    }
}
