//! What changed since a revision.
//!
//! A watch shows every transaction once and whole, in order of revision. A reader that is too slow loses the watch
//! rather than a change: [`Watch::next`] then answers [`StoreError::Compacted`], and the reader lists again.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::StoreError;
use crate::entry::{Entry, Revision};
use crate::key::Key;

/// How many transactions may wait for a slow reader.
pub const QUEUE: usize = 1024;

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What it is now; `None`: it was removed, or its lease ended.
    pub now: Option<Entry>,
}

/// One transaction, as far as it concerns the watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Its revision.
    pub revision: Revision,
    /// Its changes; never empty.
    pub changes: Vec<Change>,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    known: VecDeque<Changes>,
    coming: mpsc::Receiver<Result<Changes, StoreError>>,
    last: Revision,
}

impl Watch {
    /// For implementations: first what is known already, then what comes.
    pub fn new(
        after: Revision,
        known: VecDeque<Changes>,
        coming: mpsc::Receiver<Result<Changes, StoreError>>,
    ) -> Self {
        Self { known, coming, last: after }
    }

    /// The next transaction. Cancel-safe. After an error there is nothing more to come.
    pub async fn next(&mut self) -> Result<Changes, StoreError> {
        let changes = match self.known.pop_front() {
            Some(changes) => changes,
            None => self.coming.recv().await.ok_or(StoreError::Closed)??,
        };
        self.last = changes.revision;
        Ok(changes)
    }

    /// The revision of the last transaction that was shown; a new watch after it misses nothing.
    pub fn revision(&self) -> Revision {
        self.last
    }
}
