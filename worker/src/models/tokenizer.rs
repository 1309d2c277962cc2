//! Texts into padded token ids, by a folder's `tokenizer.json`.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::clip_bpe;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// Token ids of a batch, all padded to one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    mask: Vec<u32>,
    length: usize,
}

impl Tokens {
    /// Ids and mask (one for a real token, zero for padding) of texts with `length` tokens each.
    pub fn new(ids: Vec<u32>, mask: Vec<u32>, length: usize) -> Result<Self> {
        if length == 0 || ids.len() != mask.len() || !ids.len().is_multiple_of(length) {
            let (ids, mask) = (ids.len(), mask.len());
            return Err(ModelError::Input(format!("{ids} ids and {mask} mask values are no texts of {length} tokens")));
        }
        Ok(Self { ids, mask, length })
    }

    /// Texts in the batch.
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

    /// One for a real token, zero for padding: `[b, length]`, f32.
    pub fn mask(&self, device: &Device) -> Result<Tensor> {
        let values: Vec<f32> = self.mask.iter().map(|&one| one as f32).collect();
        Ok(Tensor::from_vec(values, (self.batch(), self.length), device)?)
    }

    /// The same with padding that counts as text.
    #[must_use]
    pub fn unmasked(self) -> Self {
        Self { mask: vec![1; self.mask.len()], ..self }
    }

    /// The same with some texts only.
    pub fn range(&self, texts: std::ops::Range<usize>) -> Self {
        let values = texts.start * self.length..texts.end * self.length;
        Self { ids: self.ids[values.clone()].into(), mask: self.mask[values].into(), length: self.length }
    }
}

/// The text of a special token; older files hold an object of its properties.
pub(super) fn token(config: &Config, field: &str) -> Result<String> {
    match config.object_opt(field) {
        Ok(Some(token)) => Ok(token.text("content")?.to_owned()),
        _ => Ok(config.text(field)?.to_owned()),
    }
}

/// BERT's padding.
const BERT_PADDING: &str = "[PAD]";

/// A tokenizer with the length that it pads and cuts to.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    length: usize,
    pad: u32,
}

impl Tokenizer {
    /// Opens `tokenizer.json`, or CLIP's `vocab.json` and `merges.txt`, and `tokenizer_config.json` in a folder. Texts are padded and cut to `length` tokens,
    /// or to the config's `model_max_length` where that is less.
    pub fn open(folder: &Path, length: usize) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bpe = folder.join("merges.txt");
        if !path.is_file() && !bpe.is_file() {
            let hint = if folder.join("spiece.model").is_file() {
                format!(
                    "only tokenizer.json is read, not spiece.model; make it with Python: \
                     `from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{0}').save_pretrained('{0}')`",
                    folder.display()
                )
            } else {
                "the folder must hold tokenizer.json, as transformers' fast tokenizers save it".into()
            };
            return Err(ModelError::Missing { path, hint });
        }
        let path = if path.is_file() { path } else { bpe };
        let failed = |e: tokenizers::Error| ModelError::Parse { path: path.clone(), message: e.to_string() };
        let mut inner = if path.ends_with("merges.txt") {
            tokenizers::Tokenizer::from_bytes(clip_bpe::definition(folder)?).map_err(failed)?
        } else {
            tokenizers::Tokenizer::from_file(&path).map_err(failed)?
        };
        inner.with_padding(None);
        inner.with_truncation(None).map_err(failed)?;
        let config = Config::read(&folder.join("tokenizer_config.json"))?;
        // transformers writes 1e30 where there is no limit.
        let limit = config.number_or("model_max_length", f64::INFINITY)?;
        if limit < 1.0 || limit.is_nan() {
            return Err(config.wrong("model_max_length", "a positive number", limit.to_string()));
        }
        let length = if limit < length as f64 { limit as usize } else { length };
        // Older folders of BERT name no padding, and mean this.
        let is_bert = !config.has("pad_token") && inner.token_to_id(BERT_PADDING).is_some();
        let pad_token = if is_bert { BERT_PADDING.to_owned() } else { token(&config, "pad_token")? };
        let pad = inner
            .token_to_id(&pad_token)
            .ok_or_else(|| config.wrong("pad_token", "a token of tokenizer.json", format!("'{pad_token}'")))?;
        Ok(Self { path, inner, length, pad })
    }

    /// Tokens per text, padding included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Tokenizes texts as transformers does with `padding="max_length", truncation=True`: the special tokens at the end
    /// stay when a text is cut.
    pub fn encode(&self, texts: &[&str]) -> Result<Tokens> {
        let failed = |e: tokenizers::Error| ModelError::Parse { path: self.path.clone(), message: e.to_string() };
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new(), length: self.length };
        let special = self.inner.get_post_processor().map_or(0, |post| {
            use tokenizers::PostProcessor as _;
            post.added_tokens(false)
        });
        let room = self.length.checked_sub(special).ok_or_else(|| {
            ModelError::Input(format!("{} tokens leave no room for {special} special ones", self.length))
        })?;
        for text in texts {
            let mut encoding = self.inner.encode(*text, false).map_err(failed)?;
            encoding.truncate(room, 0, tokenizers::TruncationDirection::Right);
            let encoding = self.inner.post_process(encoding, None, true).map_err(failed)?;
            let used = encoding.get_ids().len().min(self.length);
            tokens.ids.extend(&encoding.get_ids()[..used]);
            tokens.ids.extend(std::iter::repeat_n(self.pad, self.length - used));
            tokens.mask.extend(std::iter::repeat_n(1, used));
            tokens.mask.extend(std::iter::repeat_n(0, self.length - used));
        }
        Ok(tokens)
    }
}
