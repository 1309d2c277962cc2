//! How every field of every config class is handled, so that no setting that affects the results of diffusers 0.42.1
//! with transformers 5.24 is silently ignored.
//!
//! `tests/fields.rs` compares this table with the fields of those libraries, which `tests/python/fields.py` records.
//! The libraries ignore fields that are not in the table, so [`check`] ignores them too. Names that begin with `_` are
//! annotations.

use serde_json::Value;

use super::config::Config;
use super::error::Result;

/// How a field is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read; must not be null.
    Read,
    /// Read; null has a meaning that depends on the class.
    ReadOrNull,
    /// A Boolean; null means false.
    Flag,
    /// Only these values, written as JSON, are supported; others are refused.
    Only(&'static [&'static str]),
    /// Does not affect the results of this program.
    NoEffect,
}

use Use::{Flag, NoEffect, Only, Read, ReadOrNull};

/// A class name and its fields.
pub type Class = (&'static str, &'static [(&'static str, Use)]);

const NULL: Use = Only(&["null"]);
const OFF: Use = Only(&["false", "null"]);

/// All classes.
pub const CLASSES: &[Class] = &[
    ("PixArtAlphaPipeline", PIXART_PIPELINE),
    ("PixArtSigmaPipeline", PIXART_PIPELINE),
    ("DiTPipeline", &[("transformer", Read), ("vae", Read), ("scheduler", Read), ("id2label", ReadOrNull)]),
    (
        "FluxPipeline",
        &[
            ("scheduler", Read),
            ("vae", Read),
            ("text_encoder", Read),
            ("tokenizer", Read),
            ("text_encoder_2", Read),
            ("tokenizer_2", Read),
            ("transformer", Read),
            // For image prompts.
            ("image_encoder", NoEffect),
            ("feature_extractor", NoEffect),
        ],
    ),
    (
        "StableDiffusion3Pipeline",
        &[
            ("transformer", Read),
            ("scheduler", Read),
            ("vae", Read),
            ("text_encoder", Read),
            ("tokenizer", Read),
            ("text_encoder_2", Read),
            ("tokenizer_2", Read),
            ("text_encoder_3", ReadOrNull),
            ("tokenizer_3", ReadOrNull),
            ("image_encoder", NoEffect),
            ("feature_extractor", NoEffect),
        ],
    ),
    (
        "PixArtTransformer2DModel",
        &[
            ("num_attention_heads", Read),
            ("attention_head_dim", Read),
            ("in_channels", Read),
            ("out_channels", Read),
            ("num_layers", Read),
            // For training.
            ("dropout", NoEffect),
            // This model has no group norm.
            ("norm_num_groups", NoEffect),
            ("cross_attention_dim", Read),
            ("attention_bias", Flag),
            ("sample_size", Read),
            ("patch_size", Read),
            ("activation_fn", Read),
            // This norm type has no embedding of its own.
            ("num_embeds_ada_norm", NoEffect),
            // Scores are always f32.
            ("upcast_attention", NoEffect),
            ("norm_type", Only(&["\"ada_norm_single\""])),
            ("norm_elementwise_affine", OFF),
            ("norm_eps", Read),
            ("interpolation_scale", ReadOrNull),
            ("use_additional_conditions", ReadOrNull),
            ("caption_channels", ReadOrNull),
            ("attention_type", Only(&["\"default\""])),
            ("quantization_config", NULL),
        ],
    ),
    (
        "DiTTransformer2DModel",
        &[
            ("num_attention_heads", Read),
            ("attention_head_dim", Read),
            ("in_channels", Read),
            ("out_channels", ReadOrNull),
            ("num_layers", Read),
            ("dropout", NoEffect),
            ("norm_num_groups", NoEffect),
            ("attention_bias", Flag),
            ("sample_size", Read),
            ("patch_size", Read),
            ("activation_fn", Read),
            ("num_embeds_ada_norm", Read),
            ("upcast_attention", NoEffect),
            ("norm_type", Only(&["\"ada_norm_zero\""])),
            ("norm_elementwise_affine", OFF),
            ("norm_eps", Read),
            ("quantization_config", NULL),
        ],
    ),
    (
        "FluxTransformer2DModel",
        &[
            ("patch_size", Only(&["1"])),
            ("in_channels", Read),
            ("out_channels", ReadOrNull),
            ("num_layers", Read),
            ("num_single_layers", Read),
            ("attention_head_dim", Read),
            ("num_attention_heads", Read),
            ("joint_attention_dim", Read),
            ("pooled_projection_dim", Read),
            ("guidance_embeds", Flag),
            ("axes_dims_rope", Read),
            ("quantization_config", NULL),
        ],
    ),
    (
        "SD3Transformer2DModel",
        &[
            ("sample_size", Read),
            ("patch_size", Read),
            ("in_channels", Read),
            ("num_layers", Read),
            ("attention_head_dim", Read),
            ("num_attention_heads", Read),
            ("joint_attention_dim", Read),
            ("caption_projection_dim", Read),
            ("pooled_projection_dim", Read),
            ("out_channels", Read),
            ("pos_embed_max_size", Read),
            ("dual_attention_layers", Read),
            ("qk_norm", ReadOrNull),
            ("quantization_config", NULL),
        ],
    ),
    (
        "AutoencoderKL",
        &[
            // For the encoder, which is not used.
            ("in_channels", NoEffect),
            ("down_block_types", NoEffect),
            ("use_quant_conv", NoEffect),
            ("out_channels", Read),
            ("up_block_types", Read),
            ("block_out_channels", Read),
            ("layers_per_block", Read),
            ("act_fn", Only(&["\"silu\"", "\"swish\""])),
            ("latent_channels", Read),
            ("norm_num_groups", Read),
            ("sample_size", Read),
            ("scaling_factor", Read),
            // Read for pipelines that add it.
            ("shift_factor", ReadOrNull),
            // Not used by any of the pipelines.
            ("latents_mean", NoEffect),
            ("latents_std", NoEffect),
            // The decoder is always f32.
            ("force_upcast", NoEffect),
            ("use_post_quant_conv", Flag),
            ("mid_block_add_attention", Flag),
            ("quantization_config", NULL),
        ],
    ),
    (
        "DPMSolverMultistepScheduler",
        &[
            ("num_train_timesteps", Read),
            ("beta_start", Read),
            ("beta_end", Read),
            ("beta_schedule", Read),
            ("trained_betas", NULL),
            ("solver_order", Read),
            ("prediction_type", Read),
            ("thresholding", OFF),
            ("dynamic_thresholding_ratio", NoEffect),
            ("sample_max_value", NoEffect),
            ("algorithm_type", Only(&["\"dpmsolver++\""])),
            ("solver_type", Read),
            ("lower_order_final", Flag),
            ("euler_at_final", Flag),
            ("use_karras_sigmas", Flag),
            ("use_exponential_sigmas", OFF),
            ("use_beta_sigmas", OFF),
            ("use_lu_lambdas", OFF),
            ("use_flow_sigmas", OFF),
            ("flow_shift", NoEffect),
            ("final_sigmas_type", Read),
            ("lambda_min_clipped", Read),
            // Other values make diffusers truncate the output to three channels.
            ("variance_type", NULL),
            ("timestep_spacing", Read),
            ("steps_offset", Read),
            ("rescale_betas_zero_snr", OFF),
            ("use_dynamic_shifting", OFF),
            ("time_shift_type", NoEffect),
        ],
    ),
    (
        "DDIMScheduler",
        &[
            ("num_train_timesteps", Read),
            ("beta_start", Read),
            ("beta_end", Read),
            ("beta_schedule", Read),
            ("trained_betas", NULL),
            ("clip_sample", Flag),
            ("set_alpha_to_one", Flag),
            ("steps_offset", Read),
            ("prediction_type", Read),
            ("thresholding", OFF),
            ("dynamic_thresholding_ratio", NoEffect),
            ("clip_sample_range", Read),
            ("sample_max_value", NoEffect),
            ("timestep_spacing", Read),
            ("rescale_betas_zero_snr", OFF),
        ],
    ),
    (
        "FlowMatchEulerDiscreteScheduler",
        &[
            ("num_train_timesteps", Read),
            ("shift", Read),
            ("use_dynamic_shifting", Flag),
            ("base_shift", Read),
            ("max_shift", Read),
            ("base_image_seq_len", Read),
            ("max_image_seq_len", Read),
            ("invert_sigmas", OFF),
            ("shift_terminal", ReadOrNull),
            ("use_karras_sigmas", OFF),
            ("use_exponential_sigmas", OFF),
            ("use_beta_sigmas", OFF),
            ("time_shift_type", Read),
            ("stochastic_sampling", OFF),
        ],
    ),
    (
        "T5Config",
        &[
            ("vocab_size", Read),
            ("d_model", Read),
            ("d_kv", Read),
            ("d_ff", Read),
            ("num_layers", Read),
            ("num_heads", Read),
            ("relative_attention_num_buckets", Read),
            ("relative_attention_max_distance", Read),
            ("layer_norm_epsilon", Read),
            ("feed_forward_proj", Read),
            // For the decoder, training or text generation.
            ("is_encoder_decoder", NoEffect),
            ("num_decoder_layers", NoEffect),
            ("dropout_rate", NoEffect),
            ("initializer_factor", NoEffect),
            ("use_cache", NoEffect),
            ("pad_token_id", NoEffect),
            ("eos_token_id", NoEffect),
            ("classifier_dropout", NoEffect),
            ("is_decoder", NoEffect),
            ("quantization_config", NULL),
        ],
    ),
    (
        "CLIPTextConfig",
        &[
            ("vocab_size", Read),
            ("hidden_size", Read),
            ("intermediate_size", Read),
            ("projection_dim", Read),
            ("num_hidden_layers", Read),
            ("num_attention_heads", Read),
            ("max_position_embeddings", Read),
            ("hidden_act", Read),
            ("layer_norm_eps", Read),
            ("eos_token_id", Read),
            ("attention_dropout", NoEffect),
            ("initializer_range", NoEffect),
            ("initializer_factor", NoEffect),
            ("pad_token_id", NoEffect),
            ("bos_token_id", NoEffect),
            ("quantization_config", NULL),
        ],
    ),
    (
        "T5Tokenizer",
        &[
            // An argument of the constructor; a folder has the vocabulary in a separate file.
            ("vocab", NULL),
            ("eos_token", ReadOrNull),
            ("unk_token", ReadOrNull),
            ("pad_token", ReadOrNull),
            ("extra_ids", Read),
            ("additional_special_tokens", ReadOrNull),
            ("padding_side", Read),
            ("truncation_side", Read),
            ("split_special_tokens", OFF),
            ("fast_tokenizer_files", NULL),
        ],
    ),
    (
        "CLIPTokenizer",
        &[
            ("vocab", NULL),
            ("merges", NULL),
            ("unk_token", ReadOrNull),
            ("bos_token", ReadOrNull),
            ("eos_token", ReadOrNull),
            ("pad_token", ReadOrNull),
            ("padding_side", Read),
            ("truncation_side", Read),
            ("split_special_tokens", OFF),
            ("fast_tokenizer_files", NULL),
        ],
    ),
];

const PIXART_PIPELINE: &[(&str, Use)] =
    &[("tokenizer", Read), ("text_encoder", Read), ("vae", Read), ("transformer", Read), ("scheduler", Read)];

/// Refuses a config of this class if one of its fields has an unsupported value.
pub fn check(config: &Config, class: &str) -> Result<()> {
    let fields = CLASSES.iter().find(|(name, _)| *name == class).map_or(&[] as &[_], |(_, fields)| *fields);
    for (name, value) in config.fields() {
        let Some((_, found)) = fields.iter().find(|(field, _)| field == name) else { continue };
        match found {
            Only(values) if !values.iter().any(|known| is(value, known)) => {
                let found = value.as_str().map_or_else(|| short(value), str::to_owned);
                return Err(config.unsupported(name, found, &values.join(", ").replace('"', "")));
            }
            Read if value.is_null() => return Err(config.wrong(name, "a value", "null")),
            Only(_) | Read | ReadOrNull | Flag | NoEffect => {}
        }
    }
    Ok(())
}

/// Whether `value` equals the JSON text `written`.
fn is(value: &Value, written: &str) -> bool {
    serde_json::from_str::<Value>(written).is_ok_and(|written| written == *value)
}

fn short(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}
