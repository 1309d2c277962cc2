//! Conversions of worker registrations and calibrations.

use super::error::{at_most, require};
use super::search::{direction, plan, prompt, sampling};
use super::{WireError, cost_model, layout};
use crate::PROTOCOL_VERSION;
use crate::domain::limits::{MAX_LABELS, MAX_METRICS, MAX_PROMPTS, MAX_STEP_COUNTS};
use crate::domain::{Calibration, Declaration, MetricDeclaration};
use crate::pb;

/// Checks what a worker declares. The caller must check the protocol version.
pub fn declaration(message: &pb::RegisterWorkerRequest) -> Result<Declaration, WireError> {
    at_most("labels", message.labels.len(), MAX_LABELS)?;
    let layout = layout(require("layout", message.layout.as_ref())?)?;
    let slots = layout.slots();
    let declaration = Declaration {
        name: message.name.clone(),
        device: message.device.clone(),
        software: message.software.clone(),
        model: message.model.clone(),
        fingerprint: message.fingerprint.clone(),
        layout,
        forecast: message.forecast,
        guidance_decisions: message.guidance_decisions,
        profiles: message.profiles,
        grids: message.grids,
        memory_bytes: message.memory_bytes,
        labels: message.labels.clone(),
        metrics: metrics(&message.metrics)?,
        cost: message.cost.as_ref().map(|c| cost_model(slots, c)).transpose()?,
    };
    declaration.check().map_err(|e| WireError::new("worker", e))?;
    Ok(declaration)
}

/// Reads metric declarations. Their names are checked by [`Declaration::check`].
pub fn metrics(messages: &[pb::MetricDeclaration]) -> Result<Vec<MetricDeclaration>, WireError> {
    at_most("metrics", messages.len(), MAX_METRICS)?;
    let metric = |(i, m): (usize, &pb::MetricDeclaration)| {
        let direction = direction(m.direction).ok_or_else(|| {
            WireError::new(format_args!("metrics[{i}].direction"), "must be DIRECTION_MINIMIZE or DIRECTION_MAXIMIZE")
        })?;
        Ok(MetricDeclaration {
            name: m.name.clone(),
            direction,
            unit: m.unit.clone(),
            description: m.description.chars().take(200).collect(),
        })
    };
    messages.iter().enumerate().map(metric).collect()
}

/// How later calls name a lease.
impl From<&pb::Lease> for pb::LeaseRef {
    fn from(lease: &pb::Lease) -> Self {
        Self { search_ref: lease.search_ref.clone(), candidate: lease.candidate, epoch: lease.epoch }
    }
}

impl From<&MetricDeclaration> for pb::MetricDeclaration {
    fn from(metric: &MetricDeclaration) -> Self {
        Self {
            name: metric.name.clone(),
            direction: pb::Direction::from(metric.direction).into(),
            unit: metric.unit.clone(),
            description: metric.description.clone(),
        }
    }
}

/// Builds the request of RegisterWorker.
pub fn register_request(request_id: String, d: &Declaration) -> pb::RegisterWorkerRequest {
    pb::RegisterWorkerRequest {
        request_id,
        protocol_version: PROTOCOL_VERSION,
        name: d.name.clone(),
        device: d.device.clone(),
        software: d.software.clone(),
        model: d.model.clone(),
        fingerprint: d.fingerprint.clone(),
        layout: Some((&d.layout).into()),
        forecast: d.forecast,
        guidance_decisions: d.guidance_decisions,
        metrics: d.metrics.iter().map(Into::into).collect(),
        cost: d.cost.as_ref().map(Into::into),
        profiles: d.profiles,
        grids: d.grids,
        memory_bytes: d.memory_bytes,
        labels: d.labels.clone(),
    }
}

/// Reads the response of GetCalibration.
pub fn calibration(message: &pb::GetCalibrationResponse) -> Result<Calibration, WireError> {
    at_most("prompts", message.prompts.len(), MAX_PROMPTS)?;
    let of_sampling = |count: fn(&pb::Sampling) -> usize| message.sampling.as_ref().map_or(0, count);
    at_most("sampling.steps", of_sampling(|s| s.steps.len()), MAX_STEP_COUNTS)?;
    at_most("sampling.grids", of_sampling(|s| s.grids.len()), MAX_STEP_COUNTS)?;
    let calibration = Calibration {
        prompts: message.prompts.iter().map(prompt).collect(),
        sampling: sampling(require("sampling", message.sampling.as_ref())?),
        plan: plan(require("measurement", message.measurement.as_ref())?),
    };
    if calibration.prompts.is_empty() || calibration.sampling.steps.is_empty() || calibration.plan.batch == 0 {
        return Err(WireError::new("calibration", "must have prompts, step counts and a batch size"));
    }
    Ok(calibration)
}

/// Builds the response of GetCalibration.
pub fn calibration_response(calibration: &Calibration) -> pb::GetCalibrationResponse {
    pb::GetCalibrationResponse {
        prompts: calibration.prompts.iter().map(Into::into).collect(),
        sampling: Some((&calibration.sampling).into()),
        measurement: Some((&calibration.plan).into()),
    }
}
