//! A backup of a running store: the records of one moment, read in parts. The store is held for one part at a time, so it
//! can write, and even fail and be reopened, in between; after a reopening the moment is gone and the backup fails.

use std::io::Write;
use std::sync::Arc;

use super::mark::Mark;
use super::moment::{KEPT, Whole};
use super::tally::Tally;
use crate::ports::{BackupError, Progress, StoreError};
use crate::store::medium::Visit;
use crate::store::stream::{self, StreamError};

/// A store whose present moment can be read in parts, one moment at a time.
pub(super) trait Moments {
    /// Begins to keep what is overwritten, in at most `most` bytes. Returns the moment's name and its mark.
    fn begin_moment(&self, most: usize) -> Result<(Arc<()>, Mark), StreamError>;
    /// The next records of this moment; none after the last.
    fn next_of_moment(&self, name: &Arc<()>) -> Result<Vec<Whole>, StreamError>;
    /// Compares what was read of a moment with its mark.
    fn judge_moment(&self, mark: &Mark, found: &Tally) -> Result<(), StreamError>;
    /// Keeps nothing more for this moment.
    fn end_moment(&self, name: &Arc<()>);
}

/// A moment that is being read. Dropping it ends the moment, read to its end or not.
pub(super) struct Reading<'a, S: Moments> {
    store: &'a S,
    name: Arc<()>,
    mark: Mark,
}

impl<'a, S: Moments> Reading<'a, S> {
    /// Begins with the store's present moment.
    pub(super) fn begin(store: &'a S, most: usize) -> Result<Self, StreamError> {
        let (name, mark) = store.begin_moment(most)?;
        Ok(Self { store, name, mark })
    }

    /// Visits every record in the order of the keys. An error at the end if they are not those of the moment.
    pub(super) fn records(&self, visit: &mut Visit<'_>) -> Result<(), StreamError> {
        let mut tally = Tally::default();
        loop {
            let part = self.store.next_of_moment(&self.name)?;
            if part.is_empty() {
                return self.store.judge_moment(&self.mark, &tally);
            }
            for (key, head, value) in part {
                tally.add(&key, &head);
                visit(&key, &value)?;
            }
        }
    }
}

impl<S: Moments> Drop for Reading<'_, S> {
    fn drop(&mut self) {
        self.store.end_moment(&self.name);
    }
}

/// Writes all records that a store holds at this moment, while others write.
pub(super) fn write(store: &impl Moments, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<(), BackupError> {
    let written = Reading::begin(store, KEPT).and_then(|reading| {
        let count = reading.mark.tally.holding.records;
        stream::write(count, |visit| reading.records(visit), out, progress)
    });
    written.map(drop).map_err(|e| match e {
        StreamError::Store(e) => e.into(),
        StreamError::Io(e) => BackupError::Untaken(e),
        StreamError::Busy => BackupError::Busy,
        StreamError::Overtaken(most) => BackupError::Overtaken(most),
        e @ (StreamError::Foreign | StreamError::Version { .. } | StreamError::Damaged(_)) => {
            StoreError::Failed(e.to_string()).into()
        }
    })
}
