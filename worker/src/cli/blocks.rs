//! `blocks`: the time of one block of each kind of each model, at its true width.

use std::io::Write;

use clap::Args;
use evocache_proto::domain::median;
use serde_json::json;

use super::Result;
use super::table::Table;
use crate::evaluator::clock::Stopwatch;
use crate::evaluator::device::{DeviceChoice, Precision};
use crate::files::ModelError;
use crate::models::true_widths::{MODELS, TrueWidth, decoder};

/// Name of the decoder in the output.
const DECODER: &str = "vae-512";

/// The timestep to run at; its value does not affect the time.
const TIMESTEP: f64 = 500.0;

/// Time one block of each kind of every model, and a decoder, with random weights at true width
///
/// Needs no model folder. Synchronizes with the device after every component, so that each time covers one component.
/// Set the number of CPU threads with the variable RAYON_NUM_THREADS.
#[derive(Debug, Clone, Args)]
pub struct Blocks {
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Number format: f32, f16 or bf16 [default: bf16 on CUDA, f32 elsewhere]
    #[arg(long)]
    precision: Option<Precision>,
    /// Only models whose name contains PART
    #[arg(long, value_name = "PART", default_value = "")]
    model: String,
    /// Number of timed runs; the table shows their median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The times of one component in milliseconds.
struct Row {
    model: &'static str,
    block: String,
    component: String,
    times: Vec<f64>,
}

impl Blocks {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let precision = self.precision.unwrap_or_else(|| Precision::native(self.device));
        let mut rows = vec![];
        for model in MODELS.iter().filter(|model| model.name.contains(&self.model)) {
            rows.extend(self.time(model, precision)?);
        }
        if DECODER.contains(&self.model) {
            rows.push(self.time_decoder()?);
        }
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| json!({"model": row.model, "block": row.block, "component": row.component, "ms": row.times}))
                .collect();
            writeln!(
                out,
                "{:#}",
                json!({"device": self.device.describe(), "precision": precision.to_string(), "rows": rows})
            )?;
            return Ok(());
        }
        writeln!(out, "{}: {precision}, one picture, median of {} in ms\n", self.device.describe(), self.repeats)?;
        let mut table = Table::new(&["model", "block", "component", "ms"]);
        for row in &rows {
            let ms = format!("{:.3}", median(&row.times));
            table.row(vec![row.model.into(), row.block.clone(), row.component.clone(), ms]);
        }
        table.write(out)?;
        Ok(())
    }

    /// Times the decoder, which always computes in f32.
    fn time_decoder(&self) -> Result<Row> {
        let device = self.device.open()?;
        let (decoder, latents) = decoder(&device)?;
        let mut times = vec![];
        for run in 0..=self.repeats {
            let stopwatch = Stopwatch::start();
            decoder.decode(&latents)?;
            device.synchronize().map_err(ModelError::from)?;
            if run > 0 {
                times.push(stopwatch.elapsed().as_secs_f64() * 1e3);
            }
        }
        Ok(Row { model: DECODER, block: "f32".into(), component: "decode".into(), times })
    }

    fn time(&self, model: &TrueWidth, precision: Precision) -> Result<Vec<Row>> {
        let device = self.device.open()?;
        let dtype = precision.dtype();
        let transformer = model.load(&device, dtype)?;
        let (latents, conditioning) = model.inputs(&*transformer, &device)?;
        let bound = transformer.condition(&conditioning)?;
        let layout = transformer.layout();
        let mut rows: Vec<Row> = (0..layout.slots())
            .map(|index| {
                let slot = layout.slot(index);
                let group = &layout.groups()[slot.group];
                let component = group.components[slot.component].name.clone();
                Row { model: model.name, block: group.name.clone(), component, times: vec![] }
            })
            .collect();
        // The first run is a warm-up.
        for run in 0..=self.repeats {
            let mut state = bound.prepare(&latents, TIMESTEP)?;
            device.synchronize().map_err(ModelError::from)?;
            for (index, row) in rows.iter_mut().enumerate() {
                let slot = layout.slot(index);
                let stopwatch = Stopwatch::start();
                let output = state.run(slot)?;
                state.combine(slot, &output)?;
                device.synchronize().map_err(ModelError::from)?;
                if run > 0 {
                    row.times.push(stopwatch.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        Ok(rows)
    }
}
