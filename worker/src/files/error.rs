//! Errors of loading and running models. Errors about a file name the file and the field or tensor in it.

use std::path::PathBuf;

/// An error of loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file is missing or unreadable.
    #[error("cannot read '{}': {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A required file is missing.
    #[error("'{}' is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// How to get it.
        hint: String,
    },
    /// A file changed after it was first read.
    #[error("'{}' has changed since it was first read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A model on the Hugging Face hub that is not in the local cache.
    #[error("'{name}' is not a folder, and not in the hub's cache '{}'", cache.display())]
    NotDownloaded {
        /// `OWNER/NAME` of the repository.
        name: String,
        /// The requested branch, tag or commit, if any.
        revision: Option<String>,
        /// The folder of the cache.
        cache: PathBuf,
    },
    /// A file is not valid JSON or not a valid tokenizer.
    #[error("'{}' cannot be parsed: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        message: String,
    },
    /// A field is missing or has the wrong type or value.
    #[error("'{}', field '{field}': expected {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// The expected type or value.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A field has a value that diffusers or transformers support but this program does not.
    #[error("'{}', field '{field}': '{found}' is not supported, supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// The value found.
        found: String,
        /// The values that are supported.
        supported: String,
    },
    /// A weight file is truncated or its header is invalid.
    #[error("weight file '{}' is damaged: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("'{}' has no tensor '{tensor}'", path.display())]
    MissingTensor {
        /// The weight file, or the folder of a sharded set.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor's shape differs from the one that the config implies.
    #[error("'{}', tensor '{tensor}': the config implies shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the config implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a NaN or infinite value.
    #[error("'{}', tensor '{tensor}' has a value that is not finite", path.display())]
    NotFinite {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A device cannot be used.
    #[error("device {device} cannot be used: {problem}")]
    Device {
        /// The device's name, such as `cuda:0`.
        device: String,
        /// The reason.
        problem: String,
        /// What the user can do about it.
        hint: String,
    },
    /// A picture cannot be read.
    #[error("picture '{}' cannot be read: {message}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// An argument does not fit the model.
    #[error("{0}")]
    Input(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// Whether a device ran out of memory. Backends report that only in the text of the error.
    pub fn is_out_of_memory(&self) -> bool {
        let Self::Tensor(error) = self else { return false };
        let text = error.to_string().to_lowercase().replace('_', " ");
        text.contains("out of memory") || text.contains("memory allocation")
    }

    /// What the user can do about it, if known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { hint, .. } | Self::Device { hint, .. } => Some(hint.clone()),
            Self::NotDownloaded { name, revision, .. } => {
                let revision = revision.as_ref().map(|revision| format!(" --revision {revision}")).unwrap_or_default();
                Some(format!(
                    "download it with `hf download {name}{revision} --include model_index.json \"*/*\"`, or give \
                     another cache with --hub-cache, HF_HUB_CACHE or HF_HOME"
                ))
            }
            Self::Changed { .. } => Some("restart the program, so that it reads the whole model again".into()),
            Self::Damaged { .. } => Some("download or export the file again; it may be truncated".into()),
            Self::MissingTensor { .. } | Self::Shape { .. } => {
                Some("use the config.json that was saved with these weights".into())
            }
            Self::NotFinite { .. } => {
                Some("export the weights again, in float32 if float16 overflows for this model".into())
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("a model is a folder with a model_index.json, as diffusers' `save_pretrained` writes it".into())
            }
            _ => None,
        }
    }
}

/// The result of loading or running a model.
pub type Result<T> = std::result::Result<T, ModelError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_memory_is_told_from_other_failures() {
        let failed = |text: &str| ModelError::Tensor(candle_core::Error::Msg(text.into())).is_out_of_memory();
        assert!(failed(r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#));
        assert!(!failed("shape mismatch in matmul"));
        assert!(!ModelError::Input("out of memory".into()).is_out_of_memory());
    }
}
