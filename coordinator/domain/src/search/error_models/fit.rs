//! Fits the error models and plans with the best of them. Does not define the models: those are `cells.rs` and
//! `ages.rs`.

use std::sync::Arc;

use evocache_proto::domain::Decision;

use super::ages::{AgeModel, Data, MOST_PARAMETERS};
use super::cells::{CellModel, Features, Setting, normal};
use super::error_model::ErrorModel;
use super::link::Link;
use super::planner::Planner;
use super::predicted_front;
use crate::rng::Stream;
use crate::search::dense::Factor;
use crate::search::planner_link::PlannedSchedule;

/// The largest number of results in the cell model. When it is full, it restarts with half of them: the last ones, and
/// an even selection of the earlier ones.
const MOST_ROWS: usize = 2000;
/// Up to this many results, the cell model restarts with a newly chosen link and noise whenever the results have
/// doubled.
const SETTLED: usize = 400;
/// Number of results used to choose link and noise.
const SETTING_ROWS: usize = 200;
/// Number of results in a fit of the age model, which has fewer parameters.
const AGE_ROWS: usize = 300;
/// Number of results in a fit of the cost model.
const COST_ROWS: usize = 400;
/// Candidate noise levels: standard deviations of errors, as shares of their spread.
const NOISE: [f64; 4] = [0.0003, 0.002, 0.012, 0.06];
/// The deviation of drawn cell weights relative to the posterior's, and that of drawn age parameters.
const DRAW: f64 = 0.07;
const JITTER: f64 = 0.05;
/// The second-best model plans too if its correlation is at least this share of the best one's.
const SECOND: f64 = 0.9;

/// Indices of the last `most / 2` of `n` results, and of as many earlier ones, evenly spaced.
fn chosen(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    let late = most / 2;
    let early = most - late;
    (0..early).map(|i| i * (n - late) / early).chain(n - late..n).collect()
}

impl Planner {
    /// Fits all models.
    pub(super) fn fit(&mut self) {
        self.fits += 1;
        let rows: Vec<_> = self.rows.iter().rev().take(COST_ROWS).collect();
        let rows = rows.into_iter().map(|row| (self.costs.features_of(&self.space, &row.schedule), row.cost, 1.0));
        let rows: Vec<_> = rows.collect();
        self.costs.fit(rows.into_iter());
        self.fit_cells();
        let ages = self.fit_ages();
        let Some(cells) = &self.cell_model else { return };
        let link = cells.setting.link;
        let weights = Arc::new(cells.weights(&self.grid, None));
        self.rivals[0].fitted = Some(ErrorModel { link, age_model: None, tables: None, weights: Some(weights) });
        if let Some(ages) = ages {
            let alone = ErrorModel {
                link: ages.link,
                tables: Some(Arc::new(ages.tables(&self.grid))),
                age_model: Some(ages),
                weights: None,
            };
            // Sums can be added only under the same link.
            self.rivals[2].fitted = (alone.link == link).then(|| {
                let rest = cells.weights(&self.grid, Some(&cells.explained(&self.grid, alone.tables.as_deref())));
                ErrorModel { weights: Some(Arc::new(rest)), ..alone.clone() }
            });
            self.rivals[1].fitted = Some(alone);
        }
    }

