//! Reads all of a store and rebuilds the engine's state from it, as a coordinator would.

use std::path::Path;
use std::time::Duration;

use super::{Damage, Progress, UpkeepError, file, files};
use crate::engine::{Search, State};
use crate::ports::{Store, StoreError};
use crate::server::retry_policy;
use crate::store::{FORMAT_VERSION, LOSS_HINT, RESTORE_HINT, SledStore, inspect};
use evocache_domain::time::Timestamp;

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Storage format.
    pub format: u64,
    /// Records of each kind.
    pub kinds: Vec<(&'static str, u64)>,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Bytes of the folder's files.
    pub on_disk: u64,
    /// What a coordinator would find; empty if something is damaged.
    pub searches: Vec<SearchNote>,
    /// The first damaged records.
    pub damaged: Vec<Damage>,
    /// How many are damaged.
    pub damages: u64,
    /// Records can be read, and yet contradict each other: how.
    pub contradiction: Option<String>,
    /// The records are not all of those that were acknowledged, or that cannot be known: how many are missing, or why.
    pub lost: Option<String>,
}

impl Checked {
    /// Whether a coordinator can run on it.
    pub fn is_sound(&self) -> bool {
        self.findings() == 0
    }

    /// How much is wrong with it.
    pub fn findings(&self) -> u64 {
        self.damages + u64::from(self.contradiction.is_some()) + u64::from(self.lost.is_some())
    }

    /// The way out, if it is not sound.
    pub fn hint(&self) -> &'static str {
        let is_only_lost = self.damages == 0 && self.contradiction.is_none();
        if is_only_lost { LOSS_HINT } else { RESTORE_HINT }
    }

    /// All records that can be read.
    pub fn records(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }
}

/// A search in a few figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchNote {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub phase: String,
    /// Candidates bred.
    pub candidates: u64,
    /// Measurements accepted.
    pub evaluations: u64,
    /// Candidates given up.
    pub failed: u64,
    /// Members of its front.
    pub front: u64,
}

impl SearchNote {
    fn new(search: &Search) -> Self {
        Self {
            id: search.id.to_string(),
            phase: format!("{:?}", search.phase).to_lowercase(),
            candidates: search.candidates.len() as u64,
            evaluations: search.evaluations.len() as u64,
            failed: search.failed,
            front: search.bound.as_ref().map_or(0, |(_, breeder)| breeder.front().members().len() as u64),
        }
    }
}

/// Checks the store in this folder.
pub fn check(data: &Path, progress: &mut Progress<'_>) -> Result<Checked, UpkeepError> {
    let (store, refusal) = SledStore::open_damaged(data)?;
    let seen = inspect(&store, progress)?;
    let mut checked = Checked {
        format: FORMAT_VERSION,
        kinds: seen.kinds,
        bytes: seen.bytes,
        on_disk: files::size(data).map_err(file("read", data))?,
        searches: vec![],
        damaged: seen.damaged,
        damages: seen.damages,
        contradiction: None,
        lost: refusal.or(seen.lost).as_ref().map(ToString::to_string),
    };
    if checked.damages > 0 {
        return Ok(checked);
    }
    let mut facts = vec![];
    match store.replay(&mut |fact| facts.push(fact)) {
        // What is lost is told already; what is left is told all the same. The lease's time to live changes when leases
        // expire, not whether the records fit together.
        Ok(()) | Err(StoreError::Lost { .. }) => {
            match State::recover(facts, Timestamp(0), &retry_policy(Duration::from_secs(60))) {
                Ok(state) => checked.searches = state.searches.values().map(SearchNote::new).collect(),
                Err(e) => checked.contradiction = Some(e.to_string()),
            }
        }
        Err(StoreError::Corrupt { key, problem }) => {
            checked.damaged.push(Damage { key, problem });
            checked.damages = 1;
        }
        Err(other) => return Err(other.into()),
    }
    Ok(checked)
}
