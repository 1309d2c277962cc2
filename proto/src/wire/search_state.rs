//! The states of a search.

use crate::domain::SearchState;
use crate::pb;

impl From<SearchState> for pb::SearchState {
    fn from(state: SearchState) -> Self {
        match state {
            SearchState::Pending => Self::Pending,
            SearchState::Running => Self::Running,
            SearchState::Paused => Self::Paused,
            SearchState::Completed => Self::Completed,
            SearchState::Stopped => Self::Stopped,
            SearchState::Failed => Self::Failed,
        }
    }
}

/// Reads a state; `None` for an unknown or unspecified one.
pub fn search_state(value: i32) -> Option<SearchState> {
    match pb::SearchState::try_from(value).ok()? {
        pb::SearchState::Pending => Some(SearchState::Pending),
        pb::SearchState::Running => Some(SearchState::Running),
        pb::SearchState::Paused => Some(SearchState::Paused),
        pb::SearchState::Completed => Some(SearchState::Completed),
        pb::SearchState::Stopped => Some(SearchState::Stopped),
        pb::SearchState::Failed => Some(SearchState::Failed),
        pb::SearchState::Unspecified => None,
    }
}
