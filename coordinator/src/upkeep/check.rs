//! Reads a whole store and rebuilds the engine's state from it, as a coordinator would.

use std::path::Path;
use std::time::Duration;

use super::error::{UpkeepError, file};
use super::files;
use crate::engine::{Search, State};
use crate::ports::{Progress, Store, StoreError};
use crate::store::{Damage, FORMAT_VERSION, LOSS_HINT, RESTORE_HINT, SledStore, inspect};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Storage format.
    pub format: u64,
    /// The number of records of each kind.
    pub kinds: Vec<(&'static str, u64)>,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Bytes of all files in the folder.
    pub on_disk: u64,
    /// The searches that a coordinator would have; empty if a record is damaged.
    pub searches: Vec<SearchNote>,
    /// The first damaged records.
    pub damaged: Vec<Damage>,
    /// The number of damaged records.
    pub damages: u64,
    /// How records that can be read contradict each other.
    pub contradiction: Option<String>,
    /// How many acknowledged records are missing, or why that is unknown.
    pub lost: Option<String>,
}

impl Checked {
    /// Whether a coordinator can run on it.
    pub fn is_sound(&self) -> bool {
        self.findings() == 0
    }

    /// The number of problems.
    pub fn findings(&self) -> u64 {
        self.damages + u64::from(self.contradiction.is_some()) + u64::from(self.lost.is_some())
    }

    /// The way out, if it is not sound.
    pub fn hint(&self) -> &'static str {
        let is_only_lost = self.damages == 0 && self.contradiction.is_none();
        if is_only_lost { LOSS_HINT } else { RESTORE_HINT }
    }

    /// The number of undamaged records.
    pub fn records(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }
}

/// A search in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchNote {
    /// Its id.
    pub id: String,
    /// Its phase, in lower case.
    pub phase: String,
    /// Number of candidates.
    pub candidates: u64,
    /// Number of evaluations.
    pub evaluations: u64,
    /// Number of failed candidates.
    pub failed: u64,
    /// Number of schedules on its front.
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
            front: search.breeder().map_or(0, |breeder| breeder.front().members().len() as u64),
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
        // A loss is reported already, and the rest is checked all the same. The lease term does not matter here: it
        // changes when leases expire, not whether records agree.
        Ok(()) | Err(StoreError::Lost { .. }) => {
            match State::recover(facts, Timestamp(0), &RetryPolicy::with_ttl(Duration::from_secs(60))) {
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
