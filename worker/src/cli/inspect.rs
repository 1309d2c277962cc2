//! `inspect`: a model folder's contents, slots and costs.

use std::io::Write;

use clap::Args;
use evocache_proto::domain::{CostModel, Schedule};
use serde_json::json;

use super::model::ModelArgs;
use super::table::{Table, bytes, count};
use super::{CliError, Result};
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::Pipeline;

/// Show a model's class, slots, parameters, memory and costs per component
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The model to load.
    #[command(flatten)]
    model: ModelArgs,
    /// Height in pixels [default: the model's native height]
    #[arg(long)]
    height: Option<u32>,
    /// Width in pixels [default: the model's native width]
    #[arg(long)]
    width: Option<u32>,
    /// Denoising steps of the run to count
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Count without classifier-free guidance
    #[arg(long)]
    no_guidance: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One component of one block group.
struct Row {
    name: String,
    blocks: u32,
    macs: u64,
    cache_bytes: u64,
}

impl Inspect {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let pipeline = self.model.load(DeviceChoice::Cpu)?;
        let guidance = pipeline.guidance(if self.no_guidance { 1.0 } else { 2.0 });
        let size = pipeline.latent_size(self.height, self.width)?;
        let cost = pipeline.cost(size, guidance);
        let schedule =
            Schedule::all_compute(pipeline.layout().clone(), self.steps).map_err(|e| CliError::new(e.to_string()))?;
        let memory = pipeline.memory(size, guidance);
        let (rows, total) = (rows(&pipeline, &cost), schedule.macs(&cost));
        let (height, width) = (size.height * size.scale, size.width * size.scale);
        let parameters =
            [("transformer", pipeline.transformer().weight_size()), ("vae decoder", pipeline.vae().weight_size())]
                .map(|(part, size)| (part, size.parameters));
        let fingerprint = pipeline.folder().fingerprint()?.to_string();
        if self.json {
            let components: Vec<_> = rows
                .iter()
                .map(|row| json!({"component": row.name, "blocks": row.blocks, "macs": row.macs, "cache_bytes": row.cache_bytes}))
                .collect();
            let value = json!({
                "model": pipeline.folder().name(),
                "pipeline": pipeline.folder().pipeline(),
                "fingerprint": fingerprint,
                "layout": pipeline.layout().to_string(),
                "slots": pipeline.layout().slots(),
                "height": height,
                "width": width,
                "tokens": pipeline.tokens(),
                "guidance": guidance.is_on(),
                "parameters": {"transformer": parameters[0].1, "vae_decoder": parameters[1].1},
                "components": components,
                "step_macs": cost.step_macs,
                "image_macs": cost.image_macs,
                "memory": {
                    "weights": memory.weights,
                    "denoising": memory.uncached(),
                    "decoding": memory.decoding,
                },
                "steps": self.steps,
                "total_macs": total,
            });
            writeln!(out, "{value:#}")?;
            return Ok(());
        }
        let guided = if guidance.is_on() { "with guidance" } else { "without guidance" };
        writeln!(out, "model        {} ({})", pipeline.folder().name(), pipeline.folder().pipeline())?;
        writeln!(out, "fingerprint  {fingerprint}")?;
        writeln!(out, "layout       {} = {} slots", pipeline.layout(), pipeline.layout().slots())?;
        writeln!(out, "picture      {height}x{width} pixels, {} text tokens, {guided}", pipeline.tokens())?;
        for (part, parameters) in parameters {
            writeln!(out, "parameters   {} in the {part}", count(parameters))?;
        }
        writeln!(
            out,
            "memory       {} for weights, plus {} to denoise or {} to decode one picture",
            bytes(memory.weights),
            bytes(memory.uncached()),
            bytes(memory.decoding)
        )?;
        writeln!(out)?;
        let mut table = Table::new(&["per image", "blocks", "MACs each", "MACs per step", "stored output"]);
        for row in &rows {
            table.row(vec![
                row.name.clone(),
                row.blocks.to_string(),
                count(row.macs),
                count(row.macs * u64::from(row.blocks)),
                bytes(row.cache_bytes),
            ]);
        }
        let blank = String::new;
        table.row(vec!["fixed per step".into(), blank(), blank(), count(cost.step_macs), blank()]);
        table.row(vec!["fixed per image".into(), blank(), count(cost.image_macs), blank(), blank()]);
        table.row(vec![format!("{} steps, all computed", self.steps), blank(), count(total), blank(), blank()]);
        table.write(out)?;
        Ok(())
    }
}

/// A row per component of each block group, with the costs of the group's first block, which all blocks share.
fn rows(pipeline: &Pipeline, cost: &CostModel) -> Vec<Row> {
    let layout = pipeline.layout();
    (0..layout.slots())
        .filter(|&index| layout.slot(index).block == 0)
        .map(|index| {
            let slot = layout.slot(index);
            let group = &layout.groups()[slot.group];
            Row {
                name: format!("{}.{}", group.name, group.components[slot.component].name),
                blocks: group.count,
                macs: cost.slot_macs[index],
                cache_bytes: cost.slot_cache_bytes[index],
            }
        })
        .collect()
}
