//! Every stage of the bundled model against tensors that diffusers and transformers computed from the same weights in
//! float32. `cargo test -p evocache-worker --test parity -- --nocapture` prints the errors.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and shows its numbers"
)]

mod common;

use candle_core::{D, DType, Device, Tensor};
use common::{Golden, mean_difference, model_dir, pipeline, plain_forward, relative_error};
use evocache_proto::domain::Schedule;
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Pipeline};
use evocache_worker::executor::Guidance;
use evocache_worker::metrics::clip_score::ClipScore;
use evocache_worker::models::block_model::{Conditioning, Prompts};

/// Largest relative error of tensors before the decoder.
const RELATIVE: f64 = 1e-4;
/// Largest mean absolute difference of pictures in [0, 1].
const PICTURE: f64 = 1.0 / 255.0;
/// Largest difference of CLIP scores.
const SCORE: f64 = 1e-3;

struct Table {
    title: String,
    rows: Vec<(String, f64, f64)>,
}

impl Table {
    fn new(title: &str) -> Self {
        Self { title: title.into(), rows: vec![] }
    }

    fn row(&mut self, what: &str, error: f64, limit: f64) {
        self.rows.push((what.into(), error, limit));
    }

    /// Prints all rows, then fails if one is above its limit.
    fn check(self) {
        println!("\n{:<44} {:>10} {:>10}", self.title, "error", "limit");
        for (what, error, limit) in &self.rows {
            println!("{what:<44} {error:>10.2e} {limit:>10.2e}");
        }
        for (what, error, limit) in self.rows {
            assert!(error <= limit, "{}: {what}: {error:e} is above {limit:e}", self.title);
        }
    }
}

#[test]
fn every_stage_of_a_plain_run_agrees_with_diffusers() {
    let pipeline = pipeline();
    for name in ["prompt_0", "prompt_1"] {
        let golden = Golden::read(name);
        let (prompt, seed): (&str, u64) = (golden.text("prompt"), golden.json("seed"));
        let (steps, scale): (u32, f64) = (golden.json("steps"), golden.json("guidance_scale"));
        let mut table = Table::new(&format!("{prompt}, seed {seed}"));

        let encoder = pipeline.folder().text_encoder(pipeline.device()).unwrap();
        for (text, ids, mask) in
            [(prompt, "input_ids", "attention_mask"), ("", "negative_input_ids", "negative_attention_mask")]
        {
            let tokens = encoder.tokenize(&[text]).unwrap();
            let wanted: Vec<i64> = golden.tensor(ids).flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(tokens.ids().iter().map(|&id| i64::from(id)).collect::<Vec<_>>(), wanted);
            let wanted = golden.tensor(mask).to_dtype(DType::F32).unwrap();
            common::assert_identical(&tokens.mask(&Device::Cpu).unwrap(), &wanted, "masks");
        }
        let texts = pipeline.encode(&["", prompt]).unwrap();
        let size = pipeline.latent_size(None, None).unwrap();
        let embeddings = texts.embeddings.as_ref().unwrap();
        table.row(
            "T5 output",
            relative_error(&embeddings.narrow(0, 1, 1).unwrap(), golden.tensor("t5_output")),
            RELATIVE,
        );
        table.row(
            "T5 output, negative prompt",
            relative_error(&embeddings.narrow(0, 0, 1).unwrap(), golden.tensor("negative_t5_output")),
            RELATIVE,
        );
        let noise = pipeline.noise(&[seed], size).unwrap();
        table.row("initial noise", relative_error(&noise, golden.tensor("initial_latents")), RELATIVE);

        let timesteps: Vec<i64> = golden.tensor("timesteps").to_vec1().unwrap();
        let sampler = pipeline.sampler(steps, size).unwrap();
        assert_eq!(sampler.timesteps().iter().map(|&t| t as i64).collect::<Vec<_>>(), timesteps);

        // The transformer alone, on the reference's own text embeddings and latents.
        let embeddings = Tensor::cat(&[golden.tensor("negative_t5_output"), golden.tensor("t5_output")], 0).unwrap();
        let mask =
            Tensor::cat(&[golden.tensor("negative_attention_mask"), golden.tensor("attention_mask")], 0).unwrap();
        let prompts = Prompts::masked(embeddings, mask.to_dtype(DType::F32).unwrap());
        let conditioning = Conditioning { prompts, guidance: None, size };
        let bound = pipeline.transformer().condition(&conditioning).unwrap();
        for step in [1, 10] {
            let latents = golden.tensor(&format!("latents_before_step_{step}"));
            let input = Tensor::cat(&[latents, latents], 0).unwrap();
            let output = plain_forward(pipeline.transformer(), &*bound, &input, timesteps[step - 1] as f64);
            let wanted = golden.tensor(&format!("transformer_output_step_{step}")).narrow(1, 0, 4).unwrap();
            table.row(&format!("transformer at step {step}"), relative_error(&output, &wanted), RELATIVE);
        }

        // The whole run from prompt and seed.
        let schedule = Schedule::all_compute(pipeline.layout().clone(), steps).unwrap();
        let request = BatchRequest {
            prompts: texts.batch(1, 1).unwrap(),
            negative: texts.batch(0, 1).unwrap(),
            size,
            seeds: &[seed],
            guidance: Guidance::new(scale),
            schedule: &schedule,
        };
        let mut worst = 0f64;
        let generated = pipeline
            .generate(&request, &CancelToken::new(), &mut |step, latents| {
                let wanted = golden.tensor(&format!("latents_after_step_{}", step + 1));
                worst = worst.max(relative_error(latents, wanted));
            })
            .unwrap();
        table.row("latents after any step, worst", worst, RELATIVE);
        table.row("final latents", relative_error(&generated.latents, golden.tensor("final_latents")), RELATIVE);
        let decoded = pipeline.vae().decode(golden.tensor("final_latents")).unwrap();
        table.row("decoder alone", relative_error(&decoded, golden.tensor("decoded")), RELATIVE);
        table.row("picture, mean absolute", mean_difference(&generated.pictures, golden.tensor("image")), PICTURE);

        let clip = ClipScore::load(&model_dir().join("clip"), &Device::Cpu).unwrap();
        let (text, picture) =
            (clip.embed_texts(&[prompt]).unwrap(), clip.embed_pictures(golden.tensor("image")).unwrap());
        table.row("CLIP text embedding", relative_error(&text, golden.tensor("clip_text")), RELATIVE);
        table.row("CLIP picture embedding", relative_error(&picture, golden.tensor("clip_image")), RELATIVE);
        let own = clip.embed_pictures(&generated.pictures).unwrap();
        let score = (own * text).unwrap().sum(D::Minus1).unwrap().to_vec1::<f32>().unwrap()[0];
        let wanted = golden.tensor("clip_score").to_vec1::<f32>().unwrap()[0];
        table.row("CLIP score", f64::from(score - wanted).abs(), SCORE);
        table.check();
    }
}

