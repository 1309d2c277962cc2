//! The states of a search.

/// Where a search stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchState {
    /// Waits for the first worker with its model.
    Pending,
    /// Hands out candidates.
    Running,
    /// Hands out no candidates until it is resumed.
    Paused,
    /// Has used up its budget, or has no schedule left to try.
    Completed,
    /// Was ended by a caller.
    Stopped,
    /// Cannot go on.
    Failed,
}

impl SearchState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Paused, Self::Completed, Self::Stopped, Self::Failed];

    /// Whether the search has ended.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Paused => false,
            Self::Completed | Self::Stopped | Self::Failed => true,
        }
    }

    /// The name in JSON, labels and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}
