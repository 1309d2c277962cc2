//! Reads weights from safetensors files (a single file or a sharded set, possibly of a variant fp16 or bf16) or from
//! PyTorch's `.bin` files of older folders, of which it reads the tensors and runs no code.
//!
//! Tensors are read one at a time when a model asks for them, and converted to f32 or the requested type, so loading
//! needs hardly more memory than the model itself. Headers are checked when the files are opened, so that a truncated
//! file is detected before anything runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::config::Config;
use super::error::{ModelError, Result};

/// The largest header that the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Names of weight variants in file names of diffusers and transformers.
const VARIANTS: [&str; 2] = ["fp16", "bf16"];

/// The weights of one part of a model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The path that an error names if a tensor is in none of the files.
    origin: PathBuf,
    /// The index file of a sharded set.
    index: Option<PathBuf>,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Entry>,
    device: Device,
    dtype: DType,
    /// Whether weight matrices of linear layers are rounded to bf16.
    rounds_matrices: bool,
    /// Whether every tensor exists and has random values; there are no files then.
    random: bool,
}

/// Which weights to load from a folder with both a single file and a sharded set; the libraries differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// The single file, as transformers does.
    First,
    /// The sharded set, as diffusers does.
    Last,
}

/// The size of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightSize {
    /// Number of values.
    pub parameters: u64,
    /// Bytes on the device.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    shape: Vec<usize>,
    place: Place,
}

/// Where a tensor's values are stored.
#[derive(Clone)]
enum Place {
    Bytes { dtype: Dtype, start: u64, count: usize },
    Pickled(Arc<PthTensors>),
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes { dtype, start, count } => write!(f, "{count} bytes of {dtype:?} at {start}"),
            Self::Pickled(_) => f.write_str("pickled"),
        }
    }
}

impl Weights {
    /// Opens the weights in `folder` whose file names start with `stem` (`model` for transformers,
    /// `diffusion_pytorch_model` for diffusers). Looks for a single file or sharded set without a variant, then for
    /// PyTorch's `.bin` files, then for the variants fp16 and bf16.
    pub fn open(folder: &Path, stem: &str, single: Single, device: &Device) -> Result<Self> {
        let file = |infix: &str| folder.join(format!("{stem}{infix}.safetensors"));
        let mut wanted = vec![(file(""), folder.join(format!("{stem}.safetensors.index.json")))];
        wanted.extend(VARIANTS.map(|variant| {
            let index = format!("{stem}.safetensors.index.{variant}.json");
            (file(&format!(".{variant}")), folder.join(index))
        }));
        for (file, index) in wanted {
            if index.is_file() && (single == Single::Last || !file.is_file()) {
                let files = shards(folder, &index)?;
                let origin = if files.len() == 1 { files[0].clone() } else { folder.to_owned() };
                return Ok(Self { index: Some(index), ..Self::read_headers(origin, files, device)? });
            }
            if file.is_file() {
                return Self::open_file(&file, device);
            }
            if let Some(pickled) = Self::open_pickled(folder, stem, device)? {
                return Ok(pickled);
            }
        }
        Err(ModelError::Missing { path: file(""), hint: missing_hint(stem) })
    }

    /// Opens PyTorch's files of older releases, `pytorch_model.bin` or `diffusion_pytorch_model.bin`, or a sharded set.
    fn open_pickled(folder: &Path, stem: &str, device: &Device) -> Result<Option<Self>> {
        let stem = if stem.contains("pytorch") { stem.to_owned() } else { format!("pytorch_{stem}") };
        let (file, index) = (folder.join(format!("{stem}.bin")), folder.join(format!("{stem}.bin.index.json")));
        if file.is_file() {
            return Self::read_headers(file.clone(), vec![file], device).map(Some);
        }
        if index.is_file() {
            let files = shards(folder, &index)?;
            return Ok(Some(Self { index: Some(index), ..Self::read_headers(folder.to_owned(), files, device)? }));
        }
        Ok(None)
    }

    /// Opens one safetensors file.
    pub fn open_file(file: &Path, device: &Device) -> Result<Self> {
        Self::read_headers(file.to_owned(), vec![file.to_owned()], device)
    }

