//! Repeats: which are in progress, and which replace excluded results.
//!
//! A result of a quarantined worker is excluded. The repeat that replaces it joins the front under its own number. Does
//! not decide which schedules are repeated: that is `remeasure.rs`.

use std::collections::BTreeMap;

use evocache_proto::domain::CandidateId;

/// The repeats of a search.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Repeats {
    /// Number of repeats in progress, by candidate.
    under_way: BTreeMap<CandidateId, u32>,
    /// Candidates whose results are excluded, each with the candidate that replaces it.
    excluded: BTreeMap<CandidateId, Option<CandidateId>>,
}

/// The role of a repeat's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Another measurement of this candidate, which has one.
    Another(CandidateId),
    /// The replacement of this candidate's excluded result.
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

    /// Whether a repeat of the candidate is in progress.
    pub(super) fn is_under_way(&self, candidate: CandidateId) -> bool {
        self.under_way.contains_key(&candidate)
    }

    /// Excludes the candidate's result.
    pub(super) fn exclude(&mut self, candidate: CandidateId) {
        self.excluded.insert(candidate, None);
    }

    /// The first excluded candidate without a replacement, measured or in progress.
    pub(super) fn to_replace(&self) -> Option<CandidateId> {
        let mut open = self.excluded.iter().filter(|(_, stands_in)| stands_in.is_none());
        open.find_map(|(&candidate, _)| (!self.is_under_way(candidate)).then_some(candidate))
    }

    /// Records that the repeat `index` of `candidate` was measured, and returns its role.
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

    /// The candidate whose results count for this one: itself, unless its own are excluded and replaced.
    pub(super) fn stand_in(&self, candidate: CandidateId) -> CandidateId {
        self.excluded.get(&candidate).copied().flatten().unwrap_or(candidate)
    }
}
