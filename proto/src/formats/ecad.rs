//! ECAD's schedule format (arXiv 2506.15682, `cache_schedule`): a boolean per step, block and component,
//! `true` = recompute. PixArt blocks are `"0"`, `"1"`, … with `attn1`, `attn2`, `ff`; FLUX has double blocks `"0"`, …
//! with `full_attn`, `full_ff`, `full_ff_context` and single blocks `"single_0"`, … with `single_attn`,
//! `single_proj_mlp`, `single_proj_out`.
//!
//! It has no forecast: a schedule that forecasts cannot be written.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::FormatError;
use crate::domain::{Decision, Layout, Schedule, Slot};
use crate::text;

/// Writes a PixArt or FLUX schedule.
pub fn write(schedule: &Schedule, name: &str) -> Result<String, FormatError> {
    let layout = schedule.layout();
    let family = Family::of(layout)?;
    let forecasts = schedule.decisions().filter(|&d| d == Decision::Forecast).count();
    if forecasts > 0 {
        return Err(FormatError::Inexpressible(format!(
            "ECAD's format knows recompute and reuse only; the schedule has {forecasts} forecasts"
        )));
    }
    let mut steps = Map::new();
    for step in 0..schedule.steps() {
        let mut blocks = Map::new();
        for slot in 0..schedule.slots() {
            let (block, component) = family.keys(layout.slot(slot));
            let entry = blocks.entry(block).or_insert_with(|| json!({}));
            entry[component] = Value::Bool(schedule.decision(step, slot) == Decision::Compute);
        }
        steps.insert(format!("{step:03}"), Value::Object(blocks));
    }
    let mut cache_schedule = Map::new();
    cache_schedule.insert("name".into(), name.into());
    cache_schedule.insert("num_blocks".into(), layout.groups()[0].count.into());
    if let Family::Flux { .. } = family {
        cache_schedule.insert("num_single_blocks".into(), layout.groups()[1].count.into());
    }
    cache_schedule.insert("num_inference_steps".into(), schedule.steps().into());
    cache_schedule.insert("attributes".into(), json!({}));
    cache_schedule.insert("schedule".into(), Value::Object(steps));
    Ok(format!("{}\n", text::json(&json!({ "cache_schedule": cache_schedule }).to_string())))
}

/// Reads a PixArt or FLUX schedule; the layout follows from its block counts.
pub fn read(text: &str) -> Result<Schedule, FormatError> {
    let json: Value = serde_json::from_str(text).map_err(|e| FormatError::Json(e.to_string()))?;
    from_json(&json)
}

pub(super) fn from_json(json: &Value) -> Result<Schedule, FormatError> {
    let file = &json["cache_schedule"];
    let count = |field: &str| {
        let number = file[field].as_u64().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| FormatError::field(format!("cache_schedule.{field}"), "must be a positive number"))
    };
    let blocks = count("num_blocks")?;
    let steps = count("num_inference_steps")?;
    let family = match file.get("num_single_blocks") {
        None | Some(Value::Null) => Family::PixArt,
        Some(_) => Family::Flux { singles: count("num_single_blocks")? },
    };
    let layout = family.layout(blocks).map_err(|e| FormatError::field("cache_schedule.num_blocks", e))?;
    let layout = Arc::new(layout);
    let mut wrong = None;
    let schedule = Schedule::from_fn(layout.clone(), steps, |step, slot| {
        let (block, component) = family.keys(layout.slot(slot));
        match file["schedule"][format!("{step:03}")][&block][component].as_bool() {
            Some(true) => Decision::Compute,
            Some(false) => Decision::Reuse,
            None => {
                wrong.get_or_insert_with(|| format!("cache_schedule.schedule.{step:03}.{block}.{component}"));
                Decision::Compute
            }
        }
    });
    if let Some(field) = wrong {
        return Err(FormatError::field(field, "must be true or false"));
    }
    schedule.map_err(|e| FormatError::field("cache_schedule.num_inference_steps", e))
}

#[derive(Clone, Copy)]
enum Family {
    PixArt,
    Flux { singles: u32 },
}

const PIXART: [&str; 3] = ["attn1", "attn2", "ff"];
const DOUBLE: [&str; 3] = ["full_attn", "full_ff", "full_ff_context"];
const SINGLE: [&str; 3] = ["single_attn", "single_proj_mlp", "single_proj_out"];

impl Family {
    fn of(layout: &Layout) -> Result<Self, FormatError> {
        let counts: Vec<u32> = layout.groups().iter().map(|g| g.count).collect();
        let families = match counts[..] {
            [blocks] => vec![(Self::PixArt, blocks)],
            [doubles, singles] => vec![(Self::Flux { singles }, doubles)],
            _ => vec![],
        };
        families
            .into_iter()
            .find(|&(family, blocks)| family.layout(blocks).is_ok_and(|own| own == *layout))
            .map(|(family, _)| family)
            .ok_or_else(|| {
                FormatError::Inexpressible(format!("ECAD's format knows PixArt and FLUX models only, not {layout}"))
            })
    }

    fn layout(self, blocks: u32) -> Result<Layout, crate::domain::LayoutError> {
        match self {
            Self::PixArt => Layout::pixart(blocks),
            Self::Flux { singles } => Layout::flux(blocks, singles),
        }
    }

    fn keys(self, slot: Slot) -> (String, &'static str) {
        match (self, slot.group) {
            (Self::PixArt, _) => (slot.block.to_string(), PIXART[slot.component]),
            (Self::Flux { .. }, 0) => (slot.block.to_string(), DOUBLE[slot.component]),
            (Self::Flux { .. }, _) => (format!("single_{}", slot.block), SINGLE[slot.component]),
        }
    }
}
