//! `score`: measures any metric on folders of pictures, so that the metrics can be compared with other programs.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde_json::json;

use super::pictures::Folder;
use super::table::Table;
use super::{CliError, Result, prompts};
use crate::evaluator::device::DeviceChoice;
use crate::metrics::choice::MetricChoice;
use crate::metrics::{Against, Metric, Set, SetMetric};

/// Score the pictures of a folder against their prompts or against the pictures of another folder
///
/// Needs one prompt per picture, or a picture of the same name in the reference folder. For metrics of whole sets (fid,
/// cmmd) the reference folder may have any pictures.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker score pictures --metric clip_score=clip-vit-base-patch32 --prompts-file prompts.txt
  evocache-worker score cached --reference uncached --metric psnr --metric ssim --metric lpips=lpips_alex.safetensors
  evocache-worker score cached --reference photographs --metric fid=inception.safetensors --metric cmmd=clip-vit-large-patch14-336")]
pub struct Score {
    /// Folder of PNG pictures, read in the order of their names
    #[arg(value_name = "DIR")]
    pictures: PathBuf,
    /// Metric to measure, such as ssim or clip_score=DIR; may be repeated
    #[arg(long = "metric", value_name = "NAME[=PATH]", required = true)]
    metrics: Vec<MetricChoice>,
    /// File with the pictures' prompts, one per line
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Folder of the pictures to compare with
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Pictures per batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Device to run on: cpu, cuda, cuda:N or metal
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
    /// One value per picture, or one for the whole set.
    values: Vec<f64>,
    of_set: bool,
}

impl Score {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let pictures = Folder::open(&self.pictures)?;
        let prompts = self.prompts_file.as_deref().map(|file| prompts_of(file, pictures.len())).transpose()?;
        let device = self.device.open()?;
        let mut scored = Vec::new();
        for choice in &self.metrics {
            let (declaration, values) = if choice.is_of_sets() {
                let metric = choice.load_of_sets(&device)?;
                (metric.declaration(), vec![self.compare(metric, &pictures)?])
            } else {
                let metric = choice.load(&device)?;
                (metric.declaration(), self.measure(metric, &pictures, prompts.as_deref())?)
            };
            let of_set = choice.is_of_sets();
            scored.push(Scored { name: declaration.name, unit: declaration.unit, values, of_set });
        }
        if self.json { write_json(out, &pictures, &scored) } else { write_table(out, &pictures, &scored) }
    }

    /// The folder to compare with, or an error that `metric` needs one.
    fn reference(&self, metric: &str) -> Result<&Path> {
        self.reference.as_deref().ok_or_else(|| {
            CliError::new(format!("{metric} compares pictures with reference pictures"))
                .hint("give the folder of the reference pictures with --reference DIR")
        })
    }

    /// Measures a metric of two whole sets, batch by batch.
    fn compare(&self, mut metric: Box<dyn SetMetric>, pictures: &Folder) -> Result<f64> {
        let reference = Folder::open(self.reference(&metric.declaration().name)?)?;
        for (set, folder) in [(Set::Scored, pictures), (Set::Reference, &reference)] {
            for batch in folder.batches(self.batch as usize) {
                metric.add(set, &folder.read(batch)?)?;
            }
        }
        Ok(metric.value()?)
    }

    /// Measures a metric of single pictures, batch by batch, so that any number of pictures fits into memory.
    fn measure(&self, mut metric: Box<dyn Metric>, pictures: &Folder, prompts: Option<&[String]>) -> Result<Vec<f64>> {
        let name = metric.declaration().name;
        let reference = match metric.against() {
            Against::Text if prompts.is_none() => {
                return Err(CliError::new(format!("{name} scores pictures against their prompts"))
                    .hint("give the prompts with --prompts-file FILE, one per line, in the order of picture names"));
            }
            Against::Text => None,
            Against::Uncached => Some(pictures.counterpart(self.reference(&name)?)?),
        };
        let mut values = Vec::with_capacity(pictures.len());
        for batch in pictures.batches(self.batch as usize) {
            let texts: Vec<&str> =
                prompts.map_or(Vec::new(), |all| all[batch.clone()].iter().map(String::as_str).collect());
            let other: Vec<Tensor> =
                reference.as_ref().map(|other| other.read(batch.clone())).transpose()?.into_iter().collect();
            metric.prepare(&texts, &other)?;
            values.extend(metric.measure(0, &pictures.read(batch)?)?);
        }
        Ok(values)
    }
}

/// Reads the prompts of a file, whose number must equal that of the pictures.
fn prompts_of(file: &Path, pictures: usize) -> Result<Vec<String>> {
    let prompts = prompts::read(file)?;
    if prompts.len() != pictures {
        return Err(CliError::new(format!(
            "'{}' has {} prompts for {pictures} pictures",
            file.display(),
            prompts.len()
        ))
        .hint("give one prompt per picture, in the order of picture names"));
    }
    Ok(prompts)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn write_json(out: &mut dyn Write, pictures: &Folder, scored: &[Scored]) -> Result<()> {
    let metrics: serde_json::Map<String, serde_json::Value> = scored
        .iter()
        .map(|s| {
            let value = match s.of_set {
                true => json!({"unit": s.unit, "value": s.values[0]}),
                false => json!({"unit": s.unit, "mean": mean(&s.values), "values": s.values}),
            };
            (s.name.clone(), value)
        })
        .collect();
    writeln!(out, "{:#}", json!({"pictures": pictures.names(), "metrics": metrics}))?;
    Ok(())
}

/// Writes a row for each picture, their means, and the metrics of the whole set.
fn write_table(out: &mut dyn Write, pictures: &Folder, scored: &[Scored]) -> Result<()> {
    let (of_sets, each): (Vec<&Scored>, Vec<&Scored>) = scored.iter().partition(|s| s.of_set);
    let row = |first: &str, of: &dyn Fn(&Scored) -> f64| {
        std::iter::once(first.to_owned()).chain(each.iter().map(|s| format!("{:.6}", of(s)))).collect()
    };
    if !each.is_empty() {
        let heads: Vec<&str> = std::iter::once("picture").chain(each.iter().map(|s| s.name.as_str())).collect();
        let mut table = Table::new(&heads);
        for (i, name) in pictures.names().iter().enumerate() {
            table.row(row(name, &|s| s.values[i]));
        }
        table.row(row("mean", &|s| mean(&s.values)));
        table.write(out)?;
    }
    if !of_sets.is_empty() {
        let mut table = Table::new(&["set", "value"]);
        for s in of_sets {
            table.row(vec![s.name.clone(), format!("{:.6}", s.values[0])]);
        }
        table.write(out)?;
    }
    Ok(())
}
