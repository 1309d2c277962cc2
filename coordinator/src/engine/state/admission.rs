//! Which workers a search admits.

use evocache_proto::domain::{Declaration, MetricDeclaration, builtin_direction};

use super::search::Search;

impl Search {
    /// Whether a worker can serve this search; the error says why not. The caller compares the names of the models.
    pub fn admits(&self, worker: &Declaration) -> Result<(), String> {
        let bound = self.model();
        let fingerprint = bound.map(|m| &m.fingerprint).or(self.spec.model.fingerprint.as_ref());
        if let Some(wanted) = fingerprint.filter(|&f| *f != worker.fingerprint) {
            return Err(format!(
                "the search is for fingerprint {wanted}, the worker has {}: other weights or configuration",
                worker.fingerprint
            ));
        }
        self.spec.placement.admits(worker)?;
        if self.spec.forecast && !worker.forecast {
            return Err("the search allows forecasts, which the worker cannot run".into());
        }
        if self.spec.guidance_decisions && !worker.guidance_decisions {
            return Err("the search allows guidance decisions, which the worker cannot run".into());
        }
        if !self.spec.sampling.grids.is_empty() && !worker.grids {
            return Err("the search sets sampling.grids, which the worker does not support".into());
        }
        if let Some(model) = bound {
            if *model.layout != worker.layout {
                return Err(format!("the search is for layout {}, the worker has {}", model.layout, worker.layout));
            }
            if model.metrics != worker.metrics {
                let names = |m: &[MetricDeclaration]| m.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
                let (ours, theirs) = (names(&model.metrics), names(&worker.metrics));
                return Err(format!("the search's metrics are ({ours}), the worker declares ({theirs})"));
            }
        }
        for objective in &self.spec.objectives {
            if builtin_direction(&objective.metric).is_some() {
                continue;
            }
            match worker.metrics.iter().find(|m| m.name == objective.metric) {
                Some(metric) if metric.direction == objective.direction => {}
                Some(_) => {
                    return Err(format!("the worker's metric '{}' has the opposite direction", objective.metric));
                }
                None => return Err(format!("the worker does not measure '{}'", objective.metric)),
            }
        }
        self.spec.fits(&worker.layout)?;
        self.spec.fits_metrics(worker.metrics.len())?;
        // All imported schedules have the layout of the first.
        match self.spec.imported.first().filter(|i| **i.schedule.layout() != worker.layout) {
            Some(other) => Err(format!(
                "imported schedule '{}' is for layout {}, the worker has {}",
                other.name,
                other.schedule.layout(),
                worker.layout
            )),
            None => Ok(()),
        }
    }
}
