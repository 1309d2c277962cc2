//! Conversions of layouts, schedules and cost models.

use std::sync::Arc;

use super::WireError;
use super::error::at_most;
use crate::domain::limits::MAX_COMPONENTS;
use crate::domain::{BlockGroup, Component, CostModel, Layout, MAX_SLOTS, Schedule};
use crate::pb;

/// Checks a layout message.
pub fn layout(message: &pb::Layout) -> Result<Layout, WireError> {
    at_most("layout.groups", message.groups.len(), MAX_COMPONENTS)?;
    let components: usize = message.groups.iter().map(|g| g.components.len()).sum();
    at_most("layout.groups.components", components, MAX_COMPONENTS)?;
    let groups = message.groups.iter().map(|group| BlockGroup {
        name: group.name.clone(),
        count: group.count,
        components: group
            .components
            .iter()
            .map(|c| Component { name: c.name.clone(), feeds: c.feeds.clone() })
            .collect(),
    });
    Layout::new(groups.collect()).map_err(|e| WireError::new("layout", e))
}

impl From<&Layout> for pb::Layout {
    fn from(layout: &Layout) -> Self {
        let groups = layout.groups().iter().map(|group| pb::BlockGroup {
            name: group.name.clone(),
            count: group.count,
            components: group
                .components
                .iter()
                .map(|c| pb::Component { name: c.name.clone(), feeds: c.feeds.clone() })
                .collect(),
        });
        Self { groups: groups.collect() }
    }
}

/// Checks a schedule message against its layout. A `schedule_id` that is set must match the content.
pub fn schedule(layout: &Arc<Layout>, message: &pb::Schedule) -> Result<Schedule, WireError> {
    let schedule = Schedule::from_packed(layout.clone(), message.steps, &message.decisions)
        .and_then(|schedule| schedule.with_packed_guidance(&message.guidance))
        .map_err(|e| WireError::new("schedule", e))?;
    let id = schedule.id().to_string();
    if !message.schedule_id.is_empty() && message.schedule_id != id {
        let problem = format!("is '{}', but the content has '{id}'", message.schedule_id);
        return Err(WireError::new("schedule.schedule_id", problem));
    }
    Ok(schedule)
}

impl From<&Schedule> for pb::Schedule {
    fn from(schedule: &Schedule) -> Self {
        Self {
            steps: schedule.steps(),
            decisions: schedule.packed().to_vec().into(),
            guidance: schedule.packed_guidance().into(),
            schedule_id: schedule.id().to_string(),
        }
    }
}

/// Checks a cost model against the number of slots.
pub fn cost_model(slots: usize, message: &pb::CostModel) -> Result<CostModel, WireError> {
    at_most("cost.slot_macs", message.slot_macs.len(), MAX_SLOTS)?;
    at_most("cost.slot_cache_bytes", message.slot_cache_bytes.len(), MAX_SLOTS)?;
    let cost = CostModel {
        slot_macs: message.slot_macs.clone(),
        slot_cache_bytes: message.slot_cache_bytes.clone(),
        step_macs: message.step_macs,
        image_macs: message.image_macs,
    };
    cost.check(slots).map_err(|e| WireError::new("cost", e))?;
    Ok(cost)
}

impl From<&CostModel> for pb::CostModel {
    fn from(cost: &CostModel) -> Self {
        Self {
            slot_macs: cost.slot_macs.clone(),
            slot_cache_bytes: cost.slot_cache_bytes.clone(),
            step_macs: cost.step_macs,
            image_macs: cost.image_macs,
        }
    }
}
