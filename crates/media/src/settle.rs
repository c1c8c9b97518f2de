//! A path made equal in a folder and in an object store, whichever of them has the newer version.
//!
//! The store is asked before anything is sent or deleted, so it may be done twice, by several nodes at once, and again after one
//! of them has died at any point. What is old goes only when what is new is there.

use std::io;

use parking_lot::Mutex;
use pressroom_model::id::SiteName;

use crate::bucket::{Bucket, Error, Measured};
use crate::exchange::{Stamp, Version};
use crate::folder::{Folder, Heard, Received};
use crate::ledger::Entry;
use crate::object::{Object, Step, plan};
use crate::stored::Stored;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Both sides are equal, or the store has what it needs.
    Equal,
    /// The store has what it needs since now: something was sent or deleted.
    Brought,
    /// A version was fetched, or was not taken any more.
    Fetched(Heard),
    /// Something changed meanwhile, or is being changed: once more, a little later.
    Changing,
}

/// Makes a path equal in `folder` and in `bucket`. `now` in nanoseconds since 1970.
pub async fn settle(
    bucket: &Bucket,
    folder: &Folder,
    stored: &Mutex<Stored>,
    site: &SiteName,
    path: &str,
    now: i64,
) -> Result<Settled, Error> {
    let mut there = bucket.versions(site, path).await?;
    let own = folder.ledger.lock().entries().get(path).cloned();
    let (step, old) = plan(own.as_ref(), &there);
    let mut settled = Settled::Equal;
    match step {
        Step::Send(version) => match send(bucket, folder, site, path, &version).await? {
            Some(object) => {
                there.push(object);
                settled = Settled::Brought;
            }
            None => return Ok(Settled::Changing),
        },
        Step::Fetch(object) => {
            let (version, fetching) = bucket.fetch(site, path, &object).await?;
            let (of, to) = (folder.clone(), path.to_owned());
            let received =
                fetching.read(move |bytes| of.receive(&to, &version, bytes, now)).await?;
            let (Received::There(heard) | Received::Not(heard)) = received;
            settled = Settled::Fetched(heard);
        }
        Step::Nothing => {}
    }
    for object in &old {
        bucket.delete(site, path, object).await?;
        settled = Settled::Brought;
    }
    there.retain(|object| !old.contains(object));
    stored.lock().set(path, known(own.as_ref(), &there));
    // What was deleted or replaced while it was on its way may have been noted before the store was known to have it.
    let is_other = folder.ledger.lock().entries().get(path) != own.as_ref();
    let is_fetched = matches!(settled, Settled::Fetched(_));
    Ok(if is_other && !is_fetched { Settled::Changing } else { settled })
}

/// The version that counts as what the store has: ours, where it has it.
pub fn known(own: Option<&Entry>, there: &[Object]) -> Option<Version> {
    let is_own = |it: &&Object| match own {
        Some(Entry::File(own)) => (own.born, own.stamp()) == (it.version.born, it.version.stamp()),
        _ => false,
    };
    let newest = there.iter().max_by_key(|it| it.version.born);
    Some(there.iter().find(is_own).or(newest)?.version.clone())
}

async fn send(
    bucket: &Bucket,
    folder: &Folder,
    site: &SiteName,
    path: &str,
    version: &Version,
) -> Result<Option<Object>, Error> {
    let (tree, at, stamp) = (folder.tree.clone(), path.to_owned(), version.stamp());
    let measuring = tokio::task::spawn_blocking(move || {
        let is_same = |seen: Stamp| seen == stamp;
        let file = match tree.read(&at) {
            Ok((file, seen)) if is_same(seen) => file,
            Ok(_) => return Ok(None),
            // It went; whoever looks at the folder tells of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let measured = Measured::read(file, stamp)?;
        // What was read is of this version only if it is this version still.
        Ok(measured.filter(|_| tree.stamp(&at).is_ok_and(|seen| seen.is_some_and(is_same))))
    });
    match measuring.await.map_err(io::Error::other)?? {
        Some(measured) => bucket.send(site, path, version, measured).await,
        None => Ok(None),
    }
}
