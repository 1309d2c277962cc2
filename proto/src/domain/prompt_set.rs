//! The prompts of a search on which a candidate is evaluated.

use std::num::NonZeroU32;

/// All prompts of a search, or the first few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromptSet {
    /// The first ones, as many as this.
    First(NonZeroU32),
    /// All prompts.
    All,
}

impl PromptSet {
    /// The set for a number in messages and records, where 0 means all prompts.
    pub fn from_number(number: u32) -> Self {
        NonZeroU32::new(number).map_or(Self::All, Self::First)
    }

    /// The number in messages and records: 0 for all prompts.
    pub fn to_number(self) -> u32 {
        match self {
            Self::All => 0,
            Self::First(count) => count.get(),
        }
    }

    /// The number of prompts in a search with `all` prompts.
    pub fn count(self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::First(count) => usize::try_from(count.get()).unwrap_or(usize::MAX).min(all),
        }
    }
}
