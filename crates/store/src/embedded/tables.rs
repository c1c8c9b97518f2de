//! What is in the file, and the only code that reads and writes it.
//!
//! `about` holds the version stamp, the current revision, the oldest revision that a watch can start after, and the
//! last lease's number; `entries` what is now; `history` what each revision changed; `leases` their times in
//! milliseconds. All four change together in one transaction of the file.

use std::collections::VecDeque;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::HISTORY;
use crate::entry::{Entry, Listing, Revision};
use crate::key::{Key, Prefix};
use crate::transaction::{Compare, Outcome, Transaction, Write};
use crate::watch::{Change, Changes};
use crate::{LeaseId, StoreError};

/// The version of this layout.
pub(super) const VERSION: u64 = 1;

/// An entry: created, modified, lease (0: none), value.
type Stored<'a> = (u64, u64, u64, &'a [u8]);

pub(super) const ABOUT: TableDefinition<'static, &str, u64> = TableDefinition::new("about");
const ENTRIES: TableDefinition<'static, &str, Stored<'static>> = TableDefinition::new("entries");
/// (revision, place in it) → (key, the entry or nothing).
const HISTORY_TABLE: TableDefinition<'static, (u64, u32), (&str, Option<Stored<'static>>)> =
    TableDefinition::new("history");
const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");

/// Why the file did not do it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The engine's words.
    Engine(redb::Error),
    /// Something in the file that we did not write so.
    Nonsense(String),
    /// The caller's mistake.
    Caller(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl Failure {
    /// Whether the file is to be opened anew.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self, Self::Caller(_))
    }

    pub(super) fn doing(self, doing: &'static str) -> StoreError {
        match self {
            Self::Engine(error) => StoreError::Failed { doing, cause: error.to_string() },
            Self::Nonsense(cause) => StoreError::Failed { doing, cause },
            Self::Caller(error) => error,
        }
    }
}

/// Runs `work` in a transaction that is synced before this returns; a failure leaves nothing behind.
pub(super) fn write<T>(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = database.begin_write()?;
    match work(&transaction) {
        Ok(value) => {
            transaction.commit()?;
            Ok(value)
        }
        Err(failure) => {
            transaction.abort()?;
            Err(failure)
        }
    }
}

/// Makes the tables of a new file.
pub(super) fn create(t: &WriteTransaction) -> Result<(), Failure> {
    t.open_table(ABOUT)?.insert("version", VERSION)?;
    t.open_table(ENTRIES)?;
    t.open_table(HISTORY_TABLE)?;
    t.open_table(LEASES)?;
    Ok(())
}

