//! A stored value with its revisions.

use std::fmt;

use crate::LeaseId;
use crate::key::Key;

/// A moment in the store's history; every committed transaction that writes is one. 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// The one after.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its bytes; what they mean is the writer's affair.
    pub value: Vec<u8>,
    /// When the key came into being; a fence for whoever owns it.
    pub created: Revision,
    /// When it was last written.
    pub modified: Revision,
    /// The lease that it vanishes with.
    pub lease: Option<LeaseId>,
}

/// Entries under a prefix, sorted by key, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision then; a watch after it misses nothing.
    pub revision: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
}
