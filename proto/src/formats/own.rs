//! evocache's own schedule format: a line per slot with a letter per step, for people to read and compare.
//!
//! ```json
//! {
//!   "evocache_schedule": 1,
//!   "id": "…",
//!   "steps": 4,
//!   "layout": [{ "group": "block", "count": 1, "components": ["attn1", "attn2", "ff"] }],
//!   "decisions": { "block.0.attn1": "CRRC", "block.0.attn2": "CRRR", "block.0.ff": "CCFF" }
//! }
//! ```
//!
//! `C` computes, `R` reuses the output stored last, `F` extrapolates the last two computed ones. A component that only
//! `proj_out` reads is written `"proj_mlp>proj_out"`. A schedule that leaves out passes of classifier-free guidance also has
//! `"guidance": "BBKC"`: `B` runs both passes, `C` the conditional one alone, `K` that one with the difference of the last
//! `B`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::common::FormatError;
use crate::domain::{BlockGroup, Component, Decision, Grid, GuidanceDecision, Layout, Schedule};
use crate::text;

const VERSION: u64 = 1;

/// Writes a schedule. `about`, such as its measurement, goes into the field `"about"`.
pub fn write(schedule: &Schedule, about: Option<Value>) -> String {
    let layout = schedule.layout();
    let groups: Vec<Value> = layout
        .groups()
        .iter()
        .map(|group| {
            let component = |c: &Component| match &c.feeds {
                Some(consumer) => format!("{}>{consumer}", c.name),
                None => c.name.clone(),
            };
            let components: Vec<String> = group.components.iter().map(component).collect();
            json!({ "group": group.name, "count": group.count, "components": components })
        })
        .collect();
    let row = |slot: usize| (0..schedule.steps()).map(|step| schedule.decision(step, slot).letter()).collect();
    let decisions: Map<String, Value> =
        (0..schedule.slots()).map(|slot| (layout.slot_name(slot), Value::String(row(slot)))).collect();
    let mut file = json!({
        "evocache_schedule": VERSION,
        "id": schedule.id().to_string(),
        "steps": schedule.steps(),
        "layout": groups,
        "decisions": decisions,
    });
    if schedule.decides_guidance() {
        let letters = (0..schedule.steps()).map(|step| schedule.guidance(step).letter());
        file["guidance"] = letters.collect::<String>().into();
    }
    if let Some(about) = about {
        file["about"] = about;
    }
    format!("{}\n", text::json(&format!("{file:#}")))
}

/// Reads a schedule. Refuses another version, unknown fields, missing or unknown slots, unknown letters, wrong lengths,
/// and an id that does not match the content.
pub fn read(text: &str) -> Result<Schedule, FormatError> {
    let json: Value = serde_json::from_str(text).map_err(|e| FormatError::Json(e.to_string()))?;
    from_json(&json)
}

pub(super) fn from_json(json: &Value) -> Result<Schedule, FormatError> {
    let version = &json["evocache_schedule"];
    if version.as_u64() != Some(VERSION) {
        let problem = format!("this program reads version {VERSION}, found {version}");
        return Err(FormatError::field("evocache_schedule", problem));
    }
    let known = ["evocache_schedule", "id", "steps", "layout", "decisions", "guidance", "about"];
    if let Some(other) =
        json.as_object().into_iter().flatten().map(|(name, _)| name).find(|n| !known.contains(&n.as_str()))
    {
        return Err(FormatError::field(other, "is not a field of this format; \"about\" may have any content"));
    }
    let layout = Arc::new(layout(&json["layout"])?);
    let steps = json["steps"].as_u64().and_then(|steps| u32::try_from(steps).ok());
    let steps = steps.ok_or_else(|| FormatError::field("steps", "must be the number of steps"))?;
    let decisions =
        json["decisions"].as_object().ok_or_else(|| FormatError::field("decisions", "must be an object"))?;
    let mut rows = Vec::with_capacity(layout.slots());
    for slot in 0..layout.slots() {
        let name = layout.slot_name(slot);
        let field = || format!("decisions.{name}");
        let row = decisions.get(&name).and_then(Value::as_str);
        let row = row.ok_or_else(|| FormatError::field(field(), "is missing"))?;
        let row: Vec<Decision> = row
            .chars()
            .map(|letter| {
                Decision::from_letter(letter)
                    .ok_or_else(|| FormatError::field(field(), format!("'{letter}' is not one of C, R, F")))
            })
            .collect::<Result<_, _>>()?;
        if row.len() != steps as usize {
            let problem = format!("has {} letters for {steps} steps", row.len());
            return Err(FormatError::field(field(), problem));
        }
        if row.first().is_some_and(|&first| first != Decision::Compute) {
            return Err(FormatError::field(field(), "step 0 must compute (C)"));
        }
        rows.push(row);
    }
    if decisions.len() != rows.len() {
        let known: Vec<String> = (0..layout.slots()).map(|slot| layout.slot_name(slot)).collect();
        let other = decisions.keys().find(|key| !known.contains(key)).cloned().unwrap_or_default();
        return Err(FormatError::field(format!("decisions.{other}"), "is not a slot of the layout"));
    }
    let schedule = Schedule::from_fn(layout, steps, |step, slot| rows[slot][step as usize])
        .map_err(|e| FormatError::field("steps", e))?;
    let schedule = match json.get("guidance") {
        Some(letters) => guided(schedule, letters)?,
        None => schedule,
    };
    match json.get("id").and_then(Value::as_str) {
        Some(id) if id != schedule.id().to_string() => {
            let problem =
                format!("is {id}, but the content has {}; delete the field if you changed the file", schedule.id());
            Err(FormatError::field("id", problem))
        }
        _ => Ok(schedule),
    }
}

