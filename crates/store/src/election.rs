//! One leader at a time.
//!
//! A candidate holds the office while its key, attached to its lease, exists. The key's creation revision is the
//! *fence*: a leader adds [`Leadership::fence`] to every transaction, so that one who lost the office without noticing
//! writes nothing. A leader that could not renew its lease for the lease's whole time considers itself deposed,
//! whatever the store thinks: a lost lease means stop acting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_runtime::clock;

use crate::entry::Revision;
use crate::key::{Key, Prefix};
use crate::transaction::{Compare, Outcome, Transaction};
use crate::{Lease, Store, StoreError};

/// The office, held.
pub struct Leadership {
    store: Arc<dyn Store>,
    key: Key,
    lease: Lease,
    since: Revision,
    renewed: Instant,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership")
            .field("key", &self.key)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}

/// Waits until the office at `key` is ours. `name` is written there, for others to read.
/// Dropping the future gives up the candidacy; a lease it may have taken expires by itself.
pub async fn campaign(
    store: Arc<dyn Store>,
    key: Key,
    name: &str,
    ttl: Duration,
) -> Result<Leadership, StoreError> {
    loop {
        let renewed = clock::now();
        let lease = store.grant(ttl).await?;
        let claim = Transaction::new().when(Compare::Absent(key.clone())).put_leased(
            key.clone(),
            name,
            lease.id,
        );
        let revision = match store.commit(claim).await? {
            Outcome::Committed(since) => {
                return Ok(Leadership { store, key, lease, since, renewed });
            }
            Outcome::Refused { revision, .. } => revision,
        };
        store.revoke(lease.id).await?;
        vacancy(&store, &key, revision).await?;
    }
}

/// Waits until the key is gone.
async fn vacancy(store: &Arc<dyn Store>, key: &Key, after: Revision) -> Result<(), StoreError> {
    let mut watch = store.watch(&Prefix::from(key.clone()), after).await?;
    loop {
        match watch.next().await {
            Ok(changes) if changes.changes.iter().any(|c| c.key == *key && c.now.is_none()) => {
                return Ok(());
            }
            Ok(_) => {}
            Err(StoreError::Compacted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Leadership {
    /// The condition that every transaction of a leader carries.
    pub fn fence(&self) -> Compare {
        Compare::Created(self.key.clone(), self.since)
    }

    /// The fencing token: grows with every new leader.
    pub fn token(&self) -> Revision {
        self.since
    }

    /// Whether the office is still ours for sure, as far as we can tell without asking.
    pub fn is_held(&self, now: Instant) -> bool {
        now < self.renewed + self.lease.ttl
    }

    /// Keeps the office by renewing the lease, and returns when it is lost, with the reason. Cancel-safe: call it again.
    pub async fn hold(&mut self) -> StoreError {
        let mut last = StoreError::LeaseGone(self.lease.id);
        loop {
            let deadline = self.renewed + self.lease.ttl;
            tokio::time::sleep_until((self.renewed + self.lease.ttl / 3).into()).await;
            let asked = clock::now();
            match tokio::time::timeout_at(deadline.into(), self.store.keep_alive(self.lease.id))
                .await
            {
                Ok(Ok(())) => self.renewed = asked,
                Ok(Err(error)) if error.is_passing() && asked < deadline => {
                    last = error;
                    tokio::time::sleep(self.lease.ttl / 20).await;
                }
                Ok(Err(error)) => return error,
                Err(_) => return last,
            }
        }
    }

    /// Gives the office up at once, so that the next one need not wait for the lease to end.
    pub async fn resign(self) -> Result<(), StoreError> {
        self.store.revoke(self.lease.id).await
    }
}
