//! Purges between edges.
//!
//! Each edge numbers its purges and keeps them until every other edge has confirmed them. A batch says what number it begins with;
//! an edge that finds a gap, or hears another epoch, has missed something and makes all pages of all sites stale: then nothing
//! wrong can be served as fresh, whatever it was. A batch goes out at once, and an empty one a few times a second, so that an
//! edge that was away hears soon what it missed.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use parking_lot::Mutex;
use pressroom_model::affirmation::{NodeReceipt, Purge};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::http::any_body;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::Mesh;
use crate::Shared;
use crate::cache;

/// Where batches are sent.
pub(crate) const PATH: &str = "/.pressroom/mesh/purges";
/// An edge that confirms later is told of as one that owes its receipt.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// Longest wait for the answer to a batch.
const BATCH: Duration = Duration::from_millis(1500);
/// Between two batches where there is nothing to send.
const BEAT: Duration = Duration::from_millis(250);
/// Purges that are kept for an edge that is away. One that missed more finds a gap.
const KEPT: usize = 4096;
/// An edge that was not heard for so long is away.
const SILENCE: Duration = Duration::from_secs(2);

/// One purge of our own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Item {
    site: SiteName,
    purge: Purge,
}

/// Purges in a row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// The stream: another one means that the sender forgot where it was.
    epoch: u64,
    /// The number of the first one; without any, the number that the next one will have.
    first: u64,
    items: Vec<Item>,
}

/// What an edge says to a batch: for each of its purges how many pages it made stale.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    pages: Vec<u64>,
}

/// Our own stream.
pub struct Outbox {
    path: PathBuf,
    state: Mutex<Sending>,
    wake: Notify,
}

struct Sending {
    epoch: u64,
    /// The number of the first one in `items`.
    first: u64,
    items: VecDeque<Item>,
    /// Who waits for which number's receipts.
    waiting: Vec<(u64, mpsc::UnboundedSender<NodeReceipt>)>,
}

/// Where a stream is, on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    epoch: u64,
    next: u64,
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).expect("plain data");
    // Without it an edge finds a gap after our restart, which is safe.
    let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path));
}

impl Outbox {
    /// The stream goes on where it was, so that a restart of ours is no gap for others.
    pub(crate) fn open(path: &Path) -> Self {
        let place = read(path).unwrap_or(Place { epoch: rand::random::<u64>() >> 1, next: 1 });
        let state = Sending {
            epoch: place.epoch,
            first: place.next,
            items: VecDeque::new(),
            waiting: Vec::new(),
        };
        Self { path: path.to_owned(), state: Mutex::new(state), wake: Notify::new() }
    }

    /// Adds a purge; the receipts of other edges come to the receiver.
    pub fn push(&self, site: &SiteName, purge: &Purge) -> mpsc::UnboundedReceiver<NodeReceipt> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.items.push_back(Item { site: site.clone(), purge: purge.clone() });
        if state.items.len() > KEPT {
            state.items.pop_front();
            state.first += 1;
        }
        let number = state.first + state.items.len() as u64 - 1;
        state.waiting.retain(|(_, sender)| !sender.is_closed());
        state.waiting.push((number, sender));
        // Before anybody hears of it: a number is never given twice.
        write(&self.path, &Place { epoch: state.epoch, next: number + 1 });
        drop(state);
        self.wake.notify_waiters();
        receiver
    }

    /// What an edge lacks that has confirmed everything before `next`; and the number behind it.
    fn batch(&self, next: Option<u64>) -> (Batch, u64) {
        let state = self.state.lock();
        let end = state.first + state.items.len() as u64;
        let first = next.unwrap_or(state.first).clamp(state.first, end);
        let skip = usize::try_from(first - state.first).unwrap_or(usize::MAX);
        let items = state.items.iter().skip(skip).cloned().collect();
        (Batch { epoch: state.epoch, first, items }, end)
    }

    fn confirm(&self, node: &NodeName, batch: &Batch, confirmed: &Confirmed, ms: u64) {
        let state = self.state.lock();
        for (number, sender) in &state.waiting {
            let Some(at) = number.checked_sub(batch.first) else { continue };
            if at >= batch.items.len() as u64 {
                continue;
            }
            let pages = usize::try_from(at).ok().and_then(|at| confirmed.pages.get(at).copied());
            let receipt =
                NodeReceipt { node: node.clone(), ok: true, ms, pages: pages.unwrap_or_default() };
            // Who asked may have stopped waiting.
            let _ = sender.send(receipt);
        }
    }

    /// Forgets what everybody has.
    fn forget(&self, before: u64) {
        let mut state = self.state.lock();
        while state.first < before && state.items.pop_front().is_some() {
            state.first += 1;
        }
    }
}

/// Sends our stream to every other edge, for as long as the process runs.
pub(crate) async fn send(mesh: Arc<Mesh>, stop: Shutdown) {
    let confirmed: Arc<Mutex<BTreeMap<NodeName, u64>>> = Arc::default();
    let mut running: BTreeMap<NodeName, tokio::task::JoinHandle<()>> = BTreeMap::new();
    while !stop.is_requested() {
        let others = mesh.others();
        running.retain(|node, task| {
            let stays = others.contains(node);
            if !stays {
                task.abort();
                confirmed.lock().remove(node);
            }
            stays
        });
        for node in others {
            let (own, known, to) = (Arc::clone(&mesh), Arc::clone(&confirmed), node.clone());
            running.entry(node).or_insert_with(|| tokio::spawn(send_to(own, to, known)));
        }
        // What everybody has need not be kept; for one that is away it is kept as far as there is room.
        let least = confirmed.lock().values().min().copied();
        if let Some(least) = least.filter(|_| confirmed.lock().len() == running.len()) {
            mesh.outbox.forget(least);
        }
        tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(BEAT) => {} }
    }
    running.into_values().for_each(|task| task.abort());
}

