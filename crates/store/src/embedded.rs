//! The store of a single machine: one file, `state.redb`, opened by one process.
//!
//! Every write is one transaction of the file, synced before it is answered. Writers and new watches take turns under
//! one lock, so watches see revisions in order and without a gap. History is bounded ([`HISTORY`] revisions); a watch
//! that asks for more gets `Compacted`. Leases outlive a restart with their full time again, because time that passed
//! while the store was closed says nothing about their holders.
//!
//! After a failed write (a full disk) the file is opened anew before the next use, so that the store works again as
//! soon as the disk does.
//!
//! - [`open`] opening, version stamp, damage
//! - `tables` what is in the file
//! - `watchers` who is told
//! - `leases` who is late

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pressroom_runtime::tasks::Group;
use redb::{Database, ReadableDatabase};

use crate::entry::{Entry, Listing, Revision};
use crate::key::{Key, Prefix};
use crate::transaction::{Outcome, Transaction};
use crate::watch::{Change, Changes, Watch};
use crate::{Later, Lease, LeaseId, Store, StoreError};

mod leases;
pub mod open;
mod tables;
mod watchers;

use open::{OpenError, Replaced};
use tables::Failure;

/// How many revisions watches can go back.
pub const HISTORY: u64 = 4096;

/// The shortest lease; a shorter one is raised to it.
pub const LEAST_TTL: Duration = Duration::from_millis(100);

/// A store in a file. Clones are the same store; the file is closed with the last of them.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

struct Inner {
    path: PathBuf,
    /// `None` after a failure, until it can be opened again. Readers share it; reopening is exclusive.
    database: RwLock<Option<Database>>,
    /// Held by whoever writes or starts a watch.
    turn: Mutex<watchers::Watchers>,
    leases: Arc<leases::Leases>,
}

impl EmbeddedStore {
    /// Opens or creates the store; `tasks` runs its clock for leases.
    pub async fn open(path: &Path, tasks: &Group) -> Result<Self, OpenError> {
        let path = path.to_owned();
        let inner = blocking(move || Inner::open(path)).await.map_err(|_| OpenError::Closed)??;
        Ok(Self::start(inner, tasks))
    }

    /// Like [`Self::open`], but a damaged file is moved aside, kept, and an empty store takes its place.
    pub async fn open_or_replace(
        path: &Path,
        tasks: &Group,
    ) -> Result<(Self, Option<Replaced>), OpenError> {
        let path = path.to_owned();
        let opened = blocking(move || match Inner::open(path.clone()) {
            Err(OpenError::Damaged { found, .. }) => {
                let replaced = open::move_aside(&path, found)?;
                Ok((Inner::open(path)?, Some(replaced)))
            }
            other => other.map(|inner| (inner, None)),
        });
        let (inner, replaced) = opened.await.map_err(|_| OpenError::Closed)??;
        Ok((Self::start(inner, tasks), replaced))
    }

    fn start(inner: Inner, tasks: &Group) -> Self {
        let inner = Arc::new(inner);
        let (leases, weak) = (Arc::clone(&inner.leases), Arc::downgrade(&inner));
        tasks.spawn("store leases", move |shutdown| leases::expire(leases, weak, shutdown));
        Self { inner }
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Later<'_, T> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { blocking(move || work(&inner)).await? })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)
}

impl Store for EmbeddedStore {
    fn get<'a>(&'a self, key: &'a Key) -> Later<'a, Option<Entry>> {
        let key = key.clone();
        self.run(move |inner| inner.read("reading a key", |t| tables::get(t, &key)))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> Later<'a, Listing> {
        let prefix = prefix.clone();
        self.run(move |inner| inner.read("listing keys", |t| tables::list(t, &prefix)))
    }

    fn commit(&self, transaction: Transaction) -> Later<'_, Outcome> {
        self.run(move |inner| inner.commit(&transaction))
    }

