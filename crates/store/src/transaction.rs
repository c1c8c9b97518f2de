//! Compare, then write: all or nothing.

use std::collections::BTreeSet;

use crate::entry::{Entry, Revision};
use crate::key::Key;
use crate::{LeaseId, StoreError};

/// What must hold for a transaction to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent(Key),
    /// There is one.
    Present(Key),
    /// It was last written at this revision.
    Modified(Key, Revision),
    /// It came into being at this revision: the fence of a leader.
    Created(Key, Revision),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Vec<u8>,
        /// The lease it vanishes with from now on.
        lease: Option<LeaseId>,
    },
    /// Removes; a key that is absent stays so.
    Delete(Key),
}

/// Comparisons and writes. Each key is written at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    /// All of these must hold.
    pub compares: Vec<Compare>,
    /// Then all of these happen at one revision.
    pub writes: Vec<Write>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk, at this revision.
    Committed(Revision),
    /// A comparison did not hold; nothing was written.
    Refused {
        /// The first comparison that did not hold.
        compare: Compare,
        /// What is at its key.
        found: Option<Entry>,
        /// The store's revision then; a watch after it misses nothing.
        revision: Revision,
    },
}

impl Outcome {
    /// Whether it was written.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Committed(_))
    }
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key)
            | Self::Present(key)
            | Self::Modified(key, _)
            | Self::Created(key, _) => key,
        }
    }

    /// Whether it holds for what is there.
    pub fn holds(&self, found: Option<&Entry>) -> bool {
        match (self, found) {
            (Self::Absent(_), None) | (Self::Present(_), Some(_)) => true,
            (Self::Modified(_, revision), Some(entry)) => entry.modified == *revision,
            (Self::Created(_, revision), Some(entry)) => entry.created == *revision,
            _ => false,
        }
    }
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

impl Transaction {
    /// One that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: Key, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Put { key, value: value.into(), lease: None });
        self
    }

    /// Adds a put of a key that vanishes with a lease.
    pub fn put_leased(mut self, key: Key, value: impl Into<Vec<u8>>, lease: LeaseId) -> Self {
        self.writes.push(Write::Put { key, value: value.into(), lease: Some(lease) });
        self
    }

    /// Adds a removal.
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write::Delete(key));
        self
    }

    /// Refuses a transaction that writes a key twice.
    pub fn check(&self) -> Result<(), StoreError> {
        let mut seen = BTreeSet::new();
        match self.writes.iter().map(Write::key).find(|key| !seen.insert(*key)) {
            Some(key) => Err(StoreError::WrittenTwice(key.clone())),
            None => Ok(()),
        }
    }
}
