//! Error models: predict the quality loss of a schedule from the results so far. The [`Planner`] plans with the best of
//! them.
//!
//! Three rivals: [`cells`] (a weight for every cell), [`ages`] (one weight per slot and per step, times the age of what
//! is reused), and both, where the cells explain the residuals of the ages. Each model predicts a result before it
//! learns from it. [`guard`] records how well, and a model with a poor record plans nothing. From the best model
//! [`predicted_front`] builds a whole front; its schedules with the largest expected gain of hypervolume are planned.
//!
//! Plans depend on the inputs and their order alone. Only the first cost and the first quality metric are modeled, and
//! reuse and forecast are the same. Does not decide when to plan: that is `planner_link.rs`.

mod ages;
mod cells;
mod fit;
mod grid;
mod guard;
mod link;
mod predicted_front;
mod prior;

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Schedule, SearchSpec};

use self::ages::{AgeModel, Tables};
use self::cells::{CellModel, Weights};
use self::grid::Grid;
use self::guard::Guard;
use self::link::Link;
use self::prior::Prior;
use super::costs::Costs;
use super::genome::Space;
use super::planner_link::{self, Plan, PlannerInput};
use crate::hypervolume::Staircase;

/// The names of [`Planner::rivals`] in messages and tables. "drift" is the age model.
const NAMES: [&str; 3] = ["cells", "drift", "both"];
/// Spaces with more cells are searched without error models: a fit would take longer than an evaluation.
const MOST_CELLS: usize = 16_384;

/// A result, as models learn from it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    candidate: CandidateId,
    schedule: Arc<Schedule>,
    cost: f64,
    error: f64,
    /// Whether all prompts were evaluated. Partial results are not on the front.
    whole: bool,
}

/// A fitted error model: ages, cells or both.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ErrorModel {
    link: Link,
    age_model: Option<AgeModel>,
    tables: Option<Arc<Tables>>,
    weights: Option<Arc<Weights>>,
}

impl ErrorModel {
    fn error(&self, grid: &Grid, cells: &[f32], count: usize) -> f64 {
        let by_age = self.tables.as_ref().map_or(0.0, |t| t.sum(grid, cells, count));
        let by_cell = self.weights.as_ref().map_or(0.0, |w| w.sum(grid, cells, count));
        self.link.error(by_age + by_cell)
    }
}

/// One of the three models, with its record.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rival {
    fitted: Option<ErrorModel>,
    guard: Guard,
}

/// Fits the error models of one search and plans with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Planner {
    space: Space,
    grid: Grid,
    prior: Prior,
    seed: u64,
    rows: Vec<Row>,
    stairs: Staircase,
    costs: Costs,
    /// Cells, ages, both; as [`NAMES`].
    rivals: [Rival; 3],
    cell_model: Option<CellModel>,
    /// Number of results when the cell model was last restarted, and number of results that it has processed.
    restarted_at: usize,
    learned: usize,
    fits: u64,
}

impl Planner {
    /// A planner without results; `None` if the search has nothing to model or its space is too large.
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
        let steps = space.steps().first().copied()? as usize;
        let grid = Grid { steps, slots: space.slots(), counts: space.steps().to_vec() };
        planner_link::objectives(spec)?;
        (grid.cells() <= MOST_CELLS && steps > 1).then(|| Self {
            space: space.clone(),
            costs: Costs::new(space),
            prior: Prior::flat(&grid),
            grid,
            seed: spec.seed,
            rows: Vec::new(),
            stairs: Staircase::new((1.0, 1.0)),
            rivals: Default::default(),
            cell_model: None,
            restarted_at: 0,
            learned: 0,
            fits: 0,
        })
    }

    /// Processes one input. Returns a plan for a [`PlannerInput::Request`], which is slow.
    pub fn process(&mut self, input: PlannerInput) -> Option<Plan> {
        match input {
            PlannerInput::Profile(profile) => self.prior = Prior::new(&self.grid, &profile),
            PlannerInput::Result { candidate, schedule, losses: (cost, error), whole } => {
                self.learn(Row { candidate, schedule, cost, error, whole });
            }
            PlannerInput::Rescored(losses) => self.rescore(&losses.into_iter().collect()),
            PlannerInput::Request { number, wanted, closing } => {
                self.fit();
                let schedules = self.plan(wanted, closing);
                return Some(Plan { number, schedules, correlations: self.correlations() });
            }
        }
        None
    }

    fn learn(&mut self, row: Row) {
        if self.fits > 0 {
            let cells = self.grid.lay(&row.schedule);
            let count = self.grid.count_index(row.schedule.steps());
            for Rival { fitted, guard } in &mut self.rivals {
                if let Some(fitted) = fitted {
                    guard.add(row.cost, fitted.error(&self.grid, &cells, count), row.error);
                }
            }
        }
        if row.whole {
            self.stairs.insert(row.cost, row.error);
        }
        self.rows.push(row);
    }

    /// Revises the costs and errors of earlier results.
    fn rescore(&mut self, losses: &BTreeMap<CandidateId, (f64, f64)>) {
        for row in &mut self.rows {
            if let Some(&estimated) = losses.get(&row.candidate) {
                (row.cost, row.error) = estimated;
            }
        }
        let mut points: Vec<(f64, f64)> = self.rows.iter().filter(|r| r.whole).map(|r| (r.cost, r.error)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.stairs = Staircase::of_sorted(points);
    }

    fn correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        NAMES.iter().copied().zip(self.rivals.iter().map(|e| e.guard.correlation())).collect()
    }
}
