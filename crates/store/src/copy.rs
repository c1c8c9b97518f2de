//! Moving from one store to another: a machine that becomes a cluster, and a cluster that becomes one machine again. And the
//! same by way of a file, for stores whose engine is not ours to copy.

use std::collections::BTreeMap;

use crate::key::{Key, Prefix};
use crate::transaction::Transaction;
use crate::{Store, StoreError};

/// So much goes into one transaction.
const MOST_WRITES: usize = 64;
const MOST_BYTES: usize = 1 << 20;
const FIRST_LINE: &[u8] = b"pressroom state 1\n";

/// What a store has, by key.
pub type Entries = BTreeMap<Key, Vec<u8>>;

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
    let mut wanted = lasting(from).await?;
    wanted.retain(|key, _| meant(key));
    make_equal(to, &wanted).await
}

/// Everything that a store has, leased keys left out, as it is at one revision.
pub async fn lasting(store: &dyn Store) -> Result<Entries, StoreError> {
    let listing = store.list(&Prefix::all()).await?;
    let lasting = listing.entries.into_iter().filter(|entry| entry.lease.is_none());
    Ok(lasting.map(|entry| (entry.key, entry.value)).collect())
}

/// Makes what lasts in `to` these entries and nothing else, and compares afterwards; how many they are. Not at once: whoever
/// reads meanwhile sees some of both.
pub async fn make_equal(to: &dyn Store, wanted: &Entries) -> Result<usize, StoreError> {
    let there = lasting(to).await?;
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
    match lasting(to).await? == *wanted {
        true => Ok(wanted.len()),
        false => Err(StoreError::Failed {
            doing: "copying a store",
            cause: "the copy differs from what was copied; somebody else writes there".into(),
        }),
    }
}

/// Entries as a file has them: a line that says so, then each key and value with its length before it (32 bits, the low
/// byte first).
pub fn to_bytes(entries: &Entries) -> Vec<u8> {
    let mut bytes = FIRST_LINE.to_vec();
    for part in entries.iter().flat_map(|(key, value)| [key.as_str().as_bytes(), value]) {
        let length = u32::try_from(part.len()).expect("no store takes a value of 4 GiB");
        bytes.extend(length.to_le_bytes());
        bytes.extend(part);
    }
    bytes
}

/// The entries of such a file; `None`: it is none.
pub fn from_bytes(bytes: &[u8]) -> Option<Entries> {
    let mut rest = bytes.strip_prefix(FIRST_LINE)?;
    let mut entries = Entries::new();
    while !rest.is_empty() {
        let key = String::from_utf8(part(&mut rest)?.to_vec()).ok()?.parse().ok()?;
        entries.insert(key, part(&mut rest)?.to_vec());
    }
    Some(entries)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(part)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_entries_is_read_as_it_was_written_or_not_at_all() {
        let entries: Entries = [("a", vec![]), ("b/c", vec![0, 255]), ("d", vec![7; 70_000])]
            .map(|(key, value)| (Key::literal(key), value))
            .into();
        let bytes = to_bytes(&entries);
        assert_eq!(from_bytes(&bytes), Some(entries));
        assert_eq!(from_bytes(&to_bytes(&Entries::new())), Some(Entries::new()));
        for cut in [1, 69_999, 70_003] {
            assert_eq!(from_bytes(&bytes[..bytes.len() - cut]), None, "{cut}");
        }
        assert_eq!(from_bytes(b"another file"), None);
    }
}
