//! SentencePiece's `spiece.model`, the published form of T5's tokenizer: pieces with scores, and the character table.
//!
//! The file is a protobuf message, `ModelProto` of sentencepiece's `sentencepiece_model.proto`. Only the fields that a
//! unigram model needs are declared here. Not supported: other model types; ignored: training settings, self tests.

use std::path::Path;

use prost::Message;

use crate::files::error::{ModelError, Result};
use crate::files::text;

/// Type of a piece that represents no text, such as the end token.
const CONTROL: i32 = 3;
/// Type of a piece that is never split.
const USER_DEFINED: i32 = 4;
/// Type of a model that chooses the most likely pieces.
const UNIGRAM: i32 = 1;

/// The data of a SentencePiece tokenizer.
pub(super) struct SentencePieces {
    /// Pieces and their log probabilities, in the order of ids.
    pub(super) vocab: Vec<(String, f64)>,
    /// Pieces that are matched before a text is tokenized, and whether each is special.
    pub(super) whole: Vec<(String, bool)>,
    /// The character table, if there is one.
    pub(super) characters: Option<Vec<u8>>,
}

#[derive(Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalizer>,
}

#[derive(Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Message)]
struct Normalizer {
    #[prost(bytes = "vec", optional, tag = "2")]
    characters: Option<Vec<u8>>,
}

impl SentencePieces {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = text::read_bytes(path).map_err(|source| ModelError::Io { path: path.into(), source })?;
        let failed = |message: String| ModelError::Parse { path: path.into(), message };
        let model =
            ModelProto::decode(bytes.as_slice()).map_err(|e| failed(format!("not a SentencePiece model: {e}")))?;
        if model.pieces.is_empty() {
            return Err(failed("not a SentencePiece model: it has no pieces".into()));
        }
        let kind = model.trainer.and_then(|trainer| trainer.model_type).unwrap_or(UNIGRAM);
        if kind != UNIGRAM {
            return Err(failed(format!("a SentencePiece model of type {kind}, but T5 needs type {UNIGRAM} (unigram)")));
        }
        let mut whole = Vec::new();
        let mut vocab = Vec::with_capacity(model.pieces.len());
        for piece in model.pieces {
            let (text, score) = (piece.piece.unwrap_or_default(), f64::from(piece.score.unwrap_or_default()));
            if text.is_empty() || !score.is_finite() {
                return Err(failed(format!("piece '{text}' has score {score}")));
            }
            if let Some(kind @ (CONTROL | USER_DEFINED)) = piece.kind {
                whole.push((text.clone(), kind == CONTROL));
            }
            vocab.push((text, score));
        }
        let characters = model.normalizer.and_then(|n| n.characters).filter(|table| !table.is_empty());
        Ok(Self { vocab, whole, characters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_their_order_scores_and_kinds() {
        let piece = |text: &str, score, kind| Piece { piece: Some(text.into()), score: Some(score), kind };
        let model = |kind, pieces| ModelProto {
            pieces,
            trainer: Some(Trainer { model_type: Some(kind) }),
            normalizer: Some(Normalizer { characters: Some(Vec::new()) }),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spiece.model");
        let write = |model: ModelProto| std::fs::write(&path, model.encode_to_vec()).unwrap();
        write(model(1, vec![piece("</s>", 0.0, Some(3)), piece("▁a", -1.5, None), piece("<x>", 0.0, Some(4))]));
        let read = SentencePieces::read(&path).unwrap();
        assert_eq!(read.vocab[1], ("▁a".to_owned(), -1.5));
        assert_eq!(read.whole, [("</s>".to_owned(), true), ("<x>".to_owned(), false)]);
        assert!(read.characters.is_none());

        let error = |path: &Path| SentencePieces::read(path).err().unwrap().to_string();
        write(model(2, vec![piece("a", 0.0, None)]));
        assert!(error(&path).contains("a SentencePiece model of type 2"), "{}", error(&path));
        write(model(1, vec![]));
        assert!(error(&path).contains("it has no pieces"));
        write(model(1, vec![piece("a", f32::NAN, None)]));
        assert!(error(&path).contains("piece 'a' has score NaN"));
        std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
        assert!(error(&path).contains("not a SentencePiece model"));
    }
}
