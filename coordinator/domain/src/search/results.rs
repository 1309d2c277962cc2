//! The facts that change a breeder: a candidate was recorded, was measured, failed, or its result is excluded. Does not
//! propose candidates: that is `proposer.rs`.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Maker, Measurement};

use super::breeder::Breeder;
use super::ledger::{Candidate, Status, TellError};
use super::provenance::Proposal;
use super::repeats::Repeated;
use crate::archive::Inserted;
use crate::objective::Observed;

impl Breeder {
    /// Records a proposed candidate. Recording it again changes nothing.
    pub fn record(&mut self, index: CandidateId, proposal: &Proposal) {
        if !self.ledger.add(index, proposal) {
            return;
        }
        if let Some(candidate) = proposal.provenance.repeats() {
            self.repeats.begin(candidate);
        }
        if let Some(candidate) = proposal.provenance.promotes() {
            self.rungs.promote(candidate, proposal.prompts);
        }
        self.skip_known_seeds();
    }

    /// Takes a candidate's measurement. Returns whether it joined the front; `None` for a repeat or a partial result.
    ///
    /// # Errors
    ///
    /// If the candidate is unknown or finished, or the measurement has no score. Check the latter with
    /// [`Objectives::check`](crate::objective::Objectives::check) before storing a result.
    pub fn tell(&mut self, index: CandidateId, measurement: &Measurement) -> Result<Option<Inserted>, TellError> {
        let schedule = &self.ledger.open_candidate(index)?.schedule;
        let observed = self.objectives().observe(measurement, schedule.cache_hit_rate());
        let observed = observed.map_err(|error| TellError::Score(index, error))?;
        let candidate = self.ledger.finish(index, Status::Measured)?;
        let repeated = candidate.provenance.repeats().map(|repeats| {
            self.repeats.end(repeats);
            self.repeats.measured(repeats, index)
        });
        if index == CandidateId(0) || repeated == Some(Repeated::InPlaceOf(CandidateId(0))) {
            self.rungs.set_baseline(measurement);
            self.calibrate(measurement);
        }
        self.knowledge.add_latency(&self.space, candidate.first, &candidate.schedule, measurement.into());
        let joined = match (repeated, candidate.prompts) {
            (Some(Repeated::Another(of)), _) => {
                self.knowledge.add_repeat(of, &observed);
                None
            }
            (None, prompts) if self.rungs.is_partial(prompts) => {
                self.tell_partial(index, &candidate, &observed, measurement);
                None
            }
            (Some(Repeated::InPlaceOf(_)) | None, _) => Some(self.tell_whole(index, &candidate, repeated, observed)),
        };
        if let Some(generations) = &mut self.generations {
            generations.tell(index, self.knowledge.score(index));
        }
        if self.knowledge.is_due() {
            self.rescore();
        }
        let (spent, open) = (self.spent(), self.ledger.open());
        if let Some(link) = &mut self.planner_link {
            link.after_result(measurement.device_time, open, spent);
        }
        Ok(joined)
    }

    /// Takes a partial result.
    fn tell_partial(
        &mut self,
        index: CandidateId,
        candidate: &Candidate,
        observed: &Observed,
        measurement: &Measurement,
    ) {
        let observed = self.knowledge.with_estimated_latency(candidate.first, observed);
        let objectives = self.knowledge.objectives();
        let Some(likely) = self.rungs.tell(index, candidate.prompts, objectives, &observed, measurement) else {
            return;
        };
        if let Some(link) = &mut self.planner_link {
            link.tell(index, &candidate.schedule, &objectives.judge(&likely), false);
        }
    }

    /// Takes the first result of a schedule on all prompts that is not excluded.
    fn tell_whole(
        &mut self,
        index: CandidateId,
        candidate: &Candidate,
        repeated: Option<Repeated>,
        observed: Observed,
    ) -> Inserted {
        // The credit for a replacement goes to the maker of the schedule.
        let made = match repeated {
            Some(Repeated::InPlaceOf(other)) => self.ledger.get(other).map(|other| other.provenance.clone()),
            Some(Repeated::Another(_)) | None => None,
        };
        let maker = made.as_ref().unwrap_or(&candidate.provenance).origin.maker();
        let added = self.knowledge.add(index, candidate.first, observed, maker == Some(&Maker::Seed));
        if let Some(maker) = maker {
            self.credit.book(maker, added.gain);
        }
        if let Some(link) = &mut self.planner_link {
            link.tell(index, &candidate.schedule, &added.score, true);
        }
        added.inserted
    }

    /// Marks a candidate as failed: every attempt failed, or it was canceled. Its schedule is not proposed again.
    ///
    /// # Errors
    ///
    /// If the candidate is unknown or finished.
    pub fn fail(&mut self, index: CandidateId) -> Result<(), TellError> {
        let candidate = self.ledger.finish(index, Status::Failed)?;
        if let Some(repeats) = candidate.provenance.repeats() {
            self.repeats.end(repeats);
        }
        if let Some(generations) = &mut self.generations {
            generations.tell(index, None);
        }
        Ok(())
    }

    /// Excludes a result of a quarantined worker. The schedule is measured again.
    ///
    /// # Errors
    ///
    /// If the candidate is unknown or finished.
    pub fn exclude(&mut self, index: CandidateId) -> Result<(), TellError> {
        let is_repeat = self.ledger.open_candidate(index)?.provenance.repeats().is_some();
        self.fail(index)?;
        if !is_repeat {
            self.repeats.exclude(index);
        }
        Ok(())
    }

    /// The candidate whose results count for this one: itself, unless its own result is excluded and replaced.
    pub fn stand_in(&self, index: CandidateId) -> CandidateId {
        self.repeats.stand_in(index)
    }

    /// Updates all estimates and scores. Called automatically from time to time; call it when the search ends.
    pub fn rescore(&mut self) {
        if !self.knowledge.rescore() {
            return;
        }
        if let Some(link) = &mut self.planner_link {
            link.rescore(self.knowledge.scores());
        }
        let (objectives, front) = (self.knowledge.objectives(), self.knowledge.archive());
        self.rungs.prune(|hopeful| !front.covers(&objectives.judge(hopeful)));
    }

    /// Adds the seeds of a measurement's calibration profile, if it has one.
    fn calibrate(&mut self, measurement: &Measurement) {
        if let Some(profile) = measurement.profile.as_ref().filter(|p| p.slots() == self.space.slots()) {
            let profile = Arc::new(profile.clone());
            self.reseed(Some(profile.clone()));
            if let Some(link) = &mut self.planner_link {
                link.calibrate(profile);
            }
        }
    }
}
