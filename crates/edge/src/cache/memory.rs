//! The map of pages: reads take no lock, and the bytes of all pages stay below a limit.
//!
//! A shard is an immutable map that is replaced on every change: a change copies some dozens of pointers, which is
//! nothing beside the render that it follows, and a read is one atomic load. Pages leave by second chance: a queue in
//! order of arrival, in which a page that was used since its last turn goes to the back, and another one goes out. So a
//! hit writes one byte at most, and a crawl through the archive does not push the front page out.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::key::Key;
use super::page::Page;

const SHARDS: usize = 256;

/// Takes a number that is a hash already as it is.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed so");
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Builds [`AsItIs`].
pub(super) type ByHash = BuildHasherDefault<AsItIs>;

type Map = HashMap<u64, Arc<Page>, ByHash>;

/// All pages of all sites.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Box<[Shard]>,
    arrivals: Mutex<VecDeque<(u64, u64)>>,
    bytes: AtomicU64,
    pages: AtomicU64,
    limit: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    map: ArcSwap<Map>,
    changing: Mutex<()>,
}

impl Memory {
    /// An empty one with a limit in bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            arrivals: Mutex::default(),
            bytes: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The map inside uses the low and the high bits; these are from the middle.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// The page of a key.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Page>> {
        let map = self.shard(key.hash()).map.load();
        let page = map.get(&key.hash())?;
        (page.key == *key).then(|| Arc::clone(page))
    }

    /// The page of a key's hash.
    pub(super) fn by_hash(&self, hash: u64) -> Option<Arc<Page>> {
        self.shard(hash).map.load().get(&hash).cloned()
    }

    /// Puts a page in; returns the one that it replaces. The limit is kept by [`Self::evict`], which must follow.
    pub(super) fn insert(&self, page: Arc<Page>) -> Option<Arc<Page>> {
        let (hash, id) = (page.key.hash(), page.id);
        // Counted before it can be found, so that whoever takes it out never counts below zero.
        self.bytes.fetch_add(page.size.load(Ordering::Relaxed) as u64, Ordering::Relaxed);
        self.pages.fetch_add(1, Ordering::Relaxed);
        let replaced = self.change(hash, |map| map.insert(hash, page));
        let mut arrivals = self.arrivals.lock();
        arrivals.push_back((hash, id));
        if arrivals.len() as u64 > 2 * self.pages() + 1024 {
            arrivals.retain(|(hash, id)| self.by_hash(*hash).is_some_and(|page| page.id == *id));
        }
        replaced
    }

    /// Changes a shard by `change`, which returns the page that it took out.
    fn change(
        &self,
        hash: u64,
        change: impl FnOnce(&mut Map) -> Option<Arc<Page>>,
    ) -> Option<Arc<Page>> {
        let shard = self.shard(hash);
        let _changing = shard.changing.lock();
        let mut map = Map::clone(&shard.map.load());
        let out = change(&mut map);
        shard.map.store(Arc::new(map));
        if let Some(out) = &out {
            self.bytes.fetch_sub(out.size.load(Ordering::Relaxed) as u64, Ordering::Relaxed);
            self.pages.fetch_sub(1, Ordering::Relaxed);
        }
        out
    }

    /// Takes a page out, if it is still the one of this id.
    pub(super) fn remove(&self, hash: u64, id: u64) -> Option<Arc<Page>> {
        self.change(hash, |map| match map.get(&hash) {
            Some(page) if page.id == id => map.remove(&hash),
            _ => None,
        })
    }

    /// Lets a stored page grow (by `grow`, which says by how much) without losing count.
    pub(super) fn grow(&self, page: &Page, grow: impl FnOnce() -> usize) {
        let _changing = self.shard(page.key.hash()).changing.lock();
        let stored = self.by_hash(page.key.hash()).is_some_and(|stored| stored.id == page.id);
        let grown = grow() as u64;
        if stored {
            self.bytes.fetch_add(grown, Ordering::Relaxed);
        }
    }

    /// Takes pages out until the limit is kept; returns them.
    pub(super) fn evict(&self) -> Vec<Arc<Page>> {
        let mut evicted = Vec::new();
        let mut chances = self.arrivals.lock().len();
        while self.bytes() > self.limit.load(Ordering::Relaxed) {
            let Some((hash, id)) = self.arrivals.lock().pop_front() else { break };
            let Some(page) = self.by_hash(hash).filter(|page| page.id == id) else { continue };
            if chances > 0 && page.used.swap(false, Ordering::Relaxed) {
                chances -= 1;
                self.arrivals.lock().push_back((hash, id));
            } else {
                evicted.extend(self.remove(hash, id));
            }
        }
        evicted
    }

    /// Bytes of all pages.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of pages.
    pub(super) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the limit; [`Self::evict`] must follow.
    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// All pages that a condition holds for.
    pub(super) fn find(&self, mut wanted: impl FnMut(&Page) -> bool) -> Vec<Arc<Page>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(shard.map.load().values().filter(|page| wanted(page)).cloned());
        }
        found
    }
}
