//! The records of everybody, as the store tells them, and what is left of their leases.
//!
//! Whether a record is there is told by a watch, so that it goes in the moment in which its lease ends. How much is left of a lease
//! nobody tells: it is asked for, sooner the less is left. What was heard last stays while the store is away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pressroom_model::discovery::ROOT;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::entry::{Entry, Revision};
use pressroom_store::key::{Key, Prefix};
use pressroom_store::watch::Changes;
use pressroom_store::{LeaseId, Store, StoreError};
use tokio::sync::watch;

/// Between two tries while the store is away.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks which lease is to be asked for.
const LOOK: Duration = Duration::from_millis(250);
/// A lease is not asked for more often.
const SELDOM: Duration = Duration::from_secs(1);

/// What the store has.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// It is heard now.
    pub is_heard: bool,
    /// The revision of what follows.
    pub revision: Revision,
    /// All records.
    pub entries: BTreeMap<Key, Entry>,
    /// What was left of leases.
    pub leases: BTreeMap<LeaseId, Rest>,
}

/// What was left of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    left: Duration,
    /// The most that was ever left.
    most: Duration,
    at: Instant,
}

impl Rest {
    /// What is left now, if nobody renewed it.
    pub fn now(&self, now: Instant) -> Duration {
        self.left.saturating_sub(now.saturating_duration_since(self.at))
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.at + SELDOM && self.now(now) <= self.most / 2
    }
}

impl Seen {
    fn take(&mut self, changes: Changes) {
        self.revision = changes.revision;
        for change in changes.changes {
            match change.now {
                Some(entry) => drop(self.entries.insert(change.key, entry)),
                None => drop(self.entries.remove(&change.key)),
            }
        }
    }

    /// The leases that somebody should ask for.
    fn due(&self, now: Instant) -> BTreeSet<LeaseId> {
        let leases: BTreeSet<LeaseId> =
            self.entries.values().filter_map(|entry| entry.lease).collect();
        let is_due = |lease: &LeaseId| self.leases.get(lease).is_none_or(|rest| rest.is_due(now));
        leases.into_iter().filter(is_due).collect()
    }

    fn learn(&mut self, lease: LeaseId, left: Option<Duration>, at: Instant) {
        match left {
            Some(left) => {
                let most = self.leases.get(&lease).map_or(left, |rest| rest.most.max(left));
                self.leases.insert(lease, Rest { left, most, at });
            }
            // Its records go when the watch says so.
            None => drop(
                self.leases.insert(lease, Rest { left: Duration::ZERO, most: Duration::ZERO, at }),
            ),
        }
        let used: BTreeSet<LeaseId> = self.entries.values().filter_map(|it| it.lease).collect();
        self.leases.retain(|lease, _| used.contains(lease));
    }
}

fn prefix() -> Prefix {
    Key::literal(ROOT).into()
}

/// Follows the records until the shutdown.
pub async fn follow(store: &dyn Store, seen: &watch::Sender<Seen>, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        if let Err(error) = follow_from_now(store, seen, &shutdown).await {
            let was_heard = seen.borrow().is_heard;
            if was_heard {
                seen.send_modify(|seen| seen.is_heard = false);
                tracing::warn!(%error, "names are not heard any more; the last ones stay");
            }
        }
        tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
    }
}

async fn follow_from_now(
    store: &dyn Store,
    seen: &watch::Sender<Seen>,
    shutdown: &Shutdown,
) -> Result<(), StoreError> {
    let prefix = prefix();
    let listing = store.list(&prefix).await?;
    let mut changes = store.watch(&prefix, listing.revision).await?;
    seen.send_modify(|seen| {
        seen.is_heard = true;
        seen.revision = listing.revision;
        seen.entries =
            listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    });
    loop {
        let next = tokio::select! {
            next = changes.next() => next,
            () = shutdown.requested() => return Ok(()),
        };
        match next {
            // We were too slow: from the beginning.
            Err(StoreError::Compacted { .. }) => return Ok(()),
            next => {
                let next = next?;
                seen.send_modify(|seen| seen.take(next));
            }
        }
    }
}

/// Asks for what is left of leases until the shutdown.
pub async fn look_at_leases(store: &dyn Store, seen: &watch::Sender<Seen>, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        let due = seen.borrow().due(clock::now());
        for lease in due {
            // What is left when it is answered was left, too, when it was asked.
            let asked = clock::now();
            match store.rest(lease).await {
                Ok(left) => seen.send_modify(|seen| seen.learn(lease, left, asked)),
                Err(error) => {
                    tracing::debug!(%error, "nobody says what is left of a lease");
                    break;
                }
            }
        }
        tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
    }
}
