//! Reads a tokenizer folder as transformers does: `tokenizer.json` or the older T5 and CLIP files (`spiece.model`;
//! `vocab.json` and `merges.txt`), with `tokenizer_config.json` and, in older folders, `special_tokens_map.json` and
//! `added_tokens.json`.
//!
//! T5 and CLIP tokenizers are built from the vocabulary, whichever file holds it: transformers reads only that, T5's
//! character table and the added tokens from a `tokenizer.json`. Other tokenizers are loaded from it unchanged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::characters;
use super::spiece::SentencePieces;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::text;

/// How CLIP splits a text into words before applying merges.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The rules that a tokenizer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// T5's rules: SentencePiece unigrams.
    T5,
    /// CLIP's rules: byte-pair encoding.
    Clip,
    /// The rules in `tokenizer.json`, or CLIP's if there is no such file.
    AsWritten,
}

/// Files that may hold parts of a tokenizer.
pub const FILES: [&str; 7] = [
    "tokenizer.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Names of special tokens in a config.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The files of a tokenizer folder; separate vocabulary files are read by [`build`](Self::build).
pub(super) struct TokenizerFiles {
    folder: PathBuf,
    pub(super) config: Config,
    /// `tokenizer.json`, if it exists.
    whole: Option<Config>,
    kind: Kind,
}

impl TokenizerFiles {
    /// Reads the files that exist. Fails if the vocabulary is missing.
    pub(super) fn open(folder: &Path, kind: Kind) -> Result<Self> {
        let there = |name: &str| folder.join(name).is_file();
        let vocabulary = match kind {
            Kind::T5 => "spiece.model",
            _ => "merges.txt",
        };
        if !there("tokenizer.json") && !there(vocabulary) {
            let hint = match kind {
                Kind::T5 => "put T5's tokenizer.json or spiece.model in the folder",
                Kind::Clip => "put CLIP's tokenizer.json, or vocab.json and merges.txt, in the folder",
                Kind::AsWritten => "put tokenizer.json, as saved by a fast tokenizer of transformers, in the folder",
            };
            return Err(ModelError::Missing { path: folder.join("tokenizer.json"), hint: hint.into() });
        }
        let read = |name: &str| there(name).then(|| Config::read(&folder.join(name))).transpose();
        let path = folder.join("tokenizer_config.json");
        let config = read("tokenizer_config.json")?.map_or_else(|| Config::parse(&path, "{}"), Ok)?;
        match kind {
            Kind::T5 => fields::check(&config, "T5Tokenizer")?,
            Kind::Clip => fields::check(&config, "CLIPTokenizer")?,
            Kind::AsWritten => {}
        }
        let whole = read("tokenizer.json")?;
        let kind = if kind == Kind::AsWritten && whole.is_none() { Kind::Clip } else { kind };
        Ok(Self { folder: folder.into(), config, whole, kind })
    }

    /// The file that tokenizer errors name.
    pub(super) fn path(&self) -> PathBuf {
        let own = if self.kind == Kind::T5 { "spiece.model" } else { "vocab.json" };
        self.folder.join(if self.whole.is_some() { "tokenizer.json" } else { own })
    }

    fn failed(&self, error: impl ToString) -> ModelError {
        ModelError::Parse { path: self.path(), message: error.to_string() }
    }

    /// Whether `field` of the config is "left". If it is missing, `direction` of `in_file` in `tokenizer.json` decides.
    pub(super) fn is_left(&self, field: &str, in_file: &str) -> Result<bool> {
        let saved = match &self.whole {
            Some(whole) => whole.object_opt(in_file)?,
            None => None,
        };
        let saved = match &saved {
            Some(saved) if saved.choice("direction", "Right", &["Right", "Left"])? == "Left" => "left",
            _ => "right",
        };
        Ok(self.config.choice(field, saved, &["right", "left"])? == "left")
    }

    /// Builds the tokenizer.
    pub(super) fn build(&self) -> Result<tokenizers::Tokenizer> {
        match (self.kind, &self.whole) {
            (Kind::AsWritten, Some(whole)) => {
                tokenizers::Tokenizer::from_file(whole.path()).map_err(|e| self.failed(e))
            }
            (Kind::T5, _) => self.t5(),
            _ => self.clip(),
        }
    }

    fn t5(&self) -> Result<tokenizers::Tokenizer> {
        let specials = self.named(&[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")])?;
        // Sentinel tokens, with ids above those of the pieces.
        let count = self.config.integer_or("extra_ids", 100)?;
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= 1 << 16)
            .ok_or_else(|| self.config.wrong("extra_ids", "a number from 0 to 65536", count.to_string()))?;
        let extras: Vec<String> = (0..count).map(|i| format!("<extra_id_{i}>")).collect();
        let (vocab, whole, normalizer) = match &self.whole {
            Some(file) => (unigrams(file)?, vec![], self.characters(file)?),
            None => {
                let pieces = SentencePieces::read(&self.folder.join("spiece.model"))?;
                let extra = extras.iter().rev().map(|token| (token.clone(), 0.0));
                let table = pieces.characters.map(|bytes| characters::table(&bytes)).transpose();
                let table = table.map_err(|e| self.failed(e))?;
                let vocab: Vec<_> = pieces.vocab.into_iter().chain(extra).collect();
                (vocab, pieces.whole, table.map(NormalizerWrapper::Precompiled))
            }
        };
        let mut tokenizer =
            tokenizers::Tokenizer::new(Unigram::from(vocab, Some(2), false).map_err(|e| self.failed(e))?);
        tokenizer.with_normalizer(normalizer).map_err(|e| self.failed(e))?;
        let words: PreTokenizerWrapper = self.made(json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]}))?;
        tokenizer.with_pre_tokenizer(Some(words));
        let whole = whole.into_iter().map(|(token, special)| AddedToken::from(token, special).normalized(false));
        let extras = whole.chain(extras.into_iter().map(|token| AddedToken::from(token, true)));
        self.add_tokens(&mut tokenizer, &specials, extras.collect())?;
        let end = content(&specials, "eos_token");
        let id = tokenizer.token_to_id(end).ok_or_else(|| self.unknown("eos_token", end))?;
        let ending: PostProcessorWrapper = self.made(json!({"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [id], "tokens": ["</s>"]}}}))?;
        tokenizer.with_post_processor(Some(ending));
        Ok(tokenizer)
    }

    fn clip(&self) -> Result<tokenizers::Tokenizer> {
        let (begin, end) = ("<|startoftext|>", "<|endoftext|>");
        let defaults = [("bos_token", begin), ("eos_token", end), ("unk_token", end), ("pad_token", end)];
        let specials = self.named(&defaults)?;
        let (vocab, merges) = match &self.whole {
            Some(file) => {
                let model = file.object("model")?;
                let part = |field: &str| model.value(field).cloned().unwrap_or(Value::Null);
                (part("vocab"), part("merges"))
            }
            None => {
                let read = |name: &str| {
                    let path = self.folder.join(name);
                    text::read(&path).map_err(|source| ModelError::Io { path, source })
                };
                let vocab = serde_json::from_str(&read("vocab.json")?).map_err(|e| self.failed(e))?;
                let merges = read("merges.txt")?;
                let merges = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
                (vocab, merges.collect())
            }
        };
        let definition = json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            ]},
            "model": {"type": "BPE", "unk_token": content(&specials, "unk_token"), "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
        });
        let definition = serde_json::to_vec(&definition).map_err(|e| self.failed(e))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(definition).map_err(|e| self.failed(e))?;
        self.add_tokens(&mut tokenizer, &specials, vec![])?;
        let special = |field: &str| {
            let token = content(&specials, field);
            tokenizer.token_to_id(token).map(|id| (token.to_owned(), id)).ok_or_else(|| self.unknown(field, token))
        };
        let ends: PostProcessorWrapper = self
            .made(json!({"type": "RobertaProcessing", "sep": special("eos_token")?,
            "cls": special("bos_token")?, "trim_offsets": false, "add_prefix_space": false}))?;
        tokenizer.with_post_processor(Some(ends));
        Ok(tokenizer)
    }

    fn made<T: serde::de::DeserializeOwned>(&self, definition: Value) -> Result<T> {
        serde_json::from_value(definition).map_err(|e| self.failed(e))
    }

    pub(super) fn unknown(&self, field: &str, token: &str) -> ModelError {
        self.config.wrong(field, "a token of the vocabulary", format!("'{token}'"))
    }

    /// The character table in a `tokenizer.json`; transformers drops its other normalizers.
    fn characters(&self, file: &Config) -> Result<Option<NormalizerWrapper>> {
        let Some(normalizer) = file.value("normalizer") else { return Ok(None) };
        let all = match normalizer.get("normalizers").and_then(Value::as_array) {
            Some(all) => all.as_slice(),
            None => std::slice::from_ref(normalizer),
        };
        let table = all.iter().find(|normalizer| normalizer.get("type") == Some(&"Precompiled".into()));
        let Some(table) = table else { return Ok(None) };
        let text = table.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(text).map_err(|e| self.failed(format!("its character table: {e}")))?;
        Ok(Some(NormalizerWrapper::Precompiled(characters::table(&bytes).map_err(|e| self.failed(e))?)))
    }

    /// The named special tokens: those of `special_tokens_map.json` where it counts, of the config, or the defaults.
    fn named(&self, defaults: &[(&'static str, &str)]) -> Result<BTreeMap<&'static str, AddedToken>> {
        let older = self.older("special_tokens_map.json")?;
        let mut found = BTreeMap::new();
        for name in NAMED {
            let token = [older.as_ref(), Some(&self.config)].into_iter().flatten().find(|config| config.has(name));
            let default = defaults.iter().find(|(known, _)| *known == name).map(|(_, token)| *token);
            match (token, default) {
                (Some(config), _) => found.insert(name, added(config, name)?),
                (None, Some(token)) => found.insert(name, AddedToken::from(token, true)),
                (None, None) => None,
            };
        }
        Ok(found)
    }

    /// A file that is used only if the config has no `added_tokens_decoder`.
    fn older(&self, name: &str) -> Result<Option<Config>> {
        let path = self.folder.join(name);
        if self.config.has("added_tokens_decoder") || !path.is_file() {
            return Ok(None);
        }
        Config::read(&path).map(Some)
    }

    /// Adds the tokens that are matched before a text is tokenized, in transformers' order. Tokens missing from the
    /// vocabulary get ids after it.
    fn add_tokens(
        &self,
        tokenizer: &mut tokenizers::Tokenizer,
        named: &BTreeMap<&'static str, AddedToken>,
        extras: Vec<AddedToken>,
    ) -> Result<()> {
        let extras = self.extras(extras)?;
        let mut tokens: Vec<AddedToken> = self.listed(named, &extras)?.into_values().collect();
        for token in &mut tokens {
            token.special |= named.values().any(|named| named.content == token.content);
        }
        for token in NAMED.iter().filter_map(|name| named.get(name)).chain(&extras) {
            if !tokens.iter().any(|known| known.content == token.content) {
                tokens.push(token.clone());
            }
        }
        tokenizer.add_tokens(tokens).map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Special tokens besides the named ones: those of the folder, or else the class's `own`.
    fn extras(&self, own: Vec<AddedToken>) -> Result<Vec<AddedToken>> {
        let older = self.older("special_tokens_map.json")?;
        let mut extras = None;
        for config in [Some(&self.config), older.as_ref()].into_iter().flatten() {
            let field = |name: &'static str| config.value(name).and_then(Value::as_array).map(|list| (name, list));
            let list = field("extra_special_tokens").filter(|(_, list)| !list.is_empty());
            let list = list.or_else(|| field("additional_special_tokens")).or_else(|| field("extra_special_tokens"));
            if let Some((name, list)) = list {
                let token = |token: &Value| {
                    added_token(token, true).ok_or_else(|| config.wrong(name, "tokens", token.to_string()))
                };
                extras = Some(list.iter().map(token).collect::<Result<_>>()?);
            }
        }
        Ok(extras.unwrap_or(own))
    }

    /// The tokens that the config lists by id, or in older folders `added_tokens.json` and `tokenizer.json`.
    fn listed(
        &self,
        named: &BTreeMap<&'static str, AddedToken>,
        extras: &[AddedToken],
    ) -> Result<BTreeMap<u64, AddedToken>> {
        let mut listed = BTreeMap::new();
        if let Some(tokens) = self.config.object_opt("added_tokens_decoder")? {
            for (id, token) in tokens.fields() {
                let wrong = || tokens.wrong(id, "a token under its id", token.to_string());
                let number = id.parse().map_err(|_| wrong())?;
                listed.insert(number, added_token(token, false).ok_or_else(wrong)?);
            }
            return Ok(listed);
        }
        if let Some(tokens) = self.older("added_tokens.json")? {
            for (token, id) in tokens.fields() {
                let id = id.as_u64().ok_or_else(|| tokens.wrong(token, "the id of a token", id.to_string()))?;
                let special = named.values().chain(extras).any(|special| special.content == *token);
                listed.insert(id, AddedToken::from(token, special));
            }
        }
        if let Some(tokens) = self.whole.as_ref().and_then(|file| file.value("added_tokens")).and_then(Value::as_array)
        {
            for token in tokens {
                let id = token.get("id").and_then(Value::as_u64);
                let (Some(id), Some(token)) = (id, added_token(token, false)) else {
                    return Err(self.failed(format!("added token {token} has no id or no content")));
                };
                listed.insert(id, token);
            }
        }
        Ok(listed)
    }
}

fn content<'a>(specials: &'a BTreeMap<&'static str, AddedToken>, name: &str) -> &'a str {
    specials.get(name).map_or("", |token| token.content.as_str())
}

/// A token in a config: a text or an object.
fn added(config: &Config, field: &str) -> Result<AddedToken> {
    let value = config.value(field).unwrap_or(&Value::Null);
    added_token(value, true).ok_or_else(|| config.wrong(field, "a token", value.to_string()))
}

/// A token in a file: a text or an object. `special` applies unless the token is an object that says it.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    let fields: &Map<String, Value> = match value {
        Value::String(text) => return Some(AddedToken::from(text, special)),
        other => other.as_object()?,
    };
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(special);
    let token = AddedToken::from(fields.get("content")?.as_str()?, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(token.normalized(flag("normalized").unwrap_or(!special)))
}

/// The vocabulary of a unigram model in a `tokenizer.json`, with log probabilities.
fn unigrams(file: &Config) -> Result<Vec<(String, f64)>> {
    let model = file.object("model")?;
    model.choice("type", "Unigram", &["Unigram"])?;
    let list = model.value("vocab").and_then(Value::as_array);
    let token = |token: &Value| token.as_str().filter(|token| !token.is_empty()).map(str::to_owned);
    let pair = |pair: &Value| Some((token(pair.get(0)?)?, pair.get(1)?.as_f64().filter(|s| s.is_finite())?));
    list.and_then(|list| list.iter().map(pair).collect())
        .ok_or_else(|| model.wrong("vocab", "a list of [token, score]", "something else"))
}
