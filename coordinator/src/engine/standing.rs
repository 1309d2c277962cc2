//! How a worker stands, and why it or a search has to wait: what people and programs are told. Pure.
//!
//! Absent on purpose: any decision. Who gets what is `grant.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use evocache_proto::domain::WorkerId;

use super::search::Search;
use super::state::{State, Worker};
use crate::ports::Phase;
use evocache_domain::time::Timestamp;

/// Reasons told at a time: one is usually enough, and a hundred workers have the same.
const REASONS: usize = 3;

/// How a worker stands. The first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Others cannot repeat what it has measured.
    Quarantined,
    /// Silent for too long, and without a lease: it has died or left without a word.
    Gone,
    /// Silent for too long; what it has is soon given to others.
    Silent,
    /// Gets no more work.
    Draining,
    /// Heard of lately.
    Alive,
}

impl Worker {
    /// Whether nothing was heard of it for longer than this.
    pub fn is_silent(&self, now: Timestamp, silence: Duration) -> bool {
        now.since(self.seen) > silence
    }

    /// How it stands, if whoever says nothing for longer than `silence` is silent.
    pub fn standing(&self, now: Timestamp, silence: Duration) -> Standing {
        if self.quarantine.is_some() {
            Standing::Quarantined
        } else if self.is_silent(now, silence) {
            if self.leases == 0 { Standing::Gone } else { Standing::Silent }
        } else if self.draining {
            Standing::Draining
        } else {
            Standing::Alive
        }
    }
}

fn goes_on(search: &Search) -> bool {
    matches!(search.phase, Phase::Pending | Phase::Running)
}

/// The first few of them, and how many more there are.
fn join(told: Vec<String>, separator: &str) -> String {
    let more = told.len().saturating_sub(REASONS);
    let mut text = told.into_iter().take(REASONS).collect::<Vec<_>>().join(separator);
    if more > 0 {
        text += &format!("{separator}and {more} more");
    }
    text
}

impl State {
    /// Why there is no work for a worker; empty if it has some, or is to get none.
    pub fn why_idle(&self, worker: &Worker) -> String {
        let declaration = &worker.registration.declaration;
        if worker.leases > 0 || worker.draining || worker.quarantine.is_some() {
            return String::new();
        }
        let on: Vec<&Search> = self.searches.values().filter(|search| goes_on(search)).collect();
        if on.is_empty() {
            return "no search is pending or running".into();
        }
        let mine = on.iter().filter(|search| search.spec.model.name == declaration.model);
        let reasons: Vec<String> = mine
            .map(|search| match search.admits(declaration) {
                Err(why) => format!("search '{}': {why}", search.id),
                Ok(()) if search.is_behind() => {
                    format!("search '{}' is being added up anew, without the results of a worker", search.id)
                }
                Ok(()) => format!("search '{}' has nothing to hand out until results come", search.id),
            })
            .collect();
        if !reasons.is_empty() {
            return join(reasons, "; ");
        }
        let models: BTreeSet<&str> = on.iter().map(|search| search.spec.model.name.as_str()).collect();
        let models = models.into_iter().map(|name| format!("'{name}'")).collect();
        format!("no search is for model '{}'; those that go on are for {}", declaration.model, join(models, ", "))
    }

    /// What a search that goes on waits for; empty if it waits for nothing.
    pub fn why_waiting(&self, search: &Search, now: Timestamp, silence: Duration) -> String {
        if !goes_on(search) || !search.leased.is_empty() {
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

    /// The searches that these workers are busy with.
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
#[path = "standing_tests.rs"]
mod tests;
