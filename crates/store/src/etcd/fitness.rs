//! Whether an etcd that others keep will do: asked before anything is moved there, and changing nothing that is not ours.

use std::time::Duration;

use super::EtcdStore;
use super::connection::Again;
use super::proto::{RangeRequest, RangeResponse};
use crate::key::{Key, Prefix};
use crate::transaction::Transaction;
use crate::{Store, StoreError};

/// The oldest etcd that is spoken to, as major and minor version.
pub const OLDEST: (u32, u32) = (3, 4);

/// A key that is written for a moment is gone by itself after so long, if we are.
const TRIAL: Duration = Duration::from_secs(10);
/// Longest wait until a watch shows what was written.
const SHOWN: Duration = Duration::from_secs(3);

/// Whether a version as etcd says it is [`OLDEST`] or newer.
pub fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (parts.next().flatten(), parts.next().flatten());
    major.zip(minor).is_some_and(|version| version >= OLDEST)
}

impl EtcdStore {
    /// Whether nothing at all is below our prefix, keys that are none of ours included.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let (key, range_end) = self.range(&Prefix::all());
        let question =
            RangeRequest { key, range_end, limit: 1, keys_only: true, ..Default::default() };
        let asked: RangeResponse = self
            .ask_for("listing keys", "/etcdserverpb.KV/Range", question, Again::Harmless)
            .await?;
        Ok(asked.kvs.is_empty())
    }

    /// Does once, below our prefix, everything that a store has to do: a lease, a write under it, a watch that shows it, a read, a
    /// deletion. Nothing of it stays.
    pub async fn try_out(&self) -> Result<(), StoreError> {
        let failed =
            |cause: &str| StoreError::Failed { doing: "trying etcd out", cause: cause.into() };
        let key: Key = format!("trial/{:016x}", rand::random::<u64>()).parse().expect("a good key");
        let prefix = Prefix::from(key.clone());
        let before = self.list(&prefix).await?.revision;
        let lease = self.grant(TRIAL).await?;
        let mut watch = self.watch(&prefix, before).await?;
        self.commit(Transaction::new().put_leased(key.clone(), "x", lease.id)).await?;
        let shown = tokio::time::timeout(SHOWN, watch.next()).await;
        shown.map_err(|_| failed("a watch does not show what was written"))??;
        if self.get(&key).await?.is_none() {
            return Err(failed("what was written cannot be read"));
        }
        self.keep_alive(lease.id).await?;
        self.commit(Transaction::new().delete(key)).await?;
        self.revoke(lease.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_is_new_enough_from_3_4_on() {
        for good in ["3.4.0", "3.4.23", "3.10.1", "3.6.0-rc.1", "4.0.0"] {
            assert!(is_new_enough(good), "{good}");
        }
        for bad in ["3.3.27", "2.4.0", "", "3", "new"] {
            assert!(!is_new_enough(bad), "{bad}");
        }
    }
}
