//! CLIP's tokenizer from `vocab.json` and `merges.txt`, the files that FLUX and SD3 come with: what transformers makes of
//! them, as the text of a `tokenizer.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::tokenizer::token;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// How CLIP cuts a text before its merges.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The definition of the tokenizer in `folder`.
pub(super) fn definition(folder: &Path) -> Result<Vec<u8>> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|source| ModelError::Io { path, source })
    };
    let path = folder.join("vocab.json");
    let failed = |message: String| ModelError::Parse { path: path.clone(), message };
    let vocab: Value = serde_json::from_str(&read("vocab.json")?).map_err(|e| failed(e.to_string()))?;
    let merges = read("merges.txt")?;
    let merges: Vec<&str> = merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let config = Config::read(&folder.join("tokenizer_config.json"))?;
    let special = |field: &str| -> Result<(String, u64)> {
        let token = token(&config, field)?;
        let id = vocab.get(&token).and_then(Value::as_u64);
        id.map(|id| (token.clone(), id)).ok_or_else(|| config.wrong(field, "a token of vocab.json", token))
    };
    let (begin, end) = (special("bos_token")?, special("eos_token")?);
    let mut added = vec![begin.clone(), end.clone()];
    for field in ["unk_token", "pad_token"] {
        if config.has(field) {
            added.push(special(field)?);
        }
    }
    added.sort_by_key(|(_, id)| *id);
    added.dedup();
    let added: Vec<Value> = added
        .into_iter()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        })
        .collect();
    let unknown = if config.has("unk_token") { special("unk_token")?.0 } else { end.0.clone() };
    let definition = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [end.0, end.1], "cls": [begin.0, begin.1],
            "trim_offsets": false, "add_prefix_space": false},
        "model": {"type": "BPE", "unk_token": unknown, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    serde_json::to_vec(&definition).map_err(|e| failed(e.to_string()))
}
