//! The pages that an earlier process left on disk, coming back: each when it is first asked for, the others one after
//! the other in the background.
//!
//! Starting reads the journal, the index and the names of the files, no page. A page is woken as stale if any purge
//! since it was last known to be fresh meets it, if the journal cannot say, or if another release made it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::book::Met;
use super::hot::{self, FileName, Index, Kept};
use super::journal::{self, Journal, Past};
use super::key::Key;
use super::memory::ByHash;
use super::page::{Page, Parts};
use super::site::Site;
use super::state::Places;
use super::{Millis, PageCache};
use crate::compress::Encoding;

/// The pages of one site that are still on disk only.
#[derive(Debug, Default)]
pub(super) struct Asleep {
    left: AtomicUsize,
    bed: Mutex<Bed>,
}

#[derive(Debug, Default)]
struct Bed {
    names: HashMap<FileName, ()>,
    folder: std::path::PathBuf,
    judge: Judge,
}

/// What is known about the purges that pages on disk have missed.
#[derive(Debug, Default)]
struct Judge {
    believed: bool,
    /// The journal knows all purges after this one.
    base: u64,
    /// The position at the start of this process.
    start: u64,
    index: Index,
    /// The last purge of everything, and the last of each hash.
    everything: (u64, Millis),
    last: HashMap<u64, (u64, Millis), ByHash>,
}

/// A site's state on disk, opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// The last position that was used.
    pub position: u64,
    /// The journal; `None`: the disk refuses.
    pub journal: Option<Journal>,
    /// Names and sizes of the pages.
    pub pages: Vec<(FileName, usize)>,
}

impl Asleep {
    /// Opens what is on disk of a site. `believed`: see [`super::state`].
    pub(super) fn open(&self, site: &Site, places: &Places, believed: bool) -> io::Result<Opened> {
        places.make(site.name())?;
        let path = places.journal(site.name());
        let past = journal::read(&path);
        let index: Index = std::fs::read(places.index(site.name()))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let believed = believed && past.whole;
        // A position that nobody ever used makes whatever cannot be believed older than the journal.
        let position = past.position().max(index.position) + u64::from(!believed);
        let journal =
            if believed { Journal::resume(&path) } else { Journal::begin(&path, position) }.inspect_err(|error| {
                tracing::error!(%error, site = %site.name(), "purges cannot be journalled: pages are kept in memory only");
            });
        let folder = places.pages(site.name());
        if journal.is_err() {
            places.clear(site.name());
            return Ok(Opened { position, journal: None, pages: Vec::new() });
        }
        let mut pages = Vec::new();
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
                pages.push((name, entry.metadata().map_or(0, |metadata| metadata.len() as usize)));
            }
        }
        let mut bed = self.bed.lock();
        bed.names = pages.iter().map(|(name, _)| (*name, ())).collect();
        bed.folder = folder;
        bed.judge = Judge::new(past, index, believed, position, site);
        self.left.store(bed.names.len(), Ordering::Release);
        Ok(Opened { position, journal: journal.ok(), pages })
    }

    /// Whether pages are left on disk only.
    pub(super) fn is_waking(&self) -> bool {
        self.left.load(Ordering::Acquire) > 0
    }

    /// Wakes the page of a key, if it sleeps.
    pub(super) fn wake(&self, cache: &PageCache, site: &Arc<Site>, key: &Key, now: Millis) {
        // Held while the page is read, so that a second asker does not render what the first is waking.
        let mut bed = self.bed.lock();
        bed.wake(FileName::of(key), cache, site, now);
        self.left.store(bed.names.len(), Ordering::Release);
    }

    /// Wakes some page; `false`: all are awake.
    pub(super) fn wake_any(&self, cache: &PageCache, site: &Arc<Site>, now: Millis) -> bool {
        let mut bed = self.bed.lock();
        let Some(name) = bed.names.keys().next().copied() else { return false };
        bed.wake(name, cache, site, now);
        self.left.store(bed.names.len(), Ordering::Release);
        // Requests that wait for their own page come before the next one of the background.
        MutexGuard::unlock_fair(bed);
        true
    }

    /// Forgets all that sleep.
    pub(super) fn clear(&self) {
        let mut bed = self.bed.lock();
        bed.names.clear();
        self.left.store(0, Ordering::Release);
    }
}

impl Bed {
    fn wake(&mut self, name: FileName, cache: &PageCache, site: &Arc<Site>, now: Millis) {
        if self.names.remove(&name).is_none() {
            return;
        }
        let path = name.within(&self.folder);
        let kept = std::fs::read(&path).ok().and_then(hot::decode);
        let Some(kept) = kept.filter(|kept| FileName::of(&kept.key) == name) else {
            tracing::warn!(path = %path.display(), "a page on disk is spoilt; it is rendered again when it is asked for");
            return;
        };
        let purged_at = self.judge.purged_at(&kept, name, &site.release(), now);
        cache.woken(page(kept, site, self.judge.start, cache.new_id()), purged_at, now);
    }
}

fn page(kept: Kept, site: &Arc<Site>, position: u64, id: u64) -> Page {
    let [plain, coded @ ..] = kept.bodies;
    let page = Page::new(Parts {
        key: kept.key,
        site: Arc::clone(site),
        status: kept.status,
        headers: kept.headers,
        body: plain.unwrap_or_default(),
        tags: kept.tags,
        rendered_at: kept.rendered_at,
        ttl: kept.ttl,
        position,
        id,
    });
    for (encoding, body) in Encoding::ALL.into_iter().skip(1).zip(coded) {
        if let Some(body) = body {
            page.set(encoding, body);
            page.is_coded();
        }
    }
    page.hits.store(kept.hits / 2, Ordering::Relaxed);
    page
}

impl Judge {
    fn new(past: Past, index: Index, believed: bool, start: u64, site: &Site) -> Self {
        let mut judge = Self { believed, base: past.base, start, index, ..Self::default() };
        for record in past.records {
            match Met::of(&record.purge, &site.rules()) {
                Met::All => judge.everything = (record.position, record.at),
                Met::Some(hashes) => {
                    judge
                        .last
                        .extend(hashes.iter().map(|hash| (*hash, (record.position, record.at))));
                }
            }
        }
        judge
    }

    /// Since when a page is stale, if it is.
    fn purged_at(&self, kept: &Kept, name: FileName, release: &str, now: Millis) -> Option<Millis> {
        let indexed = self.index.pages.get(&name.text());
        let (known_at, known) = match indexed {
            Some(at) if kept.position <= self.index.position => {
                (self.index.position, Some(*at).filter(|at| *at > 0))
            }
            _ => (kept.position, kept.purged_at),
        };
        if known.is_some() {
            // An index that does not know since when says 1.
            return known.map(|at| if at == 1 { now } else { at });
        }
        if !self.believed || known_at < self.base || kept.release != release {
            return Some(now);
        }
        let of_tags = kept.tags.iter().filter_map(|tag| self.last.get(tag));
        of_tags
            .chain([&self.everything])
            .filter(|(position, _)| *position > known_at)
            .map(|(_, at)| (*at).max(1))
            .min()
    }
}
