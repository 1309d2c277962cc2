//! Why a model folder cannot be used. Every variant names the file, and the field or tensor in it.

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
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file that should be there is not, and there is advice on how to get it.
    #[error("'{}' is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// A file is no longer what was read of it.
    #[error("'{}' has changed since it was first read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A name on the Hugging Face hub whose download is not on this machine.
    #[error("'{name}' is no folder, and not in the hub's cache '{}'", cache.display())]
    NotDownloaded {
        /// Owner and repository.
        name: String,
        /// The branch, tag or commit, where one was asked for.
        revision: Option<String>,
        /// The cache.
        cache: PathBuf,
    },
    /// A file is no valid JSON, or a tokenizer that cannot be read.
    #[error("'{}' cannot be parsed: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// A field is missing or has the wrong type or value.
    #[error("'{}', field '{field}': expected {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A field holds a value that is valid elsewhere but not supported here.
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
    /// A weight file ends too early or its header is wrong.
    #[error("weight file '{}' is damaged: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor that the config asks for is not in the weights.
    #[error("'{}' has no tensor '{tensor}'", path.display())]
    MissingTensor {
        /// The weight file, or the folder of a sharded one.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than the config implies.
    #[error("'{}', tensor '{tensor}': the config implies shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape by the config.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor holds NaN or infinity.
    #[error("'{}', tensor '{tensor}' holds a value that is not finite", path.display())]
    NotFinite {
        /// The weight file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A device cannot be used.
    #[error("device {device} cannot be used: {problem}")]
    Device {
        /// As people name it.
        device: String,
        /// Why.
        problem: String,
        /// The way out.
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
    /// A call does not fit the model.
    #[error("{0}")]
    Input(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// Whether a device had no memory left. Backends say so in words only.
    pub fn is_out_of_memory(&self) -> bool {
        let Self::Tensor(error) = self else { return false };
        let text = error.to_string().to_lowercase().replace('_', " ");
        text.contains("out of memory") || text.contains("memory allocation")
    }

    /// The way out, where there is one to tell.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { hint, .. } | Self::Device { hint, .. } => Some(hint.clone()),
            Self::NotDownloaded { name, revision, .. } => {
                let revision = revision.as_ref().map(|revision| format!(" --revision {revision}")).unwrap_or_default();
                Some(format!(
                    "`hf download {name}{revision} --include model_index.json \"*/*\"` downloads it; another cache is named by \
                     --hub-cache, HF_HUB_CACHE or HF_HOME"
                ))
            }
            Self::Changed { .. } => Some("start again, so that all of the model is read anew".into()),
            Self::Damaged { .. } => Some("download or export the file again; it may have been cut short".into()),
            Self::MissingTensor { .. } | Self::Shape { .. } => {
                Some("the config.json beside the weights must be the one they were saved with".into())
            }
            Self::NotFinite { .. } => {
                Some("export the weights again, in float32 if float16 overflowed for this model".into())
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Some(
                "a model is a folder as diffusers' `save_pretrained` writes it, with model_index.json on top".into(),
            ),
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
