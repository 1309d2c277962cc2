//! `bench`: measured latency against counted MACs, for ten schedules over the whole range of densities.

use std::io::Write;

use clap::Args;
use evocache_proto::domain::{
    Calibration, Decision, Layout, Measurement, MeasurementPlan, Prompt, Sampling, Schedule, median,
};
use serde_json::json;
use std::sync::Arc;

use super::denoising::{self, Denoising, Loop};
use super::fit::{Line, line};
use super::model::ModelArgs;
use super::sampler::{SamplerArgs, guidance};
use super::table::{Table, count};
use super::{CliError, Result};
use crate::cancel::CancelToken;
use crate::evaluator::api::{Evaluate, Task};
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::{DiffusionEvaluator, EvaluatorOptions};

/// Number of schedules to measure.
const SCHEDULES: u32 = 10;

/// Measure latency against MACs for ten schedules, and the fixed part that no schedule can save
#[derive(Debug, Clone, Args)]
pub struct Bench {
    /// The model to load.
    #[command(flatten)]
    model: ModelArgs,
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Pictures per batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Denoising steps [default: the number of --timesteps or --sigmas, or 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Overrides of the folder's sampler settings.
    #[command(flatten)]
    sampler: SamplerArgs,
    /// Classifier-free guidance scale; 1 or less turns it off
    #[arg(long, default_value_t = 4.5, value_parser = guidance)]
    guidance: f64,
    /// Height in pixels [default: the model's native height]
    #[arg(long)]
    height: Option<u32>,
    /// Width in pixels [default: the model's native width]
    #[arg(long)]
    width: Option<u32>,
    /// Timed batches per schedule, interleaved with as many uncached batches
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Text prompt
    #[arg(long, default_value = "a picture")]
    prompt: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

struct Point {
    schedule: Schedule,
    measurement: Measurement,
    /// `None` except on the CPU: on other devices a call returns before the work is done.
    denoising: Option<Denoising>,
}

impl Bench {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let mut evaluator = DiffusionEvaluator::open(&EvaluatorOptions {
            model: self.model.folder()?,
            model_name: None,
            worker_name: "bench".into(),
            labels: Default::default(),
            memory_bytes: 0,
            device: self.device,
            precision: self.model.precision(self.device),
            clip: None,
            metrics: Vec::new(),
            vae_tiling: self.model.vae_tiling,
            texts: self.model.texts(),
            samplers: self.sampler.options(),
            memory: self.model.memory,
        })?;
        let cancel = CancelToken::new();
        evaluator.prepare(&self.calibration(), &cancel)?;
        let layout = evaluator.pipeline().layout().clone();
        let mut points = Vec::new();
        for i in 1..=SCHEDULES {
            let schedule = spread(&layout, self.steps(), f64::from(i) / f64::from(SCHEDULES))?;
            let measurement = evaluator.evaluate(Task::whole(&schedule), &cancel)?;
            points.push(Point { schedule, measurement, denoising: None });
        }
        if self.device == DeviceChoice::Cpu {
            let denoising = Loop::new(evaluator.pipeline(), &self.calibration())?;
            for point in &mut points {
                point.denoising = Some(denoising.time(&point.schedule, self.repeats, &cancel)?);
            }
        }
        let fit =
            line(&points.iter().map(|p| (p.measurement.macs as f64, p.measurement.latency())).collect::<Vec<_>>());
        let device = evaluator.declaration().device;
        if self.json {
            write_json(out, &device, &points, fit)?;
        } else {
            self.write_table(out, &device, &points, fit)?;
        }
        Ok(())
    }

    fn steps(&self) -> u32 {
        self.steps.unwrap_or_else(|| self.sampler.steps())
    }

    fn calibration(&self) -> Calibration {
        Calibration {
            prompts: (0..u64::from(self.batch)).map(|seed| Prompt { text: self.prompt.clone(), seed }).collect(),
            sampling: Sampling {
                steps: vec![self.steps()],
                guidance_scale: self.guidance,
                height: self.height,
                width: self.width,
                negative_prompt: String::new(),
                grids: vec![],
            },
            plan: MeasurementPlan { batch: self.batch, warmup: 1, repeats: self.repeats, thumbnails: 0 },
        }
    }

    fn write_table(&self, out: &mut dyn Write, device: &str, points: &[Point], fit: Option<Line>) -> Result<()> {
        writeln!(
            out,
            "{device}: batch {}, {} steps, {} timed batches per schedule and as many uncached ones; ms per image\n",
            self.batch,
            self.steps(),
            self.repeats
        )?;
        let mut table = Table::new(&[
            "computed",
            "MACs",
            "of uncached",
            "median",
            "min",
            "max",
            "uncached",
            "min",
            "max",
            "of uncached",
            "off",
        ]);
        let ms = |us: f64| format!("{:.2}", us / 1e3);
        for Point { schedule, measurement: m, .. } in points {
            let (low, high) = range(&m.latency_us);
            let (base_low, base_high) = range(&m.baseline_latency_us);
            table.row(vec![
                format!("{:.1} %", 100.0 * (1.0 - schedule.cache_hit_rate())),
                count(m.macs),
                format!("{:.1} %", 100.0 * m.macs as f64 / m.baseline_macs as f64),
                ms(median(&m.latency_us)),
                ms(low),
                ms(high),
                ms(median(&m.baseline_latency_us)),
                ms(base_low),
                ms(base_high),
                format!("{:.1} %", 100.0 * m.latency_ratio()),
                fit.map_or_else(String::new, |fit| format!("{:+.1} %", 100.0 * off(m, fit))),
            ]);
        }
        table.write(out)?;
        let baseline = points.iter().map(|p| p.measurement.baseline_latency()).fold(f64::INFINITY, f64::min);
        if let Some(fit) = fit {
            writeln!(
                out,
                "\nlatency = {:.2} ms + {:.3} ms per GMAC (R² {:.4}); the fixed part is {:.1} % of {:.2} ms uncached",
                fit.fixed / 1e3,
                fit.slope * 1e9 / 1e3,
                fit.r_squared,
                100.0 * fit.fixed / baseline,
                baseline / 1e3
            )?;
            let worst = points.iter().map(|p| off(&p.measurement, fit).abs()).fold(0.0, f64::max);
            writeln!(out, "no schedule deviates from that line by more than {:.1} %", 100.0 * worst)?;
        }
        let denoising: Vec<_> =
            points.iter().filter_map(|p| Some((p.denoising.as_ref()?, &p.schedule, &p.measurement))).collect();
        denoising::write_table(out, &denoising)
    }
}

/// A schedule's deviation from the fitted latency, as a fraction of the latter.
fn off(measurement: &Measurement, fit: Line) -> f64 {
    measurement.latency() / (fit.fixed + fit.slope * measurement.macs as f64) - 1.0
}

fn write_json(out: &mut dyn Write, device: &str, points: &[Point], fit: Option<Line>) -> Result<()> {
    let rows: Vec<_> = points
        .iter()
        .map(|Point { schedule, measurement: m, denoising }| {
            let denoising =
                denoising.as_ref().map(|d| json!({"ms": d.cached, "uncached_ms": d.uncached, "parts_ms": d.parts}));
            json!({
                "schedule": schedule.id().to_string(),
                "computed": 1.0 - schedule.cache_hit_rate(),
                "macs": m.macs,
                "baseline_macs": m.baseline_macs,
                "peak_cache_bytes": m.peak_cache_bytes,
                "latency_us": m.latency_us,
                "baseline_latency_us": m.baseline_latency_us,
                "denoising": denoising,
            })
        })
        .collect();
    let fit = fit.map(|fit| json!({"fixed_us": fit.fixed, "us_per_mac": fit.slope, "r_squared": fit.r_squared}));
    writeln!(out, "{:#}", json!({"device": device, "schedules": rows, "fit": fit}))?;
    Ok(())
}

fn range(samples: &[f64]) -> (f64, f64) {
    samples.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

/// A schedule that computes a fraction of about `density` of all slots, evenly over the steps, each slot with its own
/// phase.
fn spread(layout: &Arc<Layout>, steps: u32, density: f64) -> Result<Schedule> {
    let slots = layout.slots();
    Schedule::from_fn(layout.clone(), steps, |step, slot| {
        let at = |step: u32| (f64::from(step) * density + slot as f64 / slots as f64).floor();
        if at(step) > at(step - 1) { Decision::Compute } else { Decision::Reuse }
    })
    .map_err(|e| CliError::new(e.to_string()))
}
