//! From text to pictures: text encoder, denoising with a schedule, decoder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::{DType, Device, Tensor};
use evocache_proto::domain::{CostModel, Grid, Layout, Schedule};

use super::binning;
use super::memory::Memory;
use crate::cancel::CancelToken;
use crate::executor::{Denoise, ExecuteError, Guidance, Observer, Trace};
use crate::files::error::{ModelError, Result};
use crate::models::block_model::{BlockModel, Geometry, LatentSize, Prompts};
use crate::models::diffusers::{ModelFolder, TextOptions};
use crate::models::vae::VaeDecoder;
use crate::samplers::noise::randn;
use crate::samplers::{Sampler, SamplerFactory, SamplerOptions};

/// Largest side of a picture in pixels.
const MAX_SIDE: u32 = 8192;

/// A loaded model, ready to generate. The text encoder is loaded for each [`encode`](Self::encode) and then dropped: it
/// may be larger than everything else, and a calibration's prompts are encoded once.
pub struct Pipeline {
    folder: ModelFolder,
    device: Device,
    transformer: Box<dyn BlockModel>,
    vae: VaeDecoder,
    samplers: SamplerFactory,
    /// Samplers of the step counts that a search gives its own grid for.
    told: RwLock<BTreeMap<u32, SamplerFactory>>,
    native: usize,
    tokens: usize,
}

/// One batch to generate.
pub struct BatchRequest<'a> {
    /// One encoded prompt per picture.
    pub prompts: Prompts,
    /// One encoded negative prompt per picture; unused without classifier-free guidance.
    pub negative: Prompts,
    /// Size of the pictures.
    pub size: LatentSize,
    /// One seed per picture.
    pub seeds: &'a [u64],
    /// Guidance kind and scale.
    pub guidance: Guidance,
    /// The caching schedule; its step count is the sampler's.
    pub schedule: &'a Schedule,
}

/// The output of a batch.
pub struct Generated {
    /// `[b, 3, h, w]` in [0, 1], on the pipeline's device.
    pub pictures: Tensor,
    /// Final latents `[b, c, h', w']`.
    pub latents: Tensor,
    /// The executor's record of what it computed and reused.
    pub trace: Trace,
}

