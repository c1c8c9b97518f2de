//! Growing, jittered pauses between attempts.
//!
//! The pause doubles from `first` up to `most`; half of it is fixed, half is random, so that many who failed together
//! do not come back together. Randomness is passed in; [`roll`] is where a border gets it from.

use std::time::Duration;

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses between `first` and `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), failures: 0 }
    }

    /// Notes a failure and returns the pause. `random` is in `[0, 1)`.
    pub fn pause(&mut self, random: f64) -> Duration {
        let whole = self
            .first
            .saturating_mul(1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX))
            .min(self.most);
        self.failures = self.failures.saturating_add(1);
        whole / 2 + (whole / 2).mul_f64(random.clamp(0.0, 1.0))
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a success: the next pause is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number in `[0, 1)` for [`Backoff::pause`].
pub fn roll() -> f64 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let ms: Vec<u128> = (0..6).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.pause(0.0), Duration::from_millis(50));
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        assert!((0..1000).all(|_| backoff.pause(roll()) <= Duration::from_secs(60)));
    }
}
