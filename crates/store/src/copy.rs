//! Moving from one store to another: a machine that becomes a cluster, and a cluster that becomes one machine again.

use std::collections::BTreeMap;

use crate::key::{Key, Prefix};
use crate::transaction::Transaction;
use crate::{Store, StoreError};

/// So much goes into one transaction.
const MOST_WRITES: usize = 64;
const MOST_BYTES: usize = 1 << 20;

/// Makes `to` what `from` is, leased keys left out, and compares both afterwards. Doing it again after an interruption does the
/// rest. Nobody else may write to `from` meanwhile.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<usize, StoreError> {
    copy_some(from, to, |_| true).await
}

/// The same of the keys that are `meant`; what else there is in `to` goes.
pub async fn copy_some(
    from: &dyn Store,
    to: &dyn Store,
    meant: impl Fn(&Key) -> bool,
) -> Result<usize, StoreError> {
    let (mut wanted, there) = (lasting(from).await?, lasting(to).await?);
    wanted.retain(|key, _| meant(key));
    let mut transaction = Transaction::new();
    let mut bytes = 0;
    for key in there.keys().filter(|key| !wanted.contains_key(*key)) {
        transaction = transaction.delete(key.clone());
        flush(to, &mut transaction, &mut bytes, MOST_WRITES).await?;
    }
    for (key, value) in wanted.iter().filter(|(key, value)| there.get(*key) != Some(*value)) {
        if bytes + value.len() > MOST_BYTES {
            flush(to, &mut transaction, &mut bytes, 1).await?;
        }
        bytes += value.len();
        transaction = transaction.put(key.clone(), value.clone());
        flush(to, &mut transaction, &mut bytes, MOST_WRITES).await?;
    }
    flush(to, &mut transaction, &mut bytes, 1).await?;
    match lasting(to).await? == wanted {
        true => Ok(wanted.len()),
        false => Err(StoreError::Failed {
            doing: "copying a store",
            cause: "the copy differs from what was copied; somebody else writes there".into(),
        }),
    }
}

async fn lasting(store: &dyn Store) -> Result<BTreeMap<Key, Vec<u8>>, StoreError> {
    let listing = store.list(&Prefix::all()).await?;
    let lasting = listing.entries.into_iter().filter(|entry| entry.lease.is_none());
    Ok(lasting.map(|entry| (entry.key, entry.value)).collect())
}

/// Commits what has come together, if it is at least so many writes.
async fn flush(
    to: &dyn Store,
    transaction: &mut Transaction,
    bytes: &mut usize,
    least: usize,
) -> Result<(), StoreError> {
    if transaction.writes.len() >= least {
        *bytes = 0;
        to.commit(std::mem::take(transaction)).await?;
    }
    Ok(())
}