impl Pipeline {
    /// Loads transformer, decoder and sampler of a folder and checks that the text encoder's files exist.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        Self::load_as(path, device, DType::F32)
    }

    /// Like [`load`](Self::load), with a transformer that computes in `dtype`; encoders and decoder stay f32.
    pub fn load_as(path: &Path, device: Device, dtype: DType) -> Result<Self> {
        Self::load_with(path, device, dtype, TextOptions::default())
    }

    /// Like [`load_as`](Self::load_as), with options for the conversion of prompts to tokens.
    pub fn load_with(path: &Path, device: Device, dtype: DType, texts: TextOptions) -> Result<Self> {
        let folder = ModelFolder::open(path, texts)?;
        let tokens = folder.tokens();
        let native = folder.native_latent_size();
        let vae = folder.vae(&device)?;
        let transformer = folder.transformer(&device, dtype)?;
        if transformer.latent_channels() != vae.config().latent_channels {
            return Err(ModelError::Input(format!(
                "'{}': the transformer has {} latent channels, but the VAE has {}",
                path.display(),
                transformer.latent_channels(),
                vae.config().latent_channels
            )));
        }
        folder.unchanged()?;
        let samplers = folder.samplers().clone();
        let told = RwLock::default();
        Ok(Self { folder, device, transformer, vae, samplers, told, native, tokens })
    }

    /// Decodes large pictures in tiles; see [`VaeDecoder::tiled`].
    #[must_use]
    pub fn with_tiles(self) -> Self {
        Self { vae: self.vae.tiled(), ..self }
    }

    /// Overrides settings of the sampler.
    pub fn with_sampler(self, options: &SamplerOptions) -> Result<Self> {
        Ok(Self { samplers: self.samplers.with(options)?, ..self })
    }

    /// Runs with the step count of one of these grids sample on that grid; all others use the folder's settings.
    /// Runs that have begun are not affected.
    pub fn sample_on(&self, grids: &[Grid]) -> Result<()> {
        let told = |grid: &Grid| Ok((grid.steps, self.samplers.clone().with(&grid.into())?));
        let told = grids.iter().map(told).collect::<Result<_>>()?;
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = told;
        Ok(())
    }

    /// Latent rows and columns of the model's native size.
    pub fn native(&self) -> usize {
        self.native
    }

    /// The model's folder.
    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// The device that the model runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The transformer.
    pub fn transformer(&self) -> &dyn BlockModel {
        &*self.transformer
    }

    /// The decoder.
    pub fn vae(&self) -> &VaeDecoder {
        &self.vae
    }

    /// The sampler's settings.
    pub fn samplers(&self) -> &SamplerFactory {
        &self.samplers
    }

    /// The slots that a schedule can cache.
    pub fn layout(&self) -> &Arc<Layout> {
        self.transformer.layout()
    }

    /// Text tokens per prompt.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The latent size of pictures of this height and width in pixels; `None` means the model's native size.
    pub fn latent_size(&self, height: Option<u32>, width: Option<u32>) -> Result<LatentSize> {
        let scale = self.vae.config().scale();
        let latent = |name: &str, side: Option<u32>| match side {
            None => Ok(self.native),
            Some(side) if side > 0 && side <= MAX_SIDE && (side as usize).is_multiple_of(scale) => {
                Ok(side as usize / scale)
            }
            Some(side) => {
                Err(ModelError::Input(format!("{name} {side} is not a multiple of {scale} from {scale} to {MAX_SIDE}")))
            }
        };
        Ok(LatentSize { height: latent("height", height)?, width: latent("width", width)?, scale })
    }

    /// Costs per image: the transformer's, plus the decoder's in `image_macs`. Excludes the text encoder, as latencies
    /// do: a search encodes its texts once.
    pub fn cost(&self, size: LatentSize, guidance: Guidance) -> CostModel {
        let mut cost = self.transformer.cost(&Geometry { size, tokens: self.tokens, guided: guidance.is_on() });
        cost.image_macs += self.vae.decode_macs(size.height, size.width);
        cost
    }

    /// Guidance of the model's kind with this scale.
    pub fn guidance(&self, scale: f64) -> Guidance {
        Guidance::of_kind(self.transformer.guidance(), scale)
    }

    /// Bytes of the weights of transformer and decoder.
    pub fn weight_bytes(&self) -> u64 {
        self.transformer.weight_size().bytes + self.vae.weight_size().bytes
    }

    /// The inputs for the prediction of a run's peak memory.
    pub fn memory(&self, size: LatentSize, guidance: Guidance) -> Memory {
        let geometry = Geometry { size, tokens: self.tokens, guided: guidance.is_on() };
        Memory {
            weights: self.weight_bytes(),
            denoising: self.transformer.activations(&geometry),
            decoding: self.vae.decode_bytes(size.height, size.width),
        }
    }

    /// Encodes prompts.
    pub fn encode(&self, texts: &[&str]) -> Result<Prompts> {
        self.folder.encode(texts, &self.device)
    }

    /// Initial noise `[seeds, c, h, w]`, equal to `torch.randn(1, c, h, w)` for each seed.
    pub fn noise(&self, seeds: &[u64], size: LatentSize) -> Result<Tensor> {
        let channels = self.transformer.latent_channels();
        let values: Vec<f32> =
            seeds.iter().flat_map(|&seed| randn(seed, channels * size.height * size.width)).collect();
        Ok(Tensor::from_vec(values, (seeds.len(), channels, size.height, size.width), &self.device)?)
    }

    /// A sampler for a run of `steps` steps over pictures of this size.
    pub fn sampler(&self, steps: u32, size: LatentSize) -> Result<Box<dyn Sampler>> {
        let told = self.told.read().unwrap_or_else(PoisonError::into_inner);
        let samplers = told.get(&steps).unwrap_or(&self.samplers);
        samplers.start(steps, self.transformer.image_tokens(size)?)
    }

    /// Generates one batch. Calls `observe` with the latents after each step.
    pub fn generate(
        &self,
        request: &BatchRequest<'_>,
        cancel: &CancelToken,
        observe: &mut dyn FnMut(u32, &Tensor),
    ) -> std::result::Result<Generated, ExecuteError> {
        self.generate_as(request, None, cancel, observe)
    }

    /// Like [`generate`](Self::generate), with pictures resized and cropped to `pixels`, a height and a width.
    pub fn generate_as(
        &self,
        request: &BatchRequest<'_>,
        pixels: Option<(usize, usize)>,
        cancel: &CancelToken,
        mut observe: &mut dyn FnMut(u32, &Tensor),
    ) -> std::result::Result<Generated, ExecuteError> {
        let (latents, trace) = self.denoise(request, cancel, &mut observe)?;
        let mut decoded = self.vae.decode(&latents)?;
        if let Some((height, width)) = pixels {
            decoded = binning::cover(&decoded, height, width)?;
        }
        let pictures = decoded.affine(0.5, 0.5)?.clamp(0f32, 1f32)?;
        Ok(Generated { pictures, latents, trace })
    }

    /// Denoises one batch without decoding it. Returns the final latents.
    pub fn denoise(
        &self,
        request: &BatchRequest<'_>,
        cancel: &CancelToken,
        observer: &mut dyn Observer,
    ) -> std::result::Result<(Tensor, Trace), ExecuteError> {
        let size = request.size;
        let conditioning = request.guidance.pair(&request.negative, &request.prompts, size)?;
        let mut sampler = self.sampler(request.schedule.steps(), size)?;
        let noise = self.noise(request.seeds, size)?;
        let denoise = Denoise {
            model: &*self.transformer,
            conditioning: &conditioning,
            guidance: request.guidance,
            schedule: request.schedule,
            cancel,
        };
        denoise.run(&mut *sampler, &noise, observer)
    }
}
