//! Creates a search.

use std::sync::Arc;

use evocache_proto::domain::{IdError, SearchId, SearchSpec, SearchUid};

use super::transfer::with_fronts;
use crate::engine::command::Answer;
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::State;
use crate::ports::Fact;

pub(in crate::engine) fn create(
    state: &State,
    wanted: Option<&SearchId>,
    spec: &Arc<SearchSpec>,
    from: &[SearchId],
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    if let Some(room) = context.scarce {
        return Err(Refusal::Full(room));
    }
    let internal = |e: IdError| Refusal::Internal(e.to_string());
    let search = match wanted {
        Some(id) if state.searches.contains_key(id) => return Err(Refusal::Exists(id.clone())),
        Some(id) if state.deleted.contains(id) => return Err(Refusal::BeingDeleted(id.clone())),
        Some(id) => id.clone(),
        None => SearchId::new(context.ids.unique()).map_err(internal)?,
    };
    let spec = with_fronts(state, spec, from)?;
    let uid = SearchUid::new(context.ids.unique()).map_err(internal)?;
    let answer = Answer::Search(search.clone());
    Ok(Decision::answer(answer).fact(Fact::SearchCreated { search, uid, spec, at: context.now }))
}
