//! What the cache knows of one site: its rules, the cookies it ever set, its purges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use pressroom_model::id::SiteName;

use super::Millis;
use super::book::Book;
use super::bypass::Bypass;
use super::key::{Asked, Key};
use super::learned::Learned;
use super::rules::Rules;
use super::trust::Trust;
use super::waking::Asleep;

/// One site in the cache.
#[derive(Debug)]
pub struct Site {
    name: SiteName,
    rules: ArcSwap<Rules>,
    pub(super) learned: Learned,
    /// The number of the last purge.
    position: AtomicU64,
    /// Pages rendered before this position are purged, since `floor_at`.
    floor: AtomicU64,
    floor_at: AtomicU64,
    pub(super) book: Mutex<Book>,
    release: Mutex<Option<Box<str>>>,
    pub(super) asleep: Asleep,
    lost_journal: AtomicBool,
    trust: Arc<Trust>,
}

impl Site {
    pub(super) fn new(name: SiteName, rules: Rules, trust: Arc<Trust>) -> Self {
        Self {
            name,
            rules: ArcSwap::from_pointee(rules),
            learned: Learned::default(),
            position: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            floor_at: AtomicU64::new(0),
            book: Mutex::default(),
            release: Mutex::default(),
            asleep: Asleep::default(),
            lost_journal: AtomicBool::new(false),
            trust,
        }
    }

    /// Its name.
    pub fn name(&self) -> &SiteName {
        &self.name
    }

    /// Its rules now.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    pub(super) fn set_rules(&self, rules: Rules) {
        if **self.rules.load() != rules {
            self.rules.store(Arc::new(rules));
        }
    }

    /// Notes the running release; whether it follows another one.
    pub(super) fn is_switch(&self, release: &str) -> bool {
        let before = self.release.lock().replace(release.into());
        before.is_some_and(|before| *before != *release)
    }

    /// The key of a request, or why it bypasses the cache.
    pub fn key(&self, asked: &Asked<'_>) -> Result<Key, Bypass> {
        Key::of(asked, self.name.as_str(), &self.rules.load(), &self.learned)
    }

    /// The number of the last purge.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Takes the next number; only with the book in hand.
    pub(super) fn advance(&self, _book: &Book) -> u64 {
        self.position.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Starts at a position (after a restart).
    pub(super) fn start_at(&self, position: u64) {
        let mut book = self.book.lock();
        self.position.fetch_max(position, Ordering::AcqRel);
        book.start_at(position);
    }

    /// The running release.
    pub(super) fn release(&self) -> Box<str> {
        self.release.lock().clone().unwrap_or_default()
    }

    /// Whether pages of an earlier process are still on disk only.
    pub(super) fn is_waking(&self) -> bool {
        self.asleep.is_waking()
    }

    /// Notes that a purge could not be journalled.
    pub(super) fn lose_journal(&self) {
        self.lost_journal.store(true, Ordering::Release);
    }

    /// Whether a purge could not be journalled; asked once.
    pub(super) fn take_lost_journal(&self) -> bool {
        self.lost_journal.load(Ordering::Acquire) && self.lost_journal.swap(false, Ordering::AcqRel)
    }

    /// Whether purges of others may be unknown.
    pub fn is_cut_off(&self) -> bool {
        !self.trust.holds()
    }

    /// Makes all pages rendered before `position` stale.
    pub(super) fn raise_floor(&self, position: u64, now: Millis) {
        self.floor_at.store(now, Ordering::Release);
        self.floor.store(position, Ordering::Release);
    }

    /// Since when a page of this position is stale with its whole site, if it is.
    pub(super) fn floor(&self, position: u64) -> Option<Millis> {
        (position < self.floor.load(Ordering::Acquire))
            .then(|| self.floor_at.load(Ordering::Acquire))
    }
}