    fn watch<'a>(&'a self, prefix: &'a Prefix, after: Revision) -> Later<'a, Watch> {
        let prefix = prefix.clone();
        self.run(move |inner| inner.watch(prefix, after))
    }

    fn grant(&self, ttl: Duration) -> Later<'_, Lease> {
        self.run(move |inner| inner.grant(ttl.max(LEAST_TTL)))
    }

    fn keep_alive(&self, lease: LeaseId) -> Later<'_, ()> {
        Box::pin(async move { self.inner.leases.renew(lease) })
    }

    fn rest(&self, lease: LeaseId) -> Later<'_, Option<Duration>> {
        Box::pin(async move { Ok(self.inner.leases.rest(lease)) })
    }

    fn revoke(&self, lease: LeaseId) -> Later<'_, ()> {
        self.run(move |inner| inner.end_lease(lease, leases::When::Now))
    }
}

impl Inner {
    fn open(path: PathBuf) -> Result<Self, OpenError> {
        let database = open::open(&path)?;
        let known = open::leases(&path, &database)?;
        Ok(Self {
            path,
            database: RwLock::new(Some(database)),
            turn: Mutex::default(),
            leases: Arc::new(leases::Leases::new(known)),
        })
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.heal(doing)?;
        let database = self.database.read();
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        let transaction =
            database.begin_read().map_err(|error| Failure::from(error).doing(doing))?;
        work(&transaction).map_err(|failure| failure.doing(doing))
    }

    /// One write to the file. The caller holds the turn.
    fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        self.heal(doing)?;
        let result = {
            let database = self.database.read();
            let database = database.as_ref().ok_or(StoreError::Closed)?;
            tables::write(database, work)
        };
        result.map_err(|failure| {
            if failure.is_ours() {
                *self.database.write() = None;
            }
            failure.doing(doing)
        })
    }

    /// Opens the file again after a failure.
    fn heal(&self, doing: &'static str) -> Result<(), StoreError> {
        if self.database.read().is_some() {
            return Ok(());
        }
        let mut slot = self.database.write();
        if slot.is_none() {
            let opened = open::open(&self.path);
            *slot = Some(
                opened.map_err(|error| StoreError::Failed { doing, cause: error.to_string() })?,
            );
        }
        Ok(())
    }

    fn commit(&self, transaction: &Transaction) -> Result<Outcome, StoreError> {
        transaction.check()?;
        let mut watchers = self.turn.lock();
        let (outcome, changes) =
            self.write("committing a transaction", |t| tables::commit(t, transaction))?;
        if let Outcome::Committed(revision) = outcome {
            watchers.tell(&Changes { revision, changes });
        }
        Ok(outcome)
    }

    fn watch(&self, prefix: Prefix, after: Revision) -> Result<Watch, StoreError> {
        let mut watchers = self.turn.lock();
        let known = self.read("starting a watch", |t| tables::history(t, &prefix, after))?;
        Ok(Watch::new(after, known, watchers.add(prefix, after)))
    }

    fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let _turn = self.turn.lock();
        let id = self.write("granting a lease", |t| tables::add_lease(t, ttl))?;
        self.leases.add(id, ttl);
        Ok(Lease { id, ttl })
    }

    /// Removes the lease and its keys, unless `when` says that it must be late and it is not.
    fn end_lease(&self, lease: LeaseId, when: leases::When) -> Result<(), StoreError> {
        let mut watchers = self.turn.lock();
        if !self.leases.take(lease, when) {
            return Ok(());
        }
        let (revision, changes) = self.write("ending a lease", |t| tables::end_lease(t, lease))?;
        self.leases.forget(lease);
        tell_if_any(&mut watchers, revision, changes);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leases.wake();
    }
}

fn tell_if_any(watchers: &mut watchers::Watchers, revision: Revision, changes: Vec<Change>) {
    if !changes.is_empty() {
        watchers.tell(&Changes { revision, changes });
    }
}
