//! Starts a search from the fronts of others: their schedules become its imported schedules.

use std::sync::Arc;

use evocache_proto::domain::{Decision, Imported, Schedule, SearchId, SearchSpec};

use crate::engine::decision::find;
use crate::engine::refusal::Refusal;
use crate::engine::state::{Search, State};

/// Limits of the number of members that represent a large front; between them it is an eighth of the budget.
const MEMBERS: (u64, u64) = (12, 64);

/// The specification with the fronts of `from` added to its imported schedules, named `search:candidate`.
///
/// The schedules are copied, so later changes of the other searches have no effect. If the new search allows no forecasts,
/// forecasts become reuses; if it allows no guidance decisions, every step runs both passes.
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
            let problem = "has no evaluations yet, so no front to start from".to_owned();
            return Err(Refusal::State { search: id.clone(), problem });
        }
        for (name, schedule) in members {
            let schedule = if spec.forecast { schedule } else { without_forecasts(&schedule) };
            let schedule = if spec.guidance_decisions { schedule } else { schedule.without_guidance_decisions() };
            draft.imported.push(Imported { name, schedule });
        }
    }
    let spec = draft.validate().map_err(|e| Refusal::Specification(e.to_string()))?;
    Ok(Arc::new(spec))
}

/// At most `most` members of the front, evenly spaced along it.
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
    // Cannot fail: the step count is that of a valid schedule.
    let reuses = reuses.unwrap_or_else(|_| schedule.clone());
    reuses.with_guidance(|step| schedule.guidance(step))
}
