//! Repeated measurements: which are under way, and which stand in for results that are excluded.
//!
//! A result of a quarantined worker counts as if it had never been measured. The measurement that replaces it is a member of
//! the front under its own number. Which schedules are measured again, and when, is decided in `remeasure.rs`.

use std::collections::BTreeMap;

use evocache_proto::domain::CandidateId;

/// The repeats of a search.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Repeats {
    /// How many repeats of a candidate are under way.
    under_way: BTreeMap<CandidateId, u32>,
    /// Candidates whose results are excluded, each with the candidate that stands in for it.
    excluded: BTreeMap<CandidateId, Option<CandidateId>>,
}

/// What a repeated measurement adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Another measurement of this candidate, which has one.
    Another(CandidateId),
    /// The first measurement that counts of this candidate's schedule.
    InPlaceOf(CandidateId),
}

impl Repeats {
    pub(super) fn begin(&mut self, candidate: CandidateId) {
        *self.under_way.entry(candidate).or_default() += 1;
    }

    pub(super) fn end(&mut self, candidate: CandidateId) {
        if let Some(count) = self.under_way.get_mut(&candidate) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&candidate);
            }
        }
    }

    /// Whether a repeat of the candidate is under way.
    pub(super) fn is_under_way(&self, candidate: CandidateId) -> bool {
        self.under_way.contains_key(&candidate)
    }

    /// The candidate's result is excluded.
    pub(super) fn exclude(&mut self, candidate: CandidateId) {
        self.excluded.insert(candidate, None);
    }

    /// The first excluded candidate whose schedule still has to be measured and that nobody is measuring.
    pub(super) fn to_replace(&self) -> Option<CandidateId> {
        let mut open = self.excluded.iter().filter(|(_, stands_in)| stands_in.is_none());
        open.find_map(|(&candidate, _)| (!self.is_under_way(candidate)).then_some(candidate))
    }

    /// What the repeat `index` of a candidate adds, now that it is measured.
    pub(super) fn measured(&mut self, candidate: CandidateId, index: CandidateId) -> Repeated {
        match self.excluded.get_mut(&candidate) {
            None => Repeated::Another(candidate),
            Some(Some(stands_in)) => Repeated::Another(*stands_in),
            Some(open) => {
                *open = Some(index);
                Repeated::InPlaceOf(candidate)
            }
        }
    }

    /// The candidate whose results count for this one: itself, unless its own are excluded and have been replaced.
    pub(super) fn stand_in(&self, candidate: CandidateId) -> CandidateId {
        self.excluded.get(&candidate).copied().flatten().unwrap_or(candidate)
    }
}
