//! The planner: keeps results as the error models learn from them, and their records.

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Schedule, SearchSpec};

use super::cells::CellModel;
use super::error_model::ErrorModel;
use super::grid::Grid;
use super::guard::Guard;
use super::prior::Prior;
use crate::hypervolume::Staircase;
use crate::search::costs::Costs;
use crate::search::genome::Space;
use crate::search::planner_link::{self, Plan, PlannerInput};

/// The names of [`Planner::rivals`] in messages and tables. "drift" is the age model.
const NAMES: [&str; 3] = ["cells", "drift", "both"];
/// Spaces with more cells are searched without error models: a fit would take longer than an evaluation.
const MOST_CELLS: usize = 16_384;

/// A result, as models learn from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) candidate: CandidateId,
    pub(super) schedule: Arc<Schedule>,
    pub(super) cost: f64,
    pub(super) error: f64,
    /// Whether all prompts were evaluated. Partial results are not on the front.
    pub(super) whole: bool,
}

/// One of the three models, with its record.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rival {
    pub(super) fitted: Option<ErrorModel>,
    pub(super) guard: Guard,
}

/// Fits the error models of one search and plans with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Planner {
    pub(super) space: Space,
    pub(super) grid: Grid,
    pub(super) prior: Prior,
    pub(super) seed: u64,
    pub(super) rows: Vec<Row>,
    pub(super) stairs: Staircase,
    pub(super) costs: Costs,
    /// Cells, ages, both; as [`NAMES`].
    pub(super) rivals: [Rival; 3],
    pub(super) cell_model: Option<CellModel>,
    /// Number of results when the cell model was last restarted, and number of results that it has processed.
    pub(super) restarted_at: usize,
    pub(super) learned: usize,
    pub(super) fits: u64,
}

impl Planner {
    /// A planner without results; `None` if the search has nothing to model or its space is too large.
    pub(in crate::search) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
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
            // The models tell errors of reuse from results; those of guidance decisions they do not know, and would blame
            // reuse for them.
            PlannerInput::Result { schedule, .. } if schedule.decides_guidance() => {}
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
