//! ImageReward (Xu et al., arXiv 2304.05977): a BLIP trained on human rankings of pictures for a prompt.
//!
//! Weights: a folder with `med_config.json` of `THUDM/ImageReward`, the tokenizer of `google-bert/bert-base-uncased`,
//! and `model.safetensors` made from `ImageReward.pt`: `python -c "import torch, safetensors.torch as s;
//! s.save_file({k: v.contiguous() for k, v in torch.load('ImageReward.pt', map_location='cpu').items()
//! if v.is_floating_point()}, 'model.safetensors')"`

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::preprocess::Preprocessor;
use super::{Against, Metric, read_config};
use crate::files::error::{ModelError, Result};
use crate::files::weights::{Single, Weights};
use crate::layers::Linear;
use crate::models::blip::{TextConfig, TextTower, VisionTower};
use crate::models::diffusers::TRANSFORMERS_STEM;
use crate::models::tokenizer::{Tokenizer, Tokens};

/// How to get the folder.
const HINT: &str = "put med_config.json of THUDM/ImageReward, tokenizer.json and tokenizer_config.json of \
                    google-bert/bert-base-uncased, and ImageReward.pt as model.safetensors in the folder";
/// Tokens per prompt, padding included.
const TOKENS: usize = 35;
/// Mean and standard deviation of the head's values on the authors' data, by which rewards are normalized.
const NORM: [f64; 2] = [0.167_173_628_300_525_24, 1.033_339_496_605_407_2];
/// The linear layers of the head (index in the sequence, outputs); the modules between them do nothing in evaluation.
const HEAD: [(usize, usize); 5] = [(0, 1024), (2, 128), (4, 64), (6, 16), (7, 1)];

/// The reward of a picture for its prompt, as in PyPI's `image-reward`: about standard normal, higher is better.
pub struct ImageReward {
    vision: VisionTower,
    text: TextTower,
    head: Vec<Linear>,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    prompts: Option<Tokens>,
    device: Device,
}

impl ImageReward {
    /// Loads a folder with `med_config.json`, tokenizer and weights.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let config = TextConfig::read(&read_config(folder, "med_config.json", HINT)?)?;
        let weights = Weights::open(folder, TRANSFORMERS_STEM, Single::First, device)?;
        let (blip, layers) = (weights.root().at("blip"), weights.root().at("mlp.layers"));
        let vision = VisionTower::load(&blip.at("visual_encoder"))?;
        let mut inputs = config.width();
        let head = HEAD.map(|(place, outputs)| {
            let layer = Linear::load(&layers.at(place), inputs, outputs, true);
            inputs = outputs;
            layer
        });
        Ok(Self {
            text: TextTower::load(&blip.at("text_encoder"), config, vision.width())?,
            head: head.into_iter().collect::<Result<_>>()?,
            tokenizer: Tokenizer::open_within(folder, TOKENS)?,
            preprocessor: Preprocessor::square(vision.image_size()),
            vision,
            prompts: None,
            device: device.clone(),
        })
    }
}

impl Metric for ImageReward {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "image_reward".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "ImageReward of the picture for its prompt".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Text
    }

    fn prepare(&mut self, texts: &[&str], _: &[Tensor]) -> Result<()> {
        self.prompts = Some(self.tokenizer.encode(texts)?);
        Ok(())
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let Some(prompts) = &self.prompts else {
            return Err(ModelError::Input("image_reward was not given the texts".into()));
        };
        let prompts = prompts.range(first..first + pictures.dim(0)?);
        let pixels = self.preprocessor.apply(pictures)?.to_device(&self.device)?;
        let mut x = self.text.forward(&prompts, &self.vision.forward(&pixels)?)?;
        for layer in &self.head {
            x = layer.forward(&x)?;
        }
        let [mean, deviation] = NORM;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(|value| (f64::from(value) - mean) / deviation).collect())
    }
}
