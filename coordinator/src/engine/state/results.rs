//! How a search takes in its results: totals, comparison of workers, the breeder.

use std::sync::Arc;

use super::inconsistent::Inconsistent;
use super::search::Search;
use evocache_domain::evaluation::Evaluation;
use evocache_domain::search::TellError;

impl Search {
    /// Takes the next evaluation.
    pub(super) fn evaluated(&mut self, sequence: u64, mut evaluation: Arc<Evaluation>) -> Result<(), Inconsistent> {
        let (id, candidate) = (self.id.clone(), evaluation.candidate);
        if sequence != self.evaluations.len() as u64 {
            return Err(Inconsistent(format!("search '{id}': evaluation {sequence} out of order")));
        }
        let index = self.evaluations.len();
        let Some(entry) = self.candidate_mut(candidate).filter(|c| c.evaluation.is_none()) else {
            return Err(Inconsistent(format!("search '{id}': candidate {candidate} is unknown or already evaluated")));
        };
        entry.evaluation = Some(index);
        // A rebuild gets to it later.
        if !self.is_rebuilding() {
            let added = self.add_up(sequence, &evaluation);
            added.map_err(|e| Inconsistent(format!("search '{id}', candidate {candidate}: {e}")))?;
        }
        // Thumbnails stay in the store: in memory they would outweigh everything else.
        if !evaluation.measurement.thumbnails.is_empty() {
            Arc::make_mut(&mut evaluation).measurement.thumbnails = vec![];
        }
        self.evaluations.push(evaluation);
        Ok(())
    }

    /// Adds an evaluation to the totals and tells the breeder. `sequence` evaluations came before it.
    pub(super) fn add_up(&mut self, sequence: u64, evaluation: &Evaluation) -> Result<(), TellError> {
        self.take_in(evaluation)?;
        if self.settled.contains(&(sequence + 1))
            && let Some(breeder) = self.breeder_mut()
        {
            breeder.rescore();
        }
        Ok(())
    }

    fn take_in(&mut self, evaluation: &Evaluation) -> Result<(), TellError> {
        self.totals.device_time = self.totals.device_time.saturating_add(evaluation.measurement.device_time);
        if self.excluded.contains(&evaluation.worker) {
            return self.breeder_mut().map_or(Ok(()), |breeder| breeder.exclude(evaluation.candidate));
        }
        self.totals.references.tell(&evaluation.device, evaluation.measurement.baseline_latency());
        if let Some(bound) = &mut self.bound {
            if bound.breeder.objectives().include_latency_us() {
                bound.breeder.set_uncached_latency(self.totals.references.uncached_us());
            }
            bound.breeder.tell(evaluation.candidate, &evaluation.measurement)?;
        }
        let prompts = self.prompts_of(evaluation.candidate);
        self.totals.evaluated_prompts += prompts as u64;
        if prompts == self.spec.prompts.len() {
            self.compare(evaluation);
        }
        if let Some(first) = evaluation.provenance.repeats() {
            self.totals.repeats.entry(first).or_default().push(evaluation.candidate);
        }
        Ok(())
    }

    /// Compares a result with those of other workers for the same schedule.
    fn compare(&mut self, evaluation: &Evaluation) {
        let first = evaluation.provenance.repeats();
        let repeats = first.and_then(|first| self.totals.repeats.get(&first));
        let measured = first.into_iter().chain(repeats.into_iter().flatten().copied());
        let others: Vec<Arc<Evaluation>> = measured
            .filter(|&id| id != evaluation.candidate && self.prompts_of(id) == self.spec.prompts.len())
            .filter_map(|id| self.evaluation(id).filter(|e| !self.excluded.contains(&e.worker)).cloned())
            .collect();
        let others = others.iter().map(|other| (&other.worker, &other.measurement));
        self.totals.trust.tell(&evaluation.worker, &evaluation.measurement, others);
    }
}
