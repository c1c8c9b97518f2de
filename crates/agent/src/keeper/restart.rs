//! When the keeper itself starts something again: pure, times come in.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// Whoever lived this long has earned a quick restart.
const SETTLED: Duration = Duration::from_secs(10);

/// The pause before the next start: 100 ms doubling to 5 s, and 100 ms again after 10 s of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait after an exit, given how long the process had lived.
    pub(super) fn pause(&mut self, lived: Duration) -> Duration {
        let pause = if lived >= SETTLED { FIRST } else { self.next };
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

/// Whether an agent last heard of at `heard` has been silent for too long.
pub(super) fn is_silent(heard: Instant, now: Instant, allowed: Duration) -> bool {
    now.saturating_duration_since(heard) >= allowed
}

/// When the agent counts as heard after the keeper itself did not run for `gap` longer than it meant to sleep: a keeper that was stopped
/// (or a machine that stood still) has missed every sign of life and may not blame the agent.
pub(super) fn heard_after_gap(heard: Instant, now: Instant, gap: Duration) -> Instant {
    if gap >= Duration::from_secs(2) { now } else { heard }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_seconds_and_a_long_life_resets_them() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.pause(Duration::from_secs(10)), FIRST);
        assert_eq!(backoff.pause(Duration::ZERO), FIRST * 2);
    }

    #[test]
    fn silence_is_measured_from_the_last_sign_of_life() {
        let start = Instant::now();
        let allowed = Duration::from_secs(15);
        assert!(!is_silent(start, start + Duration::from_secs(14), allowed));
        assert!(is_silent(start, start + allowed, allowed));
        assert!(!is_silent(start + allowed, start, allowed), "a sign from later is no silence");
    }

    #[test]
    fn a_keeper_that_was_stopped_itself_does_not_blame_the_agent() {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        assert_eq!(heard_after_gap(start, now, Duration::from_secs(50)), now);
        assert_eq!(heard_after_gap(start, now, Duration::from_millis(30)), start);
    }
}
