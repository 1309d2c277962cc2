//! Reads a folder of PNG pictures.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::{CliError, Result};
use crate::picture::Picture;

/// The PNG pictures of a folder, sorted by name.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    names: Vec<String>,
    /// Height and width of each picture in pixels.
    sizes: Vec<(usize, usize)>,
}

impl Folder {
    /// Lists the pictures and reads their sizes.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e| CliError::new(format!("cannot read folder '{}': {e}", path.display()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.to_lowercase().ends_with(".png") {
                names.push(name);
            }
        }
        names.sort();
        if names.is_empty() {
            return Err(CliError::new(format!("'{}' has no PNG pictures", path.display())));
        }
        Self::of(path, names)
    }

    fn of(path: &Path, names: Vec<String>) -> Result<Self> {
        let sizes = names.iter().map(|name| Ok(Picture::size_of(&path.join(name))?)).collect::<Result<_>>()?;
        Ok(Self { path: path.into(), names, sizes })
    }

    /// The pictures with the same names in another folder; each must exist and have the same size.
    pub(super) fn counterpart(&self, path: &Path) -> Result<Self> {
        let other = Self::of(path, self.names.clone())?;
        for ((name, found), wanted) in other.names.iter().zip(&other.sizes).zip(&self.sizes) {
            if found != wanted {
                let ((h, w), (wanted_h, wanted_w)) = (found, wanted);
                return Err(CliError::new(format!(
                    "'{}' has {h}x{w} pixels, but the picture of that name in '{}' has {wanted_h}x{wanted_w}",
                    path.join(name).display(),
                    self.path.display()
                )));
            }
        }
        Ok(other)
    }

    /// How many pictures.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The file names.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Ranges of at most `limit` consecutive pictures of equal size.
    pub(super) fn batches(&self, limit: usize) -> Vec<Range<usize>> {
        let mut batches: Vec<Range<usize>> = Vec::new();
        for i in 0..self.len() {
            match batches.last_mut() {
                Some(last) if last.len() < limit && self.sizes[last.start] == self.sizes[i] => last.end = i + 1,
                _ => batches.push(i..i + 1),
            }
        }
        batches
    }

    /// Pictures of equal size as `[b, 3, h, w]` in [0, 1], on the CPU.
    pub(super) fn read(&self, range: Range<usize>) -> Result<Tensor> {
        let pictures = self.names[range]
            .iter()
            .map(|name| Ok(Picture::read(&self.path.join(name))?.tensor()?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&pictures, 0).map_err(crate::files::ModelError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_where_the_size_changes() {
        let sizes = vec![(4, 4), (4, 4), (4, 4), (8, 4), (8, 4)];
        let folder = Folder { path: PathBuf::new(), names: vec![String::new(); 5], sizes };
        assert_eq!(folder.batches(2), [0..2, 2..3, 3..5]);
        assert_eq!(folder.batches(8), [0..3, 3..5]);
    }
}