    fn read_headers(origin: PathBuf, files: Vec<PathBuf>, device: &Device) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (number, path) in files.iter().enumerate() {
            if path.extension().is_some_and(|extension| extension == "bin") {
                read_pickle(path, number, &mut tensors)?;
            } else {
                read_header(path, number, &mut tensors)?;
            }
        }
        Ok(Self {
            origin,
            index: None,
            files,
            tensors,
            device: device.clone(),
            dtype: DType::F32,
            rounds_matrices: false,
            random: false,
        })
    }

    /// Weights without files, to time a model without its weights. Every tensor exists; its values are pseudo-random in
    /// (-1, 1) / sqrt(number of inputs) and depend on its name only. [`size`](Self::size) does not count them.
    pub fn random(device: &Device) -> Self {
        Self {
            origin: "random weights".into(),
            index: None,
            files: vec![],
            tensors: BTreeMap::new(),
            device: device.clone(),
            dtype: DType::F32,
            rounds_matrices: false,
            random: true,
        }
    }

    /// Converts tensors to `dtype` when they are read. On the CPU, BF16 applies to the weight matrices of linear layers
    /// only, because its kernels multiply in bf16 but compute everything else in f32.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        let rounds_matrices = self.device.is_cpu() && dtype == DType::BF16;
        Self { dtype: if rounds_matrices { DType::F32 } else { dtype }, rounds_matrices, ..self }
    }

    /// The same weights for another device.
    #[must_use]
    pub fn on(&self, device: &Device) -> Self {
        Self { device: device.clone(), ..self.clone() }
    }

    /// The index file, if any, and the weight files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.index.iter().chain(&self.files)
    }

    /// The total size of the tensors whose names `wanted` accepts.
    pub fn size(&self, wanted: impl Fn(&str) -> bool) -> WeightSize {
        let mut size = WeightSize::default();
        for (name, entry) in self.tensors.iter().filter(|(name, _)| wanted(name)) {
            let values = entry.shape.iter().map(|&n| n as u64).product::<u64>();
            // Such a matrix belongs to a linear layer, except for the class embeddings, which are small.
            let rounded = self.rounds_matrices && entry.shape.len() == 2 && name.ends_with(".weight");
            let dtype = if rounded { DType::BF16 } else { self.dtype };
            size.parameters += values;
            size.bytes += values * dtype.size_in_bytes() as u64;
        }
        size
    }

    /// All tensors.
    pub fn root(&self) -> Params<'_> {
        Params { weights: self, prefix: String::new() }
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Tensor> {
        if self.random {
            let inputs: usize = expected.iter().skip(1).product();
            let values = scatter(name, expected.iter().product(), 1.0 / (inputs.max(1) as f32).sqrt());
            return Ok(Tensor::from_vec(values, expected, &Device::Cpu)?
                .to_dtype(self.dtype)?
                .to_device(&self.device)?);
        }
        let Some(entry) = self.tensors.get(name) else {
            return Err(ModelError::MissingTensor { path: self.origin.clone(), tensor: name.into() });
        };
        let path = &self.files[entry.file];
        if entry.shape != expected {
            return Err(ModelError::Shape {
                path: path.clone(),
                tensor: name.into(),
                expected: expected.into(),
                found: entry.shape.clone(),
            });
        }
        let unsupported = |dtype: String| ModelError::Unsupported {
            path: path.clone(),
            field: name.into(),
            found: dtype,
            supported: "F16, BF16, F32, F64".into(),
        };
        let values = match &entry.place {
            Place::Bytes { dtype, start, count } => {
                let io = |source| ModelError::Io { path: path.clone(), source };
                let mut file = File::open(path).map_err(io)?;
                file.seek(SeekFrom::Start(*start)).map_err(io)?;
                let mut bytes = vec![0u8; *count];
                file.read_exact(&mut bytes).map_err(io)?;
                to_f32(*dtype, &bytes).ok_or_else(|| unsupported(format!("{dtype:?}")))?
            }
            Place::Pickled(tensors) => {
                let damaged =
                    |e: candle_core::Error| ModelError::Damaged { path: path.clone(), message: e.to_string() };
                let lacking = || ModelError::MissingTensor { path: path.clone(), tensor: name.into() };
                let tensor = tensors.get(name).map_err(damaged)?.ok_or_else(lacking)?;
                if !tensor.dtype().is_float() {
                    return Err(unsupported(format!("{:?}", tensor.dtype())));
                }
                tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?
            }
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { path: path.clone(), tensor: name.into() });
        }
        // Converted on the CPU, because the device may have room for the converted tensor only.
        Ok(Tensor::from_vec(values, expected, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

/// The tensors below one prefix.
#[derive(Debug, Clone)]
pub struct Params<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Params<'_> {
    /// The tensors below `name`.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}{name}.", self.prefix) }
    }

    /// Reads the tensor with this name, which must have the given shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.read(&format!("{}{name}", self.prefix), shape)
    }

    /// The shape of the tensor with this name, which must have `dimensions` dimensions. For models whose sizes are not
    /// in a config.
    pub fn shape(&self, name: &str, dimensions: usize) -> Result<Vec<usize>> {
        let (name, weights) = (format!("{}{name}", self.prefix), self.weights);
        let Some(entry) = weights.tensors.get(&name) else {
            return Err(ModelError::MissingTensor { path: weights.origin.clone(), tensor: name });
        };
        if entry.shape.len() != dimensions || entry.shape.contains(&0) {
            let message = format!("tensor '{name}' has shape {:?}, expected {dimensions} dimensions", entry.shape);
            return Err(ModelError::Damaged { path: weights.files[entry.file].clone(), message });
        }
        Ok(entry.shape.clone())
    }

    /// Whether a tensor with this name exists.
    pub fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The device that tensors are loaded to.
    pub fn device(&self) -> &Device {
        &self.weights.device
    }

    /// Whether linear layers should round their weight matrices to bf16, although tensors are f32.
    pub fn rounds_matrices(&self) -> bool {
        self.weights.rounds_matrices
    }

    /// The type of the tensors.
    pub fn dtype(&self) -> DType {
        self.weights.dtype
    }
}