async fn send_to(mesh: Arc<Mesh>, node: NodeName, confirmed: Arc<Mutex<BTreeMap<NodeName, u64>>>) {
    let (mut next, mut patience) = (None, BATCH);
    loop {
        let woken = mesh.outbox.wake.notified();
        let mut woken = std::pin::pin!(woken);
        // From now on nothing that is pushed goes unnoticed.
        woken.as_mut().enable();
        let (batch, end) = mesh.outbox.batch(next);
        let begun = clock::now();
        let sent = tokio::time::timeout(patience, send_batch(&mesh, &node, &batch)).await;
        let is_sent = matches!(sent, Ok(Some(_)));
        // One that is away is tried again often: it serves what it must not until it hears of it.
        patience = if is_sent { BATCH } else { BATCH / 4 };
        if let Ok(Some(said)) = sent {
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            mesh.outbox.confirm(&node, &batch, &said, ms);
            next = Some(end);
            confirmed.lock().insert(node.clone(), end);
        }
        if is_sent && mesh.outbox.batch(next).0.items.is_empty() {
            tokio::select! { () = woken => {}, () = tokio::time::sleep(BEAT) => {} }
        } else if !is_sent {
            tokio::time::sleep(BEAT / 2).await;
        }
    }
}

async fn send_batch(mesh: &Mesh, node: &NodeName, batch: &Batch) -> Option<Confirmed> {
    let text = serde_json::to_vec(batch).expect("plain data");
    let request = Request::post(PATH).body(any_body(Full::new(Bytes::from(text)))).ok()?;
    let answer = mesh.client.call(node, request).await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let body = Limited::new(answer.into_body(), 1 << 20).collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// What was heard of other edges' streams.
pub struct Inbox {
    path: PathBuf,
    heard: Mutex<BTreeMap<NodeName, Place>>,
    at: Mutex<BTreeMap<NodeName, Instant>>,
}

impl Inbox {
    pub(crate) fn open(path: &Path) -> Self {
        let heard = Mutex::new(read(path).unwrap_or_default());
        Self { path: path.to_owned(), heard, at: Mutex::default() }
    }

    /// Keeps on disk where the streams are.
    pub(crate) async fn keep(&self, stop: Shutdown) {
        let mut kept = None;
        while !stop.is_requested() {
            let heard = self.heard.lock().clone();
            if kept.as_ref() != Some(&heard) {
                write(&self.path, &heard);
                kept = Some(heard);
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(BEAT * 2) => {} }
        }
        write(&self.path, &*self.heard.lock());
    }

    /// Whether all of these edges were heard lately.
    pub fn hears(&self, others: &[NodeName]) -> bool {
        let now = clock::now();
        let at = self.at.lock();
        others.iter().all(|node| at.get(node).is_some_and(|at| now < *at + SILENCE))
    }

    /// Applies a batch of another edge.
    pub(crate) async fn take(&self, shared: &Shared, from: &NodeName, batch: Batch) -> Confirmed {
        let next = batch.first + batch.items.len() as u64;
        let place = Place { epoch: batch.epoch, next: batch.first };
        let known = self.heard.lock().get(from).copied();
        let mut pages = Vec::new();
        if known.is_some_and(|known| known != place) {
            tracing::warn!(%from, ?known, ?place, "purges were missed: all pages are made stale");
            for site in &shared.view.load().sites {
                let because = "purges of another edge were missed";
                let _ = shared.cache.purge_here(&site.cached, &cache::all(), because, cache::now());
            }
        }
        let mut written = Vec::new();
        for item in &batch.items {
            let Some(site) = shared.cache.known_site(&item.site) else {
                pages.push(0);
                continue;
            };
            let purged = shared.cache.purge_here(&site, &item.purge, "another edge", cache::now());
            pages.push(purged.pages);
            written.push(purged);
        }
        for purged in written {
            purged.receipt().await;
        }
        self.heard.lock().insert(from.clone(), Place { epoch: batch.epoch, next });
        self.at.lock().insert(from.clone(), clock::now());
        Confirmed { pages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge() -> Purge {
        Purge { all: true, ..Purge::default() }
    }

    #[test]
    fn a_stream_goes_on_after_a_restart_and_a_number_is_never_given_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("purges.json");
        let site: SiteName = "blog".parse().expect("a name");
        let outbox = Outbox::open(&path);
        drop(outbox.push(&site, &purge()));
        drop(outbox.push(&site, &purge()));
        let (batch, end) = outbox.batch(None);
        assert_eq!((batch.first, batch.items.len(), end), (1, 2, 3));
        assert!(outbox.batch(Some(3)).0.items.is_empty());
        outbox.forget(2);
        assert_eq!(outbox.batch(None).0.first, 2);
        let again = Outbox::open(&path);
        let (batch, end) = again.batch(None);
        assert_eq!((batch.first, end), (3, 3));
        assert_eq!(batch.epoch, outbox.batch(None).0.epoch);
    }

    #[test]
    fn whoever_waits_gets_the_receipt_of_its_own_purge() {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox::open(&folder.path().join("purges.json"));
        let site: SiteName = "blog".parse().expect("a name");
        let node: NodeName = "n2".parse().expect("a name");
        let mut first = outbox.push(&site, &purge());
        let (batch, _) = outbox.batch(None);
        let mut second = outbox.push(&site, &purge());
        outbox.confirm(&node, &batch, &Confirmed { pages: vec![7] }, 3);
        let receipt = first.try_recv().expect("it is there");
        assert_eq!((receipt.node, receipt.pages, receipt.ok), (node, 7, true));
        assert!(second.try_recv().is_err());
    }
}
