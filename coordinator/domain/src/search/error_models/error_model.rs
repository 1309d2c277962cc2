//! A fitted error model, as it predicts.

use std::sync::Arc;

use super::ages::{AgeModel, Tables};
use super::cells::Weights;
use super::grid::Grid;
use super::link::Link;

/// A fitted error model: ages, cells or both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ErrorModel {
    pub(super) link: Link,
    pub(super) age_model: Option<AgeModel>,
    pub(super) tables: Option<Arc<Tables>>,
    pub(super) weights: Option<Arc<Weights>>,
}

impl ErrorModel {
    pub(super) fn error(&self, grid: &Grid, cells: &[f32], count: usize) -> f64 {
        let by_age = self.tables.as_ref().map_or(0.0, |t| t.sum(grid, cells, count));
        let by_cell = self.weights.as_ref().map_or(0.0, |w| w.sum(grid, cells, count));
        self.link.error(by_age + by_cell)
    }
}