fn missing_hint(stem: &str) -> String {
    let bin = if stem.contains("pytorch") { format!("{stem}.bin") } else { format!("pytorch_{stem}.bin") };
    format!(
        "expected {stem}.safetensors, {stem}.safetensors.index.json, their fp16 or bf16 variants, or {bin}; check that \
         the download is complete"
    )
}

/// Limit for the number of tensors in a pickled file.
const MAX_TENSORS: usize = 1 << 20;

fn read_pickle(path: &Path, number: usize, tensors: &mut BTreeMap<String, Entry>) -> Result<()> {
    let damaged = |message: String| ModelError::Damaged { path: path.into(), message };
    let pickled = PthTensors::new(path, None).map_err(|e| damaged(format!("not a readable PyTorch file: {e}")))?;
    let pickled = Arc::new(pickled);
    let infos = pickled.tensor_infos();
    if infos.is_empty() || infos.len() > MAX_TENSORS {
        return Err(damaged(format!("it has {} named tensors, expected 1 to {MAX_TENSORS}", infos.len())));
    }
    for (name, info) in infos {
        // candle reads tensors at an offset in a shared storage from the wrong position.
        if info.layout.start_offset() != 0 {
            return Err(damaged(format!("tensor '{name}' shares its storage; save the model as safetensors")));
        }
        let entry = Entry { file: number, shape: info.layout.dims().into(), place: Place::Pickled(pickled.clone()) };
        tensors.insert(name.clone(), entry);
    }
    Ok(())
}

/// The files of a sharded set, sorted by name.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let config = Config::read(index)?;
    let map = config.object("weight_map")?;
    let mut names = map.values()?;
    names.sort();
    names.dedup();
    for name in &names {
        if name.contains(['/', '\\']) || name.starts_with("..") {
            return Err(config.wrong("weight_map", "file names in the same folder", name));
        }
        let path = folder.join(name);
        if !path.is_file() {
            let hint = format!("download the missing file, which '{}' lists", index.display());
            return Err(ModelError::Missing { path, hint });
        }
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn read_header(path: &Path, number: usize, tensors: &mut BTreeMap<String, Entry>) -> Result<()> {
    let io = |source| ModelError::Io { path: path.into(), source };
    let damaged = |message: String| ModelError::Damaged { path: path.into(), message };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0u8; 8];
    if size < 8 {
        return Err(damaged(format!("it has {size} bytes, but a safetensors file has at least 8")));
    }
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length > size - 8 {
        return Err(damaged(format!("its header claims {length} bytes, but the file has {size}")));
    }
    let mut header = vec![0u8; length as usize];
    file.read_exact(&mut header).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| damaged(format!("its header cannot be parsed: {e}")))?;
    let expected = (8 + length).saturating_add(metadata.data_len() as u64);
    if size != expected {
        return Err(damaged(format!("its header implies {expected} bytes, but the file has {size}")));
    }
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let place = Place::Bytes { dtype: info.dtype, start: 8 + length + start as u64, count: end - start };
        tensors.insert(name, Entry { file: number, shape: info.shape.clone(), place });
    }
    Ok(())
}

/// Pseudo-random values in (-size, size) that depend on the name only (xorshift, seeded by FNV-1a).
fn scatter(name: &str, count: usize, size: f32) -> Vec<f32> {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The upper 24 bits: the precision of an f32.
        ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * size
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let values = match dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        _ => return None,
    };
    Some(values)
}
