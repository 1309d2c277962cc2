//! Conversions of measurements. Ranges are checked by [`Measurement::check`], which also needs the search.

use super::WireError;
use super::error::{at_most, duration, require};
use crate::domain::limits::{MAX_CHANGES, MAX_METRICS, MAX_PROMPTS, MAX_SAMPLES, MAX_THUMBNAILS, MAX_VALUES};
use crate::domain::{Measurement, MetricValues, Profile};
use crate::pb;

/// Reads a measurement message. The caller must check it with [`Measurement::check`].
pub fn measurement(message: &pb::Measurement) -> Result<Measurement, WireError> {
    counts(message)?;
    let device_time = duration("device_time", require("device_time", message.device_time.as_ref())?)?;
    Ok(Measurement {
        metrics: message
            .metrics
            .iter()
            .map(|m| MetricValues { name: m.name.clone(), values: m.values.clone(), baseline_mean: m.baseline_mean })
            .collect(),
        latency_us: message.latency_us.clone(),
        baseline_latency_us: message.baseline_latency_us.clone(),
        macs: message.macs,
        baseline_macs: message.baseline_macs,
        peak_cache_bytes: message.peak_cache_bytes,
        device_time,
        disturbed: message.disturbed,
        thumbnails: message.thumbnails.iter().map(|picture| picture.to_vec()).collect(),
        profile: message.profile.as_ref().map(profile).transpose()?,
    })
}

fn counts(message: &pb::Measurement) -> Result<(), WireError> {
    at_most("metrics", message.metrics.len(), MAX_METRICS)?;
    for metric in &message.metrics {
        at_most("metrics.name", metric.name.len(), 64)?;
        at_most("metrics.values", metric.values.len(), MAX_PROMPTS)?;
    }
    at_most("metrics.values", message.metrics.iter().map(|metric| metric.values.len()).sum(), MAX_VALUES)?;
    at_most("latency_us", message.latency_us.len(), MAX_SAMPLES)?;
    at_most("baseline_latency_us", message.baseline_latency_us.len(), MAX_SAMPLES)?;
    at_most("thumbnails", message.thumbnails.len(), MAX_THUMBNAILS)?;
    at_most("profile.changes", message.profile.as_ref().map_or(0, |profile| profile.changes.len()), MAX_CHANGES)
}

fn profile(message: &pb::CalibrationProfile) -> Result<Profile, WireError> {
    Profile::new(message.steps, message.lags, message.changes.clone()).map_err(|e| WireError::new("profile", e))
}

impl From<&Measurement> for pb::Measurement {
    fn from(m: &Measurement) -> Self {
        Self {
            metrics: m
                .metrics
                .iter()
                .map(|metric| pb::MetricValues {
                    name: metric.name.clone(),
                    values: metric.values.clone(),
                    baseline_mean: metric.baseline_mean,
                })
                .collect(),
            latency_us: m.latency_us.clone(),
            baseline_latency_us: m.baseline_latency_us.clone(),
            macs: m.macs,
            baseline_macs: m.baseline_macs,
            peak_cache_bytes: m.peak_cache_bytes,
            device_time: prost_types::Duration::try_from(m.device_time).ok(),
            disturbed: m.disturbed,
            thumbnails: m.thumbnails.iter().map(|picture| picture.clone().into()).collect(),
            profile: m.profile.as_ref().map(|p| pb::CalibrationProfile {
                steps: p.steps(),
                lags: p.lags(),
                changes: p.changes().to_vec(),
            }),
        }
    }
}
