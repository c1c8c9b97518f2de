//! Until when what is stored here is known to be what the cluster's other edges have not purged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pressroom_runtime::clock;

/// No end.
const EVER: u64 = u64::MAX;

/// A moment that everybody who serves a stored page looks at. It is an end and not a flag, so that it is right also when the process
/// stood still and nobody had the time to lower a flag.
#[derive(Debug)]
pub struct Trust {
    began: Instant,
    /// In microseconds since then.
    end: AtomicU64,
}

impl Trust {
    /// For ever: nobody else purges anything.
    pub(super) fn without_end() -> Self {
        Self { began: clock::now(), end: AtomicU64::new(EVER) }
    }

    /// It holds until then from now on; `None`: for ever.
    pub(crate) fn set(&self, end: Option<Instant>) {
        let us = |end: Instant| end.saturating_duration_since(self.began).as_micros();
        let end = end.map_or(EVER, |end| u64::try_from(us(end)).unwrap_or(EVER));
        self.end.store(end, Ordering::Release);
    }

    /// Whether it holds now.
    pub fn holds(&self) -> bool {
        match self.end.load(Ordering::Acquire) {
            EVER => true,
            end => clock::now().duration_since(self.began) < Duration::from_micros(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_by_itself() {
        let trust = Trust::without_end();
        assert!(trust.holds());
        trust.set(Some(clock::now() + Duration::from_secs(3600)));
        assert!(trust.holds());
        trust.set(Some(clock::now()));
        assert!(!trust.holds());
        trust.set(trust.began.checked_sub(Duration::from_secs(1)));
        assert!(!trust.holds());
        trust.set(None);
        assert!(trust.holds());
    }
}
