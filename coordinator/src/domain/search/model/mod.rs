//! Model assistance: predicts the error of schedules from the results so far, and plans what to try next.
//!
//! Three rival models: [`cells`] (additive, with a weight for every cell), [`drift`] (ages, one weight per slot and
//! step), and both, the cells explaining what the drift leaves. Before a result is learnt from, each model predicts
//! it; [`guard`] keeps the record, and a model with a poor one plans nothing. From the best model a whole front is
//! built ([`plan`]), of which the schedules that promise most hypervolume are proposed until the next fit.
//!
//! State depends on the results told and their order, and on nothing else. Absent: objectives beyond the first cost
//! and the first quality metric, and a difference between reuse and forecast.

mod cells;
mod drift;
mod fit;
mod grid;
mod guard;
mod link;
mod plan;
mod prior;

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Profile, Schedule, ScheduleId, SearchSpec, builtin_direction};

use self::cells::{Cells, Weights};
use self::drift::{Drift, Tables};
use self::grid::Grid;
use self::guard::Guard;
use self::link::Link;
use self::prior::Prior;
use super::costs::Costs;
use super::genome::Space;
use crate::domain::hypervolume::Staircase;
use crate::domain::pareto::Score;

/// The rival models, in the order of [`Model::experts`].
const NAMES: [&str; 3] = ["cells", "drift", "both"];
/// The share of the budget after which only what promises most is tried.
const CLOSING: f64 = 0.85;
/// No model below this many results.
const FIRST_FIT: usize = 24;
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

/// A result to learn from.
#[derive(Clone, Copy)]
pub(super) struct Lesson<'a> {
    pub(super) candidate: CandidateId,
    pub(super) schedule: &'a Arc<Schedule>,
    pub(super) score: &'a Score,
    /// On all prompts.
    pub(super) whole: bool,
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

/// A schedule that a model would try.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) schedule: Arc<Schedule>,
    pub(super) id: ScheduleId,
    /// What made it: the operator's name.
    pub(super) operator: &'static str,
}

/// The models of one search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    grid: Grid,
    prior: Prior,
    /// Which objectives are the cost and the error.
    objectives: (usize, usize),
    seed: u64,
    /// The search is about to end: nothing is tried for the sake of learning.
    closing: bool,
    rows: Vec<Row>,
    stairs: Staircase,
    costs: Costs,
    /// Additive, drift, both.
    experts: [Expert; 3],
    additive: Option<Cells>,
    /// Results when the additive model began, and those that it knows or left out.
    begun: usize,
    learnt: usize,
    plan: Vec<Planned>,
    next_fit: usize,
    fits: u64,
}

impl Model {
    /// A model that knows nothing yet; `None` where the space is too large for one.
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
        let steps = space.steps().first().copied()? as usize;
        let grid = Grid { steps, slots: space.slots(), counts: space.steps().to_vec() };
        let find =
            |builtin: bool| spec.objectives.iter().position(|o| builtin_direction(&o.metric).is_some() == builtin);
        let objectives = (find(true)?, find(false)?);
        (grid.cells() <= MOST_CELLS && steps > 1).then(|| Self {
            costs: Costs::new(space),
            prior: Prior::flat(&grid),
            grid,
            objectives,
            seed: spec.seed,
            closing: false,
            rows: Vec::new(),
            stairs: Staircase::new((1.0, 1.0)),
            experts: Default::default(),
            additive: None,
            begun: 0,
            learnt: 0,
            plan: Vec::new(),
            next_fit: FIRST_FIT,
            fits: 0,
        })
    }

    /// A calibration profile says which slots and steps to expect trouble from.
    pub(super) fn calibrate(&mut self, profile: &Profile) {
        self.prior = Prior::new(&self.grid, profile);
    }

    /// Learns a result; `spent` is the share of the budget that it brings the search to.
    pub(super) fn tell(&mut self, space: &Space, lesson: Lesson<'_>, spent: f64) {
        let Lesson { candidate, schedule, score, whole } = lesson;
        self.closing = spent >= CLOSING;
        let (cost, error) = (score.losses[self.objectives.0], score.losses[self.objectives.1]);
        if self.fits > 0 {
            let cells = self.grid.lay(schedule);
            let count = self.grid.count_index(schedule.steps());
            for Expert { predictor, guard } in &mut self.experts {
                if let Some(predictor) = predictor {
                    guard.add(cost, predictor.error(&self.grid, &cells, count), error);
                }
            }
        }
        if whole {
            self.stairs.insert(cost, error);
        }
        self.rows.push(Row { candidate, schedule: schedule.clone(), cost, error, whole });
        if self.rows.len() >= self.next_fit {
            self.fit(space);
            self.next_fit = self.rows.len() + self.pause();
        }
    }

    /// Costs and errors are believed to be others than they were told to be.
    pub(super) fn rescore(&mut self, score: impl Fn(CandidateId) -> Option<Score>) {
        for row in &mut self.rows {
            if let Some(score) = score(row.candidate) {
                (row.cost, row.error) = (score.losses[self.objectives.0], score.losses[self.objectives.1]);
            }
        }
        let mut points: Vec<(f64, f64)> = self.rows.iter().filter(|r| r.whole).map(|r| (r.cost, r.error)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        self.stairs = Staircase::of_sorted(points);
    }

    /// Results from one fit to the next.
    fn pause(&self) -> usize {
        (self.rows.len() / 25).clamp(4, 60)
    }

    /// What to try, best first; empty while no model is trusted.
    pub(super) fn plan(&self) -> &[Planned] {
        &self.plan
    }

    /// Whether the budget is nearly spent.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// For each model, its name and its rank correlation on fresh results of about equal cost.
    pub(super) fn correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        NAMES.iter().copied().zip(self.experts.iter().map(|e| e.guard.correlation())).collect()
    }
}
