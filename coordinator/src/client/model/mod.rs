//! What the coordinator sends, checked: searches, evaluations, fronts and workers.

pub(super) mod evaluation;
pub(super) mod reference;
pub(super) mod search;
pub(super) mod worker;
