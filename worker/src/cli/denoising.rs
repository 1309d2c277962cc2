//! The loop over the steps alone, timed beside the uncached one, and what caching adds to what it computes.

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

/// The loop over the steps, without the decoder, timed several times.
pub(super) struct Denoising {
    /// Milliseconds per image of each run by the schedule, and of the uncached ones around them.
    pub(super) cached: Vec<f64>,
    pub(super) uncached: Vec<f64>,
    /// What the two uncached runs around each took, on average, for that which the schedule computes.
    pub(super) parts: Vec<f64>,
}

/// What every run begins with. Made once: texts are encoded for it, which loads the text encoder.
pub(super) struct Loop<'a> {
    pipeline: &'a Pipeline,
    conditioning: Conditioning,
    guidance: Guidance,
    noise: Tensor,
    images: usize,
}

impl<'a> Loop<'a> {
    /// Of a calibration whose prompts are all the same and make one batch.
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

    /// Uncached runs and `repeats` by the schedule in turn.
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

    /// Seconds of one run.
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
    /// What caching costs, relative to what is computed: one value for each run by the schedule.
    pub(super) fn overheads(&self) -> impl Iterator<Item = f64> {
        self.cached.iter().zip(&self.parts).map(|(cached, parts)| cached / parts - 1.0)
    }
}

/// A row for each schedule; nothing where none was measured.
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
        "\ndenoising alone, without the decoder, medians in ms per image; its parts: what the uncached runs around it took\n\
         for that which the schedule computes\n"
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
