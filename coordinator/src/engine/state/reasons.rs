//! Why a worker has no work and what a search waits for, as text for people. Decides nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use evocache_proto::domain::WorkerId;

use super::root::State;
use super::search::Search;
use super::worker::{Standing, Worker};
use evocache_domain::time::Timestamp;

/// The most reasons to list: usually one is enough, and a hundred workers have the same.
const REASONS: usize = 3;

/// The first few, and how many more there are.
fn join(reasons: Vec<String>, separator: &str) -> String {
    let more = reasons.len().saturating_sub(REASONS);
    let mut text = reasons.into_iter().take(REASONS).collect::<Vec<_>>().join(separator);
    if more > 0 {
        text += &format!("{separator}and {more} more");
    }
    text
}

impl State {
    /// Why there is no work for a worker. Empty if it has work, is draining or in quarantine.
    pub fn why_idle(&self, worker: &Worker) -> String {
        let declaration = &worker.registration.declaration;
        if worker.leases > 0 || worker.draining || worker.quarantine.is_some() {
            return String::new();
        }
        let active: Vec<&Search> = self.searches.values().filter(|search| search.is_active()).collect();
        if active.is_empty() {
            return "no search is pending or running".into();
        }
        let mine = active.iter().filter(|search| search.spec.model.name == declaration.model);
        let reasons: Vec<String> = mine
            .map(|search| match search.admits(declaration) {
                Err(why) => format!("search '{}': {why}", search.id),
                Ok(()) if search.is_rebuilding() => {
                    format!("search '{}' is excluding the results of a quarantined worker", search.id)
                }
                Ok(()) => format!("search '{}' has no candidate until more results arrive", search.id),
            })
            .collect();
        if !reasons.is_empty() {
            return join(reasons, "; ");
        }
        let models: BTreeSet<&str> = active.iter().map(|search| search.spec.model.name.as_str()).collect();
        let models = models.into_iter().map(|name| format!("'{name}'")).collect();
        format!("no search is for model '{}'; the active ones are for {}", declaration.model, join(models, ", "))
    }

    /// What an active search waits for. Empty if it does not wait.
    pub fn why_waiting(&self, search: &Search, now: Timestamp, silence: Duration) -> String {
        if !search.is_active() || !search.leased.is_empty() {
            return String::new();
        }
        let model = &search.spec.model.name;
        let here = |worker: &&Worker| {
            worker.registration.declaration.model == *model
                && matches!(worker.standing(now, silence), Standing::Alive | Standing::Silent)
        };
        let (mut able, mut busy) = (0, vec![]);
        let mut refusals = vec![];
        for (id, worker) in self.workers.iter().filter(|(_, worker)| here(worker)) {
            let declaration = &worker.registration.declaration;
            match search.admits(declaration) {
                Ok(()) if worker.leases > 0 => busy.push(id),
                Ok(()) => able += 1,
                Err(why) => refusals.push(format!("worker '{}' cannot take it: {why}", declaration.name)),
            }
        }
        if able > 0 {
            return String::new();
        }
        if busy.is_empty() && refusals.is_empty() {
            return format!("waits for a worker with model '{model}'");
        }
        if busy.is_empty() {
            return join(refusals, "; ");
        }
        let (workers, is) = if busy.len() == 1 { ("worker", "is") } else { ("workers", "are") };
        format!(
            "waits for its turn: {} {workers} that can take it {is} busy with {}",
            busy.len(),
            self.served_by(&busy)
        )
    }

    /// The searches of which these workers hold leases.
    fn served_by(&self, workers: &[&WorkerId]) -> String {
        let holds = |search: &&Search| {
            let mut holders = search.leased.iter().filter_map(|&id| search.candidate(id)?.lease.holder());
            holders.any(|holder| workers.contains(&holder))
        };
        let names = self.searches.values().filter(holds).map(|search| format!("'{}'", search.id)).collect();
        join(names, ", ")
    }
}

#[cfg(test)]
#[path = "reasons_tests.rs"]
mod tests;
