//! Which of a site's former releases are kept, and whose static files are still served.
//!
//! Kept by number, so that there is a way back, and for a day after they served, because pages that were made before a switch name
//! their files for about so long. Who deploys all day long must not fill the disk with that: the day ends earlier where there are
//! too many, or where they take too much. What runs, is parked or is on its way is never collected.

/// So many are kept in any case.
pub const KEPT: usize = 10;
/// So many at most, however young they are: each costs a look for a file that is missing.
pub const MOST: usize = 40;
/// So many bytes at most, of what the next release does not have as well; the rest is shared.
pub const MOST_BYTES: u64 = 4 << 30;
/// So long static files of a former release are served.
pub const STAY_MS: u64 = 86_400_000;

/// A release that served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// When it began to serve, milliseconds since 1970.
    pub began_ms: u64,
    /// What the next release does not have as well, as far as that is known.
    pub own_bytes: u64,
    /// Something runs it, or may run it soon.
    pub is_used: bool,
}

/// The places, in `served` (the last one first), of releases whose static files are still served.
pub fn within_reach(served: &[Served], now_ms: u64) -> Vec<usize> {
    let mut bytes = 0;
    let mut reach = Vec::new();
    for (place, (release, ended_ms)) in served.iter().zip(ends(served, now_ms)).enumerate() {
        bytes += if place == 0 { 0 } else { release.own_bytes };
        let fits = place < KEPT || (place < MOST && bytes <= MOST_BYTES);
        if fits && now_ms < ended_ms.saturating_add(STAY_MS) {
            reach.push(place);
        }
    }
    reach
}

/// The places of releases that nobody needs any more.
pub fn outlived(served: &[Served], now_ms: u64) -> Vec<usize> {
    let reach = within_reach(served, now_ms);
    let is_free = |place: &usize| !served[*place].is_used && !reach.contains(place);
    (KEPT.min(served.len())..served.len()).filter(is_free).collect()
}

/// A release ended when the next one began.
fn ends(served: &[Served], now_ms: u64) -> impl Iterator<Item = u64> {
    std::iter::once(now_ms).chain(served.iter().map(|release| release.began_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_000 * HOUR;

    /// Releases that began so many hours ago.
    fn since(hours: impl IntoIterator<Item = u64>) -> Vec<Served> {
        let served = |ago| Served { began_ms: NOW - ago * HOUR, own_bytes: 1, is_used: false };
        hours.into_iter().map(served).collect()
    }

    #[test]
    fn files_are_served_for_a_day_after_their_release() {
        // It ended 23 hours ago, the one before it 25.
        let served = since([23, 25, 30, 40]);
        assert_eq!(within_reach(&served, NOW), [0, 1]);
        assert!(outlived(&served, NOW).is_empty(), "few are kept whatever their age");
    }

    #[test]
    fn all_of_a_busy_day_are_kept_and_old_ones_only_by_number() {
        let busy = since(0..20);
        assert_eq!(within_reach(&busy, NOW).len(), 20);
        assert!(outlived(&busy, NOW).is_empty());
        let slow = since((0..20).map(|n| n * 48));
        assert_eq!(outlived(&slow, NOW), (KEPT..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_day_of_too_many_or_too_big_ones_ends_earlier() {
        let many = since(std::iter::repeat_n(1, 100));
        assert_eq!(within_reach(&many, NOW).len(), MOST);
        assert_eq!(outlived(&many, NOW), (MOST..100).collect::<Vec<_>>());
        let mut big = since(std::iter::repeat_n(1, 30));
        big.iter_mut().for_each(|release| release.own_bytes = MOST_BYTES / 15);
        assert_eq!(within_reach(&big, NOW).len(), 16);
        big.iter_mut().for_each(|release| release.own_bytes = MOST_BYTES);
        assert_eq!(within_reach(&big, NOW).len(), KEPT);
    }

    #[test]
    fn what_is_used_is_never_collected() {
        let mut served = since(std::iter::repeat_n(72, 100));
        for place in [0, 50, 99] {
            served[place].is_used = true;
        }
        let gone = outlived(&served, NOW);
        assert_eq!(gone.len(), 100 - KEPT - 2);
        assert!(!gone.contains(&50) && !gone.contains(&99));
    }
}
