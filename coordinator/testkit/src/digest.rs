//! The digest of a coordinator's state: all that a restart keeps, as text, a line for each thing.
//!
//! Deadlines, liveness and failures of workers, and plans are not stored and are left out.

use evocache::engine::{Bound, State};
use evocache_domain::lease::State as Lease;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::CandidateId;

/// Equal for two states exactly if nothing that is kept differs.
pub fn digest(state: &State) -> String {
    let mut text = String::new();
    for search in state.searches.values() {
        let totals = &search.totals;
        text += &format!("search {} {:?} {:?} {:?}\n", search.id, search.phase, search.reason, search.spec);
        text += &format!("{:?} {:?} {:?} {:?}\n", search.created, search.started, search.ended, totals.device_time);
        text += &format!("{} {} {}\n", totals.evaluated_prompts, search.open_prompts, search.failed);
        text += &format!("{:?} {:?} {:?} {:?}\n", search.pending, search.leased, totals.repeats, totals.trust);
        text += &format!("excluded {:?}\n", search.excluded);
        for (i, candidate) in search.candidates.iter().enumerate() {
            let lease = match candidate.lease.clone() {
                Lease::Leased { worker, epoch, attempt, grants, .. } => {
                    Lease::Leased { worker, epoch, deadline: Timestamp(0), attempt, grants }
                }
                other => other,
            };
            text += &format!("candidate {i} {} {:?}", candidate.proposal.schedule.id(), candidate.proposal.provenance);
            text += &format!(" {} {lease:?} {:?}\n", candidate.proposal.prompts.to_number(), candidate.evaluation);
        }
        for evaluation in &search.evaluations {
            text += &format!("evaluation {evaluation:?}\n");
        }
        if let Some(Bound { model, breeder }) = &search.bound {
            text += &format!("{model:?} {:?} {}\n", breeder.front().members(), breeder.hypervolume());
            text += &format!("{:?}\n", breeder.population().collect::<Vec<_>>());
            text += &format!("{:?} {:?}\n", breeder.best_speedup(), breeder.seeds_best_speedup());
            let mut breeder = breeder.clone();
            breeder.restart_planner();
            text += &format!("next {:?}\n", breeder.ask(CandidateId(search.candidates.len() as u64)));
        }
    }
    for (id, worker) in &state.workers {
        text += &format!("worker {id} {:?} {} {}", worker.registration, worker.draining, worker.completed);
        text += &format!(" {:?}\n", worker.quarantine);
    }
    for (id, record) in &state.requests {
        text += &format!("request {id} {record:?}\n");
    }
    text
}