/// Runs a golden schedule and compares latents after every step, and the pictures.
fn cached_run(pipeline: &Pipeline, name: &str) {
    let golden = Golden::read(name);
    let (prompts, seeds): (Vec<String>, Vec<u64>) = (golden.json("prompts"), golden.json("seeds"));
    let file = std::fs::read_to_string(model_dir().join("golden").join(golden.text("schedule"))).unwrap();
    let schedule = evocache_proto::formats::read(&file).unwrap();
    assert_eq!(schedule.steps(), golden.json::<u32>("steps"));
    let size = pipeline.latent_size(None, None).unwrap();
    let texts: Vec<&str> = prompts.iter().map(String::as_str).chain([""]).collect();
    let texts = pipeline.encode(&texts).unwrap();
    let request = BatchRequest {
        prompts: texts.batch(0, prompts.len()).unwrap(),
        negative: texts.repeated(prompts.len(), prompts.len()).unwrap(),
        size,
        seeds: &seeds,
        guidance: Guidance::new(golden.json("guidance_scale")),
        schedule: &schedule,
    };
    let mut table = Table::new(&format!("{name}, {:.1} % computed", 100.0 * (1.0 - schedule.cache_hit_rate())));
    let noise = pipeline.noise(&seeds, size).unwrap();
    table.row("initial noise", relative_error(&noise, golden.tensor("initial_latents")), RELATIVE);
    let wanted = golden.tensor("latents_by_step");
    let mut errors = vec![];
    let generated = pipeline
        .generate(&request, &CancelToken::new(), &mut |step, latents| {
            errors.push(relative_error(latents, &wanted.get(step as usize).unwrap()));
        })
        .unwrap();
    assert_eq!(errors.len(), schedule.steps() as usize);
    table.row("latents after any step, worst", errors.iter().copied().fold(0.0, f64::max), RELATIVE);
    table.row("final latents", errors[errors.len() - 1], RELATIVE);
    table.row("pictures, mean absolute", mean_difference(&generated.pictures, golden.tensor("image")), PICTURE);
    table.check();
}

#[test]
fn cached_runs_agree_with_diffusers_after_every_step() {
    let pipeline = pipeline();
    for name in ["cached_all_compute", "cached_fora_3", "cached_intervals_2_6_4", "cached_random_0.4"] {
        cached_run(&pipeline, name);
    }
}
