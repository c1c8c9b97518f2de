//! Cluster state behind one trait: keys, transactions, watches, leases and election.
//!
//! What operators want (intent) and what is (observed) lives here, and nothing that a plane needs to serve.
//!
//! - [`key`] names of values, and prefixes of them
//! - [`entry`] a stored value with its revisions
//! - [`transaction`] compare, then write all or nothing
//! - [`watch`] what changed since a revision
//! - [`election`] one leader at a time, with a fence
//! - [`embedded`] the store of a single machine, in one file; [`etcd`] that of a cluster; [`mod@copy`] from one to the other, or to a file
//! - [`battery`] the tests that every implementation passes
//!
//! Always: a transaction that was answered `Committed` is on disk. Revisions grow by one with every committed
//! transaction that writes, and by leases that end. A watch shows every revision once, in order, or ends with an error that says it cannot.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

#[doc(hidden)]
pub mod battery;
pub mod copy;
pub mod election;
pub mod embedded;
pub mod entry;
pub mod etcd;
pub mod key;
pub mod transaction;
pub mod watch;

pub use copy::{copy, copy_some};
use entry::{Entry, Listing, Revision};
use key::{Key, Prefix};
use transaction::{Outcome, Transaction};
use watch::Watch;

/// The answer of a store, later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Cluster state. Futures may be dropped; a dropped `commit` may still commit.
pub trait Store: Send + Sync + 'static {
    /// The entry at `key`.
    fn get<'a>(&'a self, key: &'a Key) -> Later<'a, Option<Entry>>;

    /// All entries under `prefix`, sorted by key, as they were at one revision.
    fn list<'a>(&'a self, prefix: &'a Prefix) -> Later<'a, Listing>;

    /// Writes all, if all comparisons hold; otherwise nothing.
    fn commit(&self, transaction: Transaction) -> Later<'_, Outcome>;

    /// Everything that changes under `prefix` after the revision `after`.
    fn watch<'a>(&'a self, prefix: &'a Prefix, after: Revision) -> Later<'a, Watch>;

    /// A new lease. A store may raise a `ttl` that is too short for it.
    fn grant(&self, ttl: Duration) -> Later<'_, Lease>;

    /// Gives the lease its full time again; [`StoreError::LeaseGone`] when it is too late.
    fn keep_alive(&self, lease: LeaseId) -> Later<'_, ()>;

    /// The time that is left of a lease; `None`: it is gone.
    fn rest(&self, lease: LeaseId) -> Later<'_, Option<Duration>>;

    /// Ends the lease; its keys vanish. Ending a lease that is gone is no error.
    fn revoke(&self, lease: LeaseId) -> Later<'_, ()>;
}

/// Names a lease; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A promise to come back in time; keys attached to it vanish when it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// The time that every keep-alive gives it.
    pub ttl: Duration,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller's mistake.
    #[error("the transaction writes `{0}` twice")]
    WrittenTwice(Key),
    /// The caller's mistake: no store need take so much at once.
    #[error("a transaction of {operations} operations and {bytes} bytes is too large")]
    TooLarge {
        /// Comparisons or writes, whichever are more.
        operations: usize,
        /// Bytes.
        bytes: usize,
    },
    /// The lease expired or was revoked: stop acting on it.
    #[error("lease {} is gone", .0.0)]
    LeaseGone(LeaseId),
    /// The changes after this revision are no longer known: list again, then watch from the listing's revision.
    #[error("changes up to revision {oldest} are no longer known")]
    Compacted {
        /// The oldest revision that a watch can start after.
        oldest: Revision,
    },
    /// The store could not read or write; whether a transaction was committed is known only by looking.
    #[error("the store failed while {doing}: {cause}")]
    Failed {
        /// What it was doing.
        doing: &'static str,
        /// What the engine said.
        cause: String,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether asking again may help. A transaction that is asked again needs comparisons that make a second commit harmless.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}
