//! A search that starts from the fronts of others: their schedules become its imported ones. Pure.

use std::sync::Arc;

use evocache_proto::domain::{Decision, Imported, Schedule, SearchId, SearchSpec};

use super::command::Refusal;
use super::decide::find;
use super::search::Search;
use super::state::State;

/// A large front is represented by so many of its members, evenly along it: an eighth of the budget, within limits.
const MEMBERS: (u64, u64) = (12, 64);

/// The specification with the fronts of `from` among its imported schedules, each named after where it comes from.
///
/// They are copied now: what becomes of the other searches later changes nothing. Where the new search allows no
/// forecasts, they are reuses.
pub(super) fn with_fronts(
    state: &State,
    spec: &Arc<SearchSpec>,
    from: &[SearchId],
) -> Result<Arc<SearchSpec>, Refusal> {
    if from.is_empty() {
        return Ok(spec.clone());
    }
    let mut draft = spec.as_ref().clone().into_draft();
    for id in from {
        let search = find(state, id)?;
        let most = spec.budget.evaluations.map_or(MEMBERS.1, |n| (n / 8).clamp(MEMBERS.0, MEMBERS.1));
        let members = members(search, most as usize);
        if members.is_empty() {
            let problem = "has no front to start from yet: it has no evaluation".to_owned();
            return Err(Refusal::Phase { search: id.clone(), problem });
        }
        for (name, schedule) in members {
            let schedule = if spec.forecast { schedule } else { without_forecasts(&schedule) };
            draft.imported.push(Imported { name, schedule });
        }
    }
    let spec = draft.validate().map_err(|e| Refusal::Specification(e.to_string()))?;
    Ok(Arc::new(spec))
}

fn members(search: &Search, most: usize) -> Vec<(String, Schedule)> {
    let front = search.front();
    let wanted = front.len().min(most);
    let even = (0..wanted).map(|i| front[i * (front.len() - 1) / (wanted - 1).max(1)]);
    even.map(|e| (format!("{}:{}", search.id, e.candidate), e.schedule.as_ref().clone())).collect()
}

fn without_forecasts(schedule: &Schedule) -> Schedule {
    let reuses = Schedule::from_fn(schedule.layout().clone(), schedule.steps(), |step, slot| {
        match schedule.decision(step, slot) {
            Decision::Compute => Decision::Compute,
            Decision::Reuse | Decision::Forecast => Decision::Reuse,
        }
    });
    // The step count is that of a schedule, so it is one that schedules may have.
    reuses.unwrap_or_else(|_| schedule.clone())
}
