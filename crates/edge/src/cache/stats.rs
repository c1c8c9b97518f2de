//! What the cache counts. Each thread counts on its own line of memory, so that counting costs nothing to the others.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const LINES: usize = 32;

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// A fresh page was served.
    Hit = 0,
    /// A stale page was served.
    Stale = 1,
    /// A page was absent: rendered, or waited for.
    Miss = 2,
    /// Not for the cache.
    Bypass = 3,
    /// A page was stored.
    Stored = 4,
    /// An answer was not stored.
    Refused = 5,
    /// A purge was applied.
    Purge = 6,
    /// A page went out for lack of room.
    Evicted = 7,
}

/// All counts at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Fresh pages served.
    pub hits: u64,
    /// Stale pages served.
    pub stale: u64,
    /// Absent pages: rendered, or waited for.
    pub misses: u64,
    /// Requests past the cache.
    pub bypasses: u64,
    /// Pages stored.
    pub stored: u64,
    /// Answers not stored.
    pub refused: u64,
    /// Purges applied.
    pub purges: u64,
    /// Pages gone for lack of room.
    pub evicted: u64,
    /// Bytes of stored pages.
    pub bytes: u64,
    /// Stored pages.
    pub pages: u64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; 8]);

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Stats {
    lines: [Line; LINES],
}

static NEXT_LINE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LINE: Cell<usize> = Cell::new(NEXT_LINE.fetch_add(1, Ordering::Relaxed) % LINES);
}

impl Stats {
    /// Counts one.
    pub(super) fn count(&self, what: Count) {
        self.lines[LINE.get()].0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self, what: Count) -> u64 {
        self.lines.iter().map(|line| line.0[what as usize].load(Ordering::Relaxed)).sum()
    }

    /// All counts.
    pub(super) fn totals(&self, bytes: u64, pages: u64) -> Totals {
        Totals {
            hits: self.total(Count::Hit),
            stale: self.total(Count::Stale),
            misses: self.total(Count::Miss),
            bypasses: self.total(Count::Bypass),
            stored: self.total(Count::Stored),
            refused: self.total(Count::Refused),
            purges: self.total(Count::Purge),
            evicted: self.total(Count::Evicted),
            bytes,
            pages,
        }
    }
}
