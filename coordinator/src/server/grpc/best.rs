//! GetBestSchedule: a snapshot of the search for the question, and the answer as a message or a status.
//!
//! What the best schedule is, and how a miss reads, is `evocache_domain::query`.

use evocache_domain::query::{Best, Condition, Miss, Snapshot};
use evocache_proto::domain::{SearchId, SearchRef};
use evocache_proto::pb;
use evocache_proto::wire::Reason;
use tonic::Status;

use super::encode::{self, Row};
use crate::engine::{Refusal, Search};
use crate::server::status;

/// What a question looks at. Cheap: the engine is not to wait for an answer.
pub(super) fn snapshot(search: &Search) -> Snapshot {
    let (model, breeder) = (search.model(), search.breeder());
    let evaluated = |(candidate, ratio)| Some((search.evaluation(candidate)?.clone(), ratio));
    Snapshot {
        spec: search.spec.clone(),
        metrics: model.map_or_else(Vec::new, |model| model.metrics.clone()),
        uncached_us: search.totals.references.uncached_us(),
        evaluated: breeder.into_iter().flat_map(|breeder| breeder.standing().filter_map(evaluated)).collect(),
    }
}

/// The answer, if the search that it was chosen from is still there.
pub(super) fn message(search: &Search, of: &SearchRef, best: Best) -> Result<pb::GetBestScheduleResponse, Status> {
    let evaluation = search.evaluation(best.candidate).filter(|_| search.is(of));
    let evaluation = evaluation.ok_or_else(|| status::refusal(Refusal::NoSearch(search.id.clone())))?;
    Ok(pb::GetBestScheduleResponse {
        evaluation: Some(Row::of(search, evaluation).message()),
        layout: search.model().map(|model| model.layout.as_ref().into()),
        baseline: search.baseline().map(|e| Row::of(search, e).message()),
        speedup: best.speedup,
        quality_ratio: best.quality_ratio,
        quality_metric: best.quality_metric,
        reference_latencies: encode::references(search),
        conditions: best.conditions.into_iter().map(condition).collect(),
    })
}

fn condition(condition: Condition) -> pb::Condition {
    let Condition { metric, operator, value, of_uncached } = condition;
    pb::Condition { metric, operator: pb::Operator::from(operator).into(), value, of_uncached }
}

/// No schedule meets the conditions.
pub(super) fn miss(miss: &Miss) -> Status {
    let mut facts = vec![("nearest_candidate", miss.candidate.to_string())];
    if let Some((condition, value)) = miss.missed.first() {
        facts.push(("missed", condition.to_string()));
        facts.push(("nearest_value", value.to_string()));
        facts.push(("wanted", condition.value.to_string()));
    }
    if let Some((candidate, _)) = &miss.beyond {
        facts.push(("beyond_bounds", candidate.to_string()));
    }
    status::with(Reason::NoSchedule, miss, &facts)
}

/// Nothing is measured yet.
pub(super) fn nothing(search: &SearchId) -> Status {
    status::with(Reason::NoSchedule, format_args!("search '{search}' has no evaluation yet"), &[])
}