    /// The 90th percentile of recent errors.
    fn spread(&self) -> f64 {
        let mut sorted: Vec<f64> = self.rows.iter().rev().take(1000).map(|row| row.error.clamp(0.0, 1.0)).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 9 / 10).copied().unwrap_or(1.0).max(1e-6)
    }

    fn features(&self, row: usize) -> Features {
        let schedule = &self.rows[row].schedule;
        Features::new(&self.grid, &self.grid.lay(schedule), self.grid.count_index(schedule.steps()))
    }

    fn fit_cells(&mut self) {
        let n = self.rows.len();
        let doubled = n <= SETTLED && n >= 2 * self.restarted_at;
        let full = self.cell_model.as_ref().is_some_and(|a| a.len() >= MOST_ROWS);
        let settled = self.cell_model.take().filter(|_| !doubled && !full);
        let (mut cells, new) = match settled {
            Some(cells) => (cells, (self.learned..n).collect()),
            None => {
                self.restarted_at = n;
                (CellModel::new(self.choose_setting()), chosen(n, MOST_ROWS / 2))
            }
        };
        for row in new {
            cells.add(&self.grid, self.features(row), self.rows[row].error);
        }
        self.learned = n;
        self.cell_model = Some(cells);
    }

    /// The link and noise with the largest marginal likelihood.
    fn choose_setting(&self) -> Setting {
        let rows = chosen(self.rows.len(), SETTING_ROWS);
        let features: Vec<Features> = rows.iter().map(|&i| self.features(i)).collect();
        let errors: Vec<f64> = rows.iter().map(|&i| self.rows[i].error).collect();
        let kernel = |i: usize| features[..=i].iter().map(|other| features[i].kernel(&self.grid, other)).collect();
        let kernel: Vec<Vec<f64>> = (0..rows.len()).map(kernel).collect();
        let cached: f64 = features.iter().map(Features::cached).sum();
        let spread = self.spread();
        let settings = Link::ALL.into_iter().flat_map(|link| {
            let sums: f64 = errors.iter().map(|&e| link.sum(e).max(0.0)).sum();
            let scale = (sums / cached.max(1.0)).max(1e-9);
            NOISE.map(|noise| Setting { link, noise: noise * spread, scale })
        });
        let likelihood = |setting: &Setting| {
            let (mut factor, mut sums, mut jacobian) = (Factor::default(), Vec::new(), 0.0);
            for (row, &error) in kernel.iter().zip(&errors) {
                let (sum, variance) = setting.read(error);
                let mut row: Vec<f64> = row.iter().map(|k| k * setting.scale * setting.scale).collect();
                if let Some(diagonal) = row.last_mut() {
                    *diagonal += variance;
                }
                if !factor.push(row) {
                    return f64::NEG_INFINITY;
                }
                jacobian -= setting.link.slope(sum).max(0.02).ln();
                sums.push(sum);
            }
            factor.likelihood(sums) + jacobian
        };
        let best = settings.map(|s| (likelihood(&s), s)).max_by(|a, b| a.0.total_cmp(&b.0));
        let fallback =
            Setting { link: Link::Exponential, noise: NOISE[1] * spread, scale: 1.0 / self.grid.cells() as f64 };
        best.map_or(fallback, |(_, setting)| setting)
    }

    fn fit_ages(&self) -> Option<AgeModel> {
        if self.grid.steps + self.grid.slots + self.grid.counts.len() > MOST_PARAMETERS {
            return None;
        }
        let mut data = Data::default();
        for row in chosen(self.rows.len(), AGE_ROWS).into_iter().map(|i| &self.rows[i]) {
            data.cells.extend(self.grid.lay(&row.schedule));
            data.count.push(self.grid.count_index(row.schedule.steps()));
            data.errors.push(row.error);
        }
        let spread = self.spread();
        let before = self.rivals[1].fitted.as_ref().and_then(|p| p.age_model.as_ref());
        let noise = before.map_or(0.05 * spread, |d| d.misfit.sqrt().clamp(0.003 * spread, 0.1 * spread));
        let fresh = self.fits % 8 == 1;
        let links = Link::ALL.into_iter().filter(|&link| fresh || before.is_none_or(|d| d.link == link));
        let fits = links.map(|link| {
            let start = before.filter(|d| d.link == link).cloned();
            let steps = if start.is_some() { 3 } else { 8 };
            start
                .unwrap_or_else(|| AgeModel::start(&self.grid, link, &data, &self.prior))
                .fit(&self.grid, &data, noise, steps)
        });
        fits.filter(|d| d.misfit.is_finite()).min_by(|a, b| a.misfit.total_cmp(&b.misfit))
    }

    /// The trusted models with their rank correlations, best first.
    fn ranking(&self) -> Vec<(f64, &ErrorModel)> {
        let trusted = self.rivals.iter().filter(|e| e.guard.trusts());
        let mut ranking: Vec<(f64, &ErrorModel)> =
            trusted.filter_map(|e| Some((e.guard.correlation().unwrap_or(0.3), e.fitted.as_ref()?))).collect();
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
        ranking
    }

    /// Schedules that the trusted models expect to improve the front, best first.
    pub(super) fn plan(&self, wanted: usize, closing: bool) -> Vec<PlannedSchedule> {
        let ranking = self.ranking();
        let mut lists = Vec::new();
        if let Some(&(record, best)) = ranking.first() {
            lists.push(self.promising(best, "greedy", wanted));
            if !closing {
                lists.push(self.promising(&self.draw(best), "draw", wanted));
            }
            if let Some(&(_, second)) = ranking.get(1).filter(|r| r.0 >= SECOND * record && !closing) {
                lists.push(self.promising(second, "second", wanted / 2));
            }
        }
        let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
        let mut planned = Vec::new();
        loop {
            let before = planned.len();
            for (i, list) in lists.iter_mut().enumerate() {
                // Two of the best model's schedules for one of each other list.
                planned.extend(list.by_ref().take(if i == 0 { 2 } else { 1 }));
            }
            if planned.len() == before {
                return planned;
            }
        }
    }

    /// A random model near the fitted one, for exploration.
    fn draw(&self, model: &ErrorModel) -> ErrorModel {
        let mut stream = Stream::new(self.seed, "model-draw", self.fits);
        let mut drawn = model.clone();
        if let Some(ages) = &model.age_model {
            let jittered = ages.jittered(|| JITTER * normal(&mut stream));
            drawn.tables = Some(Arc::new(jittered.tables(&self.grid)));
        }
        if let Some(cells) = self.cell_model.as_ref().filter(|_| model.weights.is_some()) {
            let explained = model.age_model.as_ref().map(|_| cells.explained(&self.grid, model.tables.as_deref()));
            drawn.weights = Some(Arc::new(cells.draw(&self.grid, explained.as_deref(), DRAW, &mut stream)));
        }
        drawn
    }

    /// The schedules of a predicted front with the largest expected gain over the measured front, best first.
    fn promising(&self, model: &ErrorModel, how: &'static str, most: usize) -> Vec<PlannedSchedule> {
        let (space, counts) = (&self.space, &self.grid.counts);
        // Cycles through the step counts; every other fit uses the largest.
        let turn = self.fits as usize;
        let steps = if turn.is_multiple_of(2) { counts[0] } else { counts[turn / 2 % counts.len()] };
        let cached = if space.forecast() && turn % 4 >= 2 { Decision::Forecast } else { Decision::Reuse };
        let slots = self.costs.slots(space);
        let count = self.grid.count_index(steps);
        let schedules = predicted_front::build(space, &self.grid, model, steps, &slots, cached);
        let mut open: Vec<(f64, f64, usize)> = schedules
            .iter()
            .enumerate()
            .map(|(i, predicted)| {
                (self.costs.of(space, &predicted.genome), model.error(&self.grid, &predicted.cells, count), i)
            })
            .collect();
        let mut stairs = self.stairs.clone();
        let mut planned = Vec::new();
        while planned.len() < most {
            let gains = open.iter().enumerate().map(|(at, &(cost, error, _))| (stairs.gain(cost, error), at));
            let Some((gain, at)) = gains.max_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            if gain <= 0.0 {
                break;
            }
            let (cost, error, index) = open.swap_remove(at);
            stairs.insert(cost, error);
            if let Some(schedule) = schedules[index].genome.to_schedule(space) {
                planned.push(PlannedSchedule { id: schedule.id(), schedule: Arc::new(schedule), how });
            }
        }
        planned
    }
}
