//! Results that are not believed: they count as if nobody had measured, and their schedules are measured again.
//!
//! What is measured again stands in for what is not believed: it is a member of the front under its own number. Absent:
//! who is not to be believed (`domain/trust.rs`), and how a breeder forgets what it was told: it is made anew.

use std::collections::BTreeMap;

use evocache_proto::domain::CandidateId;

use super::breeder::{Breeder, TellError};

/// Candidates whose results are not believed, and who stands in for each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Disowned(BTreeMap<CandidateId, Option<CandidateId>>);

/// Whose result a repeated measurement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    /// Another one of this candidate, which has one.
    Again(CandidateId),
    /// The first that is believed of the candidate's schedule.
    InPlaceOf(CandidateId),
}

impl Disowned {
    /// The first whose schedule is still to be measured, of those that nobody is at.
    pub(super) fn waiting(&self, is_under_way: impl Fn(CandidateId) -> bool) -> Option<CandidateId> {
        let mut waiting = self.0.iter().filter(|(_, stands_in)| stands_in.is_none());
        waiting.find_map(|(&candidate, _)| (!is_under_way(candidate)).then_some(candidate))
    }

    /// What the candidate's repeated measurement `index` is.
    pub(super) fn repeated(&mut self, candidate: CandidateId, index: CandidateId) -> Repeats {
        match self.0.get_mut(&candidate) {
            None => Repeats::Again(candidate),
            Some(Some(stands_in)) => Repeats::Again(*stands_in),
            Some(nobody) => {
                *nobody = Some(index);
                Repeats::InPlaceOf(candidate)
            }
        }
    }

    fn stands_in(&self, candidate: CandidateId) -> CandidateId {
        self.0.get(&candidate).copied().flatten().unwrap_or(candidate)
    }
}

impl Breeder {
    /// The candidate was measured by somebody who is not believed.
    pub fn disown(&mut self, index: CandidateId) -> Result<(), TellError> {
        let repeats = self.candidates.get(&index).and_then(|candidate| candidate.again);
        self.fail(index)?;
        if repeats.is_none() {
            self.disowned.0.insert(index, None);
        }
        Ok(())
    }

    /// Who stands in for a candidate: itself, unless its result is not believed and that of another is.
    pub fn stand_in(&self, index: CandidateId) -> CandidateId {
        self.disowned.stands_in(index)
    }

    /// Goes on in the place of another breeder whose models may still answer.
    pub fn succeed(&mut self, other: &Self) {
        self.resume();
        if let (Some(mine), Some(theirs)) = (&mut self.advised, &other.advised) {
            mine.number_after(theirs);
        }
    }
}
