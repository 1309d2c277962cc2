//! `score`: pictures in a folder by any metric, so that everyone can hold the metrics against other programs.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde_json::json;

use super::pictures::Folder;
use super::table::Table;
use super::{CliError, Result};
use crate::evaluator::device::DeviceChoice;
use crate::metrics::choice::MetricChoice;
use crate::metrics::{Against, Metric};

/// Score the pictures of a folder, by their prompts or against the pictures of another folder.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker score pictures --metric clip_score=clip-vit-base-patch32 --prompts-file prompts.txt
  evocache-worker score cached --reference uncached --metric psnr --metric ssim --metric lpips=lpips_alex.safetensors")]
pub struct Score {
    /// Folder of PNG pictures, taken in the order of their names
    #[arg(value_name = "DIR")]
    pictures: PathBuf,
    /// What to measure, such as ssim or clip_score=DIR; may be repeated
    #[arg(long = "metric", value_name = "NAME[=PATH]", required = true)]
    metrics: Vec<MetricChoice>,
    /// Prompts of the pictures, one a line
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Folder of the pictures to compare with, by the same names
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Pictures that are measured together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Where to run: cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The values of one metric.
struct Scored {
    name: String,
    unit: String,
    values: Vec<f64>,
}

impl Score {
    /// Runs the verb.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let pictures = Folder::open(&self.pictures)?;
        let prompts = self.prompts_file.as_deref().map(|file| prompts(file, pictures.len())).transpose()?;
        let reference = self.reference.as_deref().map(|folder| pictures.counterpart(folder)).transpose()?;
        let device = self.device.open()?;
        let mut scored = Vec::new();
        for choice in &self.metrics {
            let metric = choice.load(&device)?;
            let (name, unit) = (metric.declaration().name, metric.declaration().unit);
            let values = self.measure(metric, &pictures, prompts.as_deref(), reference.as_ref())?;
            scored.push(Scored { name, unit, values });
        }
        if self.json { write_json(out, &pictures, &scored) } else { write_table(out, &pictures, &scored) }
    }

    /// Batch by batch, so that any number of pictures fits into memory.
    fn measure(
        &self,
        mut metric: Box<dyn Metric>,
        pictures: &Folder,
        prompts: Option<&[String]>,
        reference: Option<&Folder>,
    ) -> Result<Vec<f64>> {
        let name = metric.declaration().name;
        match metric.against() {
            Against::Text if prompts.is_none() => {
                return Err(CliError::new(format!("{name} scores pictures by their prompts"))
                    .hint("give them with --prompts-file FILE, one a line, in the order of the pictures' names"));
            }
            Against::Uncached if reference.is_none() => {
                return Err(CliError::new(format!("{name} compares pictures with others"))
                    .hint("give the folder of the others with --reference DIR"));
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(pictures.len());
        for batch in pictures.batches(self.batch as usize) {
            let texts: Vec<&str> =
                prompts.map_or(Vec::new(), |all| all[batch.clone()].iter().map(String::as_str).collect());
            let other: Vec<Tensor> =
                reference.map(|other| other.read(batch.clone())).transpose()?.into_iter().collect();
            metric.prepare(&texts, &other)?;
            values.extend(metric.measure(0, &pictures.read(batch)?)?);
        }
        Ok(values)
    }
}

/// The prompts of a file, which must be as many as pictures.
fn prompts(file: &Path, pictures: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| CliError::new(format!("cannot read prompts '{}': {e}", file.display())))?;
    let prompts: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if prompts.len() != pictures {
        return Err(CliError::new(format!("'{}' has {} lines for {pictures} pictures", file.display(), prompts.len()))
            .hint("line N is the prompt of the Nth picture in the order of names"));
    }
    Ok(prompts)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn write_json(out: &mut dyn Write, pictures: &Folder, scored: &[Scored]) -> Result<()> {
    let metrics: serde_json::Map<String, serde_json::Value> = scored
        .iter()
        .map(|s| (s.name.clone(), json!({"unit": s.unit, "mean": mean(&s.values), "values": s.values})))
        .collect();
    writeln!(out, "{:#}", json!({"pictures": pictures.names(), "metrics": metrics}))?;
    Ok(())
}

fn write_table(out: &mut dyn Write, pictures: &Folder, scored: &[Scored]) -> Result<()> {
    let heads: Vec<&str> = std::iter::once("picture").chain(scored.iter().map(|s| s.name.as_str())).collect();
    let mut table = Table::new(&heads);
    let row = |first: &str, of: &dyn Fn(&Scored) -> f64| {
        std::iter::once(first.to_owned()).chain(scored.iter().map(|s| format!("{:.6}", of(s)))).collect()
    };
    for (i, name) in pictures.names().iter().enumerate() {
        table.row(row(name, &|s| s.values[i]));
    }
    table.row(row("mean", &|s| mean(&s.values)));
    table.write(out)?;
    Ok(())
}
