//! Times the denoising loop alone, cached and uncached in turn, and computes the overhead of caching.

use std::io::Write;

use candle_core::Tensor;
use evocache_proto::domain::{Calibration, Measurement, Schedule, median};

use super::parts::Watched;
use super::table::Table;
use super::{CliError, Result};
use crate::cancel::CancelToken;
use crate::evaluator::clock::Stopwatch;
use crate::evaluator::pipeline::Pipeline;
use crate::executor::{Denoise, Guidance};
use crate::files::ModelError;
use crate::models::block_model::{BlockModel, Conditioning};

/// Times of repeated denoising runs without the decoder, in milliseconds per image.
pub(super) struct Denoising {
    /// Each run with the schedule.
    pub(super) cached: Vec<f64>,
    /// Each uncached run: one before the first cached run, and one after each.
    pub(super) uncached: Vec<f64>,
    /// For each cached run, the parts that the schedule computes, as timed in the uncached runs before and after it
    /// (their mean).
    pub(super) parts: Vec<f64>,
}

/// The inputs of every run. Created once, because encoding the prompts loads the text encoder.
pub(super) struct Loop<'a> {
    pipeline: &'a Pipeline,
    conditioning: Conditioning,
    guidance: Guidance,
    noise: Tensor,
    images: usize,
}

impl<'a> Loop<'a> {
    /// Encodes the prompts of a calibration, which must all be equal and fit into one batch.
    pub(super) fn new(pipeline: &'a Pipeline, calibration: &Calibration) -> Result<Self> {
        let Calibration { prompts, sampling, .. } = calibration;
        let size = pipeline.latent_size(sampling.height, sampling.width)?;
        let guidance = pipeline.guidance(sampling.guidance_scale);
        let seeds: Vec<u64> = prompts.iter().map(|prompt| prompt.seed).collect();
        let texts = pipeline.encode(&[&prompts[0].text, &sampling.negative_prompt])?;
        let (wanted, unwanted) = (texts.repeated(0, seeds.len())?, texts.repeated(1, seeds.len())?);
        let conditioning = guidance.pair(&unwanted, &wanted, size).map_err(ModelError::from)?;
        let noise = pipeline.noise(&seeds, size)?;
        Ok(Self { pipeline, conditioning, guidance, noise, images: seeds.len() })
    }

    /// Times `repeats` runs with the schedule, each between two uncached runs.
    pub(super) fn time(&self, schedule: &Schedule, repeats: u32, cancel: &CancelToken) -> Result<Denoising> {
        let uncached = Schedule::all_compute(self.pipeline.layout().clone(), schedule.steps())
            .map_err(|e| CliError::new(e.to_string()))?;
        let per_image = |seconds: f64| 1e3 * seconds / self.images as f64;
        let mut times = Denoising { cached: Vec::new(), uncached: Vec::new(), parts: Vec::new() };
        let mut around = Vec::new();
        for turn in 0..=repeats {
            if turn > 0 {
                times.cached.push(per_image(self.run(self.pipeline.transformer(), schedule, cancel)?));
            }
            let watched = Watched::new(self.pipeline.transformer());
            let whole = self.run(&watched, &uncached, cancel)?;
            around.push(per_image(watched.parts().without_what_is_cached(whole, schedule)));
            times.uncached.push(per_image(whole));
        }
        times.parts = around.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        Ok(times)
    }

    /// Runs the loop once and returns its seconds.
    fn run(&self, model: &dyn BlockModel, schedule: &Schedule, cancel: &CancelToken) -> Result<f64> {
        let Self { conditioning, guidance, noise, .. } = self;
        let mut sampler = self.pipeline.sampler(schedule.steps(), conditioning.size)?;
        let denoise = Denoise { model, conditioning, guidance: *guidance, schedule, cancel };
        let stopwatch = Stopwatch::start();
        denoise.run(&mut *sampler, noise, &mut |_: u32, _: &Tensor| ())?;
        Ok(stopwatch.elapsed().as_secs_f64())
    }
}

impl Denoising {
    /// The overhead of caching for each cached run, as a fraction of the time of the parts that the schedule computes.
    pub(super) fn overheads(&self) -> impl Iterator<Item = f64> {
        self.cached.iter().zip(&self.parts).map(|(cached, parts)| cached / parts - 1.0)
    }
}

/// Writes a row for each schedule, or nothing without any.
pub(super) fn write_table(out: &mut dyn Write, rows: &[(&Denoising, &Schedule, &Measurement)]) -> Result<()> {
    let all: Vec<f64> = rows.iter().flat_map(|(d, ..)| d.overheads()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["computed", "denoising", "of the whole", "uncached", "its parts", "caching adds"]);
    for (d, schedule, measurement) in rows {
        let cached = median(&d.cached);
        table.row(vec![
            format!("{:.1} %", 100.0 * (1.0 - schedule.cache_hit_rate())),
            format!("{cached:.2}"),
            format!("{:.1} %", 100.0 * 1e3 * cached / median(&measurement.latency_us)),
            format!("{:.2}", median(&d.uncached)),
            format!("{:.2}", median(&d.parts)),
            format!("{:+.1} %", 100.0 * median(&d.overheads().collect::<Vec<_>>())),
        ]);
    }
    writeln!(
        out,
        "\ndenoising without the decoder, medians in ms per image; its parts: those that the schedule computes, as\n\
         timed in the uncached runs before and after it\n"
    )?;
    table.write(out)?;
    let count = all.len() as f64;
    let mean = all.iter().sum::<f64>() / count;
    let error = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0) / count).sqrt();
    writeln!(
        out,
        "\ncaching adds {:+.2} ± {:.2} % (mean of {count} runs, standard error)",
        100.0 * mean,
        100.0 * error
    )?;
    Ok(())
}