fn about(table: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64, Failure> {
    Ok(table.get(name)?.map_or(0, |value| value.value()))
}

fn entry(key: &str, (created, modified, lease, value): Stored<'_>) -> Result<Entry, Failure> {
    let key =
        key.parse().map_err(|error: crate::key::BadKey| Failure::Nonsense(error.to_string()))?;
    let lease = (lease != 0).then_some(LeaseId(lease));
    Ok(Entry {
        key,
        value: value.to_vec(),
        created: Revision(created),
        modified: Revision(modified),
        lease,
    })
}

fn find(
    entries: &impl ReadableTable<&'static str, Stored<'static>>,
    key: &Key,
) -> Result<Option<Entry>, Failure> {
    entries.get(key.as_str())?.map(|found| entry(key.as_str(), found.value())).transpose()
}

pub(super) fn get(t: &ReadTransaction, key: &Key) -> Result<Option<Entry>, Failure> {
    find(&t.open_table(ENTRIES)?, key)
}

pub(super) fn list(t: &ReadTransaction, prefix: &Prefix) -> Result<Listing, Failure> {
    let mut listed = Vec::new();
    for found in t.open_table(ENTRIES)?.range(prefix.as_str()..)? {
        let (key, value) = found?;
        if !key.value().starts_with(prefix.as_str()) {
            break;
        }
        let entry = entry(key.value(), value.value())?;
        if entry.key.is_under(prefix) {
            listed.push(entry);
        }
    }
    Ok(Listing { revision: Revision(about(&t.open_table(ABOUT)?, "revision")?), entries: listed })
}

/// Everything under `prefix` that changed after `after`.
pub(super) fn history(
    t: &ReadTransaction,
    prefix: &Prefix,
    after: Revision,
) -> Result<VecDeque<Changes>, Failure> {
    let oldest = Revision(about(&t.open_table(ABOUT)?, "compacted")?);
    if after < oldest {
        return Err(Failure::Caller(StoreError::Compacted { oldest }));
    }
    let mut known: VecDeque<Changes> = VecDeque::new();
    for row in t.open_table(HISTORY_TABLE)?.range((after.next().0, 0)..)? {
        let (place, change) = row?;
        let (revision, (key, now)) = (Revision(place.value().0), change.value());
        let now = now.map(|stored| entry(key, stored)).transpose()?;
        let key: Key = key
            .parse()
            .map_err(|error: crate::key::BadKey| Failure::Nonsense(error.to_string()))?;
        if !key.is_under(prefix) {
            continue;
        }
        let change = Change { key, now };
        match known.back_mut().filter(|last| last.revision == revision) {
            Some(last) => last.changes.push(change),
            None => known.push_back(Changes { revision, changes: vec![change] }),
        }
    }
    Ok(known)
}

pub(super) fn commit(
    t: &WriteTransaction,
    transaction: &Transaction,
) -> Result<(Outcome, Vec<Change>), Failure> {
    let mut about_table = t.open_table(ABOUT)?;
    let current = Revision(about(&about_table, "revision")?);
    let mut entries = t.open_table(ENTRIES)?;
    if let Some((compare, found)) = broken(&entries, &transaction.compares)? {
        return Ok((Outcome::Refused { compare, found, revision: current }, Vec::new()));
    }
    let mut changes = Vec::with_capacity(transaction.writes.len());
    {
        let leases = t.open_table(LEASES)?;
        for write in &transaction.writes {
            changes.extend(apply(&mut entries, &leases, write, current.next())?);
        }
    }
    let revision = record(t, &mut about_table, current, &changes)?;
    Ok((Outcome::Committed(revision), changes))
}

/// The first comparison that does not hold.
fn broken(
    entries: &impl ReadableTable<&'static str, Stored<'static>>,
    compares: &[Compare],
) -> Result<Option<(Compare, Option<Entry>)>, Failure> {
    for compare in compares {
        let found = find(entries, compare.key())?;
        if !compare.holds(found.as_ref()) {
            return Ok(Some((compare.clone(), found)));
        }
    }
    Ok(None)
}

/// One write; removing what is absent changes nothing.
fn apply(
    entries: &mut Table<'_, &'static str, Stored<'static>>,
    leases: &impl ReadableTable<u64, u64>,
    write: &Write,
    revision: Revision,
) -> Result<Option<Change>, Failure> {
    let (key, value, lease) = match write {
        Write::Delete(key) => {
            let was_there = entries.remove(key.as_str())?.is_some();
            return Ok(was_there.then(|| Change { key: key.clone(), now: None }));
        }
        Write::Put { key, value, lease } => (key, value, *lease),
    };
    if let Some(lease) = lease
        && leases.get(lease.0)?.is_none()
    {
        return Err(Failure::Caller(StoreError::LeaseGone(lease)));
    }
    let created = find(entries, key)?.map_or(revision, |old| old.created);
    entries.insert(
        key.as_str(),
        (created.0, revision.0, lease.map_or(0, |l| l.0), value.as_slice()),
    )?;
    let now = Entry { key: key.clone(), value: value.clone(), created, modified: revision, lease };
    Ok(Some(Change { key: key.clone(), now: Some(now) }))
}

/// Makes `changes` the next revision and forgets the one that is too old. No changes: no new revision.
fn record(
    t: &WriteTransaction,
    about_table: &mut Table<'_, &'static str, u64>,
    current: Revision,
    changes: &[Change],
) -> Result<Revision, Failure> {
    if changes.is_empty() {
        return Ok(current);
    }
    let revision = current.next();
    let mut history = t.open_table(HISTORY_TABLE)?;
    for (place, change) in (0_u32..).zip(changes) {
        let now = change.now.as_ref();
        let stored = now
            .map(|e| (e.created.0, e.modified.0, e.lease.map_or(0, |l| l.0), e.value.as_slice()));
        history.insert((revision.0, place), (change.key.as_str(), stored))?;
    }
    let compacted = revision.0.saturating_sub(HISTORY);
    history.retain_in((0, 0)..(compacted + 1, 0), |_, _| false)?;
    about_table.insert("revision", revision.0)?;
    about_table.insert("compacted", compacted)?;
    Ok(revision)
}

pub(super) fn add_lease(t: &WriteTransaction, ttl: Duration) -> Result<LeaseId, Failure> {
    let mut about_table = t.open_table(ABOUT)?;
    let id = about(&about_table, "lease")? + 1;
    about_table.insert("lease", id)?;
    t.open_table(LEASES)?.insert(id, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
    Ok(LeaseId(id))
}

pub(super) fn leases(t: &ReadTransaction) -> Result<Vec<(LeaseId, Duration)>, Failure> {
    let mut known = Vec::new();
    for row in t.open_table(LEASES)?.iter()? {
        let (id, ttl) = row?;
        known.push((LeaseId(id.value()), Duration::from_millis(ttl.value())));
    }
    Ok(known)
}

/// Removes a lease and everything attached to it.
pub(super) fn end_lease(
    t: &WriteTransaction,
    lease: LeaseId,
) -> Result<(Revision, Vec<Change>), Failure> {
    t.open_table(LEASES)?.remove(lease.0)?;
    let mut about_table = t.open_table(ABOUT)?;
    let current = Revision(about(&about_table, "revision")?);
    let mut entries = t.open_table(ENTRIES)?;
    let mut changes = Vec::new();
    for row in entries.iter()? {
        let (key, value) = row?;
        if value.value().2 == lease.0 {
            changes.push(Change { key: entry(key.value(), value.value())?.key, now: None });
        }
    }
    for change in &changes {
        entries.remove(change.key.as_str())?;
    }
    Ok((record(t, &mut about_table, current, &changes)?, changes))
}

/// Checks that all that is stored can be read; `None` when the file is new and empty.
pub(super) fn stamp(t: &ReadTransaction) -> Result<Option<u64>, Failure> {
    if t.list_tables()?.next().is_none() {
        return Ok(None);
    }
    let about_table = t.open_table(ABOUT)?;
    about_table
        .get("version")?
        .map(|v| Some(v.value()))
        .ok_or_else(|| Failure::Nonsense("it has no version".into()))
}