/// The schedule with the guidance decisions of a row of letters.
fn guided(schedule: Schedule, row: &Value) -> Result<Schedule, FormatError> {
    let refuse = |problem: String| Err(FormatError::field("guidance", problem));
    let Some(row) = row.as_str() else { return refuse("must be a letter for each step".into()) };
    let mut decisions = Vec::with_capacity(schedule.steps() as usize);
    for letter in row.chars() {
        match GuidanceDecision::from_letter(letter) {
            Some(decision) => decisions.push(decision),
            None => return refuse(format!("'{}' is not one of B, C, K", letter.escape_debug())),
        }
    }
    if decisions.len() != schedule.steps() as usize {
        return refuse(format!("has {} letters for {} steps", decisions.len(), schedule.steps()));
    }
    if decisions.first().is_some_and(|&first| first != GuidanceDecision::Both) {
        return refuse("step 0 must run both passes (B)".into());
    }
    Ok(schedule.with_guidance(|step| decisions.get(step as usize).copied().unwrap_or_default()))
}

/// The settings that the schedule was measured with, from `about`.
pub(super) fn made_with(json: &Value) -> Vec<(String, String)> {
    let sampling = &json["about"]["made_for"]["sampling"];
    let told = |name: &str| Some((name.to_owned(), sampling[name].as_f64()?.to_string()));
    ["guidance_scale", "height", "width"].into_iter().filter_map(told).collect()
}

/// The grid that runs of this step count sampled on when the schedule was measured, from `about`.
pub(super) fn grid(json: &Value, steps: u32) -> Result<Option<Grid>, FormatError> {
    let grids = &json["about"]["made_for"]["sampling"]["grids"];
    let mut grids = grids.as_array().into_iter().flatten();
    let Some(told) = grids.find(|grid| grid["steps"].as_u64() == Some(u64::from(steps))) else { return Ok(None) };
    let wrong = |field: &str| {
        FormatError::field(format!("about.made_for.sampling.grids.{field}"), "must be a number or a list of numbers")
    };
    let whole = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let list = |field: &str| match &told[field] {
        Value::Null => Ok(&[][..]),
        value => value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(field)),
    };
    let order = &told["solver_order"];
    let grid = Grid {
        steps,
        solver_order: if order.is_null() { None } else { Some(whole(order).ok_or_else(|| wrong("solver_order"))?) },
        timesteps: list("timesteps")?.iter().map(whole).collect::<Option<_>>().ok_or_else(|| wrong("timesteps"))?,
        sigmas: list("sigmas")?.iter().map(Value::as_f64).collect::<Option<_>>().ok_or_else(|| wrong("sigmas"))?,
    };
    match grid.problem() {
        Some(problem) => Err(FormatError::field("about.made_for.sampling.grids", problem)),
        None => Ok(Some(grid)),
    }
}

fn layout(json: &Value) -> Result<Layout, FormatError> {
    let wrong =
        || FormatError::field("layout", "must be a list of { \"group\": name, \"count\": n, \"components\": [names] }");
    let mut groups = vec![];
    for group in json.as_array().ok_or_else(wrong)? {
        let component = |c: &Value| {
            let text = c.as_str().ok_or_else(wrong)?;
            Ok(match text.split_once('>') {
                Some((name, consumer)) => Component::feeding(name, consumer),
                None => Component::new(text),
            })
        };
        groups.push(BlockGroup {
            name: group["group"].as_str().ok_or_else(wrong)?.to_owned(),
            count: group["count"].as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?,
            components: group["components"]
                .as_array()
                .ok_or_else(wrong)?
                .iter()
                .map(component)
                .collect::<Result<_, _>>()?,
        });
    }
    Layout::new(groups).map_err(|e| FormatError::field("layout", e))
}
