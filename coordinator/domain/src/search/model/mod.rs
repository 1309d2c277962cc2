//! Model assistance: predicts the error of schedules from the results so far, and plans what to try next.
//!
//! Three rival models: [`cells`] (additive, with a weight for every cell), [`drift`] (ages, one weight per slot and
//! step), and both, the cells explaining what the drift leaves. Before a result is learnt from, each model predicts
//! it; [`guard`] keeps the record, and a model with a poor one plans nothing. From the best model a whole front is
//! built ([`plan`]), of which the schedules that promise most hypervolume are proposed until the next advice.
//!
//! What is answered depends on the lessons heard and their order, and on nothing else. Absent: when it is asked, which
//! is in `advice.rs`, objectives beyond the first cost and the first quality metric, and a difference between reuse and
//! forecast.

mod cells;
mod drift;
mod fit;
mod grid;
mod guard;
mod link;
mod plan;
mod prior;

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Schedule, SearchSpec};

use self::cells::{Cells, Weights};
use self::drift::{Drift, Tables};
use self::grid::Grid;
use self::guard::Guard;
use self::link::Link;
use self::prior::Prior;
use super::advice::{self, Advice, Lesson};
use super::costs::Costs;
use super::genome::Space;
use crate::hypervolume::Staircase;

/// The rival models, in the order of [`Adviser::experts`].
const NAMES: [&str; 3] = ["cells", "drift", "both"];
/// Spaces with more cells are searched without a model: it would take longer than an evaluation.
const MOST_CELLS: usize = 16_384;

/// A result as the model keeps it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    candidate: CandidateId,
    schedule: Arc<Schedule>,
    cost: f64,
    error: f64,
    /// On all prompts; what was measured on a part of them teaches, but promises nothing.
    whole: bool,
}

/// Predicts errors.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Predictor {
    link: Link,
    drift: Option<Drift>,
    tables: Option<Arc<Tables>>,
    weights: Option<Arc<Weights>>,
}

impl Predictor {
    fn error(&self, grid: &Grid, cells: &[f32], count: usize) -> f64 {
        let drift = self.tables.as_ref().map_or(0.0, |t| t.sum(grid, cells, count));
        let own = self.weights.as_ref().map_or(0.0, |w| w.sum(grid, cells, count));
        self.link.error(drift + own)
    }
}

/// A model with its record.
#[derive(Debug, Clone, Default, PartialEq)]
struct Expert {
    predictor: Option<Predictor>,
    guard: Guard,
}

/// The models of one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Adviser {
    space: Space,
    grid: Grid,
    prior: Prior,
    seed: u64,
    rows: Vec<Row>,
    stairs: Staircase,
    costs: Costs,
    /// Additive, drift, both.
    experts: [Expert; 3],
    additive: Option<Cells>,
    /// Results when the additive model began, and those that it knows or left out.
    begun: usize,
    learnt: usize,
    fits: u64,
}

impl Adviser {
    /// An adviser that knows nothing yet; `None` where there is nothing to model, or the space is too large for it.
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
        let steps = space.steps().first().copied()? as usize;
        let grid = Grid { steps, slots: space.slots(), counts: space.steps().to_vec() };
        advice::objectives(spec)?;
        (grid.cells() <= MOST_CELLS && steps > 1).then(|| Self {
            space: space.clone(),
            costs: Costs::new(space),
            prior: Prior::flat(&grid),
            grid,
            seed: spec.seed,
            rows: Vec::new(),
            stairs: Staircase::new((1.0, 1.0)),
            experts: Default::default(),
            additive: None,
            begun: 0,
            learnt: 0,
            fits: 0,
        })
    }

    /// Hears a lesson; answers where it is asked for advice, which takes long.
    pub fn hear(&mut self, lesson: Lesson) -> Option<Advice> {
        match lesson {
            Lesson::Profile(profile) => self.prior = Prior::new(&self.grid, &profile),
            Lesson::Result { candidate, schedule, losses: (cost, error), whole } => {
                self.learn(Row { candidate, schedule, cost, error, whole });
            }
            Lesson::Rescored(losses) => self.rescore(&losses.into_iter().collect()),
            Lesson::Advise { number, wanted, closing } => {
                self.fit();
                return Some(Advice { number, plan: self.plan(wanted, closing), correlations: self.correlations() });
            }
        }
        None
    }

    fn learn(&mut self, row: Row) {
        if self.fits > 0 {
            let cells = self.grid.lay(&row.schedule);
            let count = self.grid.count_index(row.schedule.steps());
            for Expert { predictor, guard } in &mut self.experts {
                if let Some(predictor) = predictor {
                    guard.add(row.cost, predictor.error(&self.grid, &cells, count), row.error);
                }
            }
        }
        if row.whole {
            self.stairs.insert(row.cost, row.error);
        }
        self.rows.push(row);
    }

    /// Costs and errors are believed to be others than they were told to be.
    fn rescore(&mut self, losses: &BTreeMap<CandidateId, (f64, f64)>) {
        for row in &mut self.rows {
            if let Some(&believed) = losses.get(&row.candidate) {
                (row.cost, row.error) = believed;
            }
        }
        let mut points: Vec<(f64, f64)> = self.rows.iter().filter(|r| r.whole).map(|r| (r.cost, r.error)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.stairs = Staircase::of_sorted(points);
    }

    fn correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        NAMES.iter().copied().zip(self.experts.iter().map(|e| e.guard.correlation())).collect()
    }
}
