//! ECAD's schedule format (arXiv 2506.15682, `cache_schedule`): a boolean per step, block and component,
//! `true` = recompute. PixArt blocks are `"0"`, `"1"`, … with `attn1`, `attn2`, `ff`; FLUX has double blocks `"0"`, …
//! with `full_attn`, `full_ff`, `full_ff_context` and single blocks `"single_0"`, … with `single_attn`,
//! `single_proj_mlp`, `single_proj_out`.
//!
//! The format has no forecasts, so a schedule with forecasts cannot be written. Files that need more of ECAD's code
//! than recompute and reuse (functions in place of a component, T-GATE's pipeline) are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::common::{FormatError, Read};
use crate::domain::{Decision, Layout, Schedule, Slot};
use crate::text;

/// Writes a PixArt or FLUX schedule.
pub fn write(schedule: &Schedule, name: &str) -> Result<String, FormatError> {
    let layout = schedule.layout();
    let family = Family::of(layout)?;
    let forecasts = schedule.decisions().filter(|&d| d == Decision::Forecast).count();
    if forecasts > 0 {
        return Err(FormatError::Inexpressible(format!(
            "ECAD's format has recompute and reuse only; the schedule has {forecasts} forecasts"
        )));
    }
    if schedule.decides_guidance() {
        let without = 2 * schedule.steps() - schedule.passes();
        return Err(FormatError::Inexpressible(format!(
            "ECAD's format has no guidance decisions; the schedule leaves out the unconditional pass of {without} steps"
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

/// Reads a PixArt or FLUX schedule. The layout follows from the block counts. Refuses everything but recompute and
/// reuse.
pub fn read(text: &str) -> Result<Schedule, FormatError> {
    let json: Value = serde_json::from_str(text).map_err(|e| FormatError::Json(e.to_string()))?;
    from_json(&json).map(|read| read.schedule)
}

/// Fields of the file and of `cache_schedule` that do not affect what is computed.
const REMARKS: [&str; 2] = ["metrics", "attributes"];
/// Settings that a schedule was made with and that do not affect what it computes; see [`Read::made_with`].
const SETTINGS: [&str; 4] = ["height", "width", "guidance_scale", "weights"];
/// Functions that replace the computation of a component. Only ECAD's own code can run them.
const FUNCTIONS: [&str; 2] = ["custom_compute_attn", "custom_compute_ff"];

pub(super) fn from_json(json: &Value) -> Result<Read, FormatError> {
    let made_with = settings(json)?;
    let file = &json["cache_schedule"];
    let known = ["name", "num_blocks", "num_single_blocks", "num_inference_steps", "schedule"];
    if let Some((field, _)) = entries(file).find(|(field, _)| !known.contains(field) && !REMARKS.contains(field)) {
        return Err(FormatError::field(format!("cache_schedule.{field}"), "is not a field of this format"));
    }
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
    let by_step = by_step(&file["schedule"], steps)?;
    for (&step, (name, decisions)) in &by_step {
        check_blocks(family, &layout, decisions, &format!("cache_schedule.schedule.{name}"), step)?;
    }
    let mut wrong = None;
    let schedule = Schedule::from_fn(layout.clone(), steps, |step, slot| {
        let (block, component) = family.keys(layout.slot(slot));
        match by_step.get(&step).and_then(|(_, decisions)| decisions[&block][component].as_bool()) {
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
    let schedule = schedule.map_err(|e| FormatError::field("cache_schedule.num_inference_steps", e))?;
    Ok(Read { schedule, made_with, grid: None })
}

fn entries(json: &Value) -> impl Iterator<Item = (&str, &Value)> {
    json.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// Reads the fields beside `cache_schedule`. Returns the settings; refuses another pipeline.
fn settings(json: &Value) -> Result<Vec<(String, String)>, FormatError> {
    let mut made_with = vec![];
    for (field, value) in entries(json).filter(|(field, value)| *field != "cache_schedule" && !value.is_null()) {
        match field {
            "config" => {
                for (inner, value) in entries(value).filter(|(_, value)| !value.is_null()) {
                    let field = format!("config.{inner}");
                    match inner {
                        "pipeline" => return Err(pipeline(&field, &value["name"])),
                        _ => made_with.push((field, shown(value))),
                    }
                }
            }
            "pipeline" => return Err(pipeline(field, value)),
            _ if REMARKS.contains(&field) => {}
            _ if SETTINGS.contains(&field) => made_with.push((field.to_owned(), shown(value))),
            _ => return Err(FormatError::field(field, "is not a field of this format")),
        }
    }
    // Sorted, because a JSON object has no order.
    made_with.sort();
    Ok(made_with)
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn pipeline(field: &str, name: &Value) -> FormatError {
    let name = shown(name);
    FormatError::field(field, format!("'{name}' is a sampling pipeline, which a schedule cannot express"))
}

type Steps<'a> = BTreeMap<u32, (&'a str, &'a Value)>;

/// The steps by number. As for Python's `int`, numbers may have leading zeros.
fn by_step(json: &Value, steps: u32) -> Result<Steps<'_>, FormatError> {
    let mut by_step = Steps::new();
    for (name, decisions) in entries(json) {
        let wrong = |problem: String| Err(FormatError::field(format!("cache_schedule.schedule.{name}"), problem));
        let Ok(step) = name.trim().parse::<u32>() else { return wrong("is not a step number".into()) };
        if step >= steps {
            return wrong(format!("num_inference_steps is {steps}, so the last step is {}", steps.saturating_sub(1)));
        }
        if let Some((other, _)) = by_step.insert(step, (name, decisions)) {
            return wrong(format!("is step {step} again, which is also '{other}'"));
        }
    }
    Ok(by_step)
}

/// Refuses blocks and components of a step that the model does not have.
fn check_blocks(family: Family, layout: &Layout, json: &Value, path: &str, step: u32) -> Result<(), FormatError> {
    let keys: BTreeSet<(String, &str)> = (0..layout.slots()).map(|slot| family.keys(layout.slot(slot))).collect();
    let blocks: BTreeSet<&str> = keys.iter().map(|(block, _)| block.as_str()).collect();
    for (block, components) in entries(json) {
        if !blocks.contains(block) {
            return Err(FormatError::field(
                format!("{path}.{block}"),
                format!("the model has no such block: {layout}"),
            ));
        }
        for (component, value) in entries(components) {
            let field = || format!("{path}.{block}.{component}");
            if FUNCTIONS.contains(&component) {
                if entries(value).next().is_some() {
                    let name = shown(&value["name"]);
                    return Err(FormatError::field(
                        field(),
                        format!("'{name}' replaces what step {step} computes, which a schedule cannot express"),
                    ));
                }
            } else if !keys.contains(&(block.to_owned(), component)) {
                return Err(FormatError::field(field(), "the block has no such component"));
            }
        }
    }
    Ok(())
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
                FormatError::Inexpressible(format!("ECAD's format has PixArt and FLUX models only, not {layout}"))
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
