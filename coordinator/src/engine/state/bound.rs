//! A search that its first worker has bound to a model.

use std::sync::Arc;

use evocache_proto::domain::SearchSpec;

use crate::ports::ModelFacts;
use evocache_domain::search::{Breeder, BreederError};

/// The model that a search is bound to, and the breeder that proposes schedules for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// What the first worker declared; later ones must declare the same.
    pub model: ModelFacts,
    /// Proposes candidates and learns from results.
    pub breeder: Breeder,
}

impl Bound {
    /// A search that has just been bound: no candidates yet.
    pub fn new(spec: Arc<SearchSpec>, model: ModelFacts) -> Result<Self, BreederError> {
        let breeder = Breeder::new(spec, model.layout.clone())?;
        Ok(Self { model, breeder })
    }
}
