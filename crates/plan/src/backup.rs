//! When a copy of the cluster's state is due, and which copies have outlived their use.
//!
//! One each hour; those of the last day are kept, and the last one of each of the seven days before. Times are milliseconds since 1970.

use std::collections::BTreeSet;

/// Between two copies.
pub const EVERY_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;
/// Days of which one copy is kept, beside the last one of all.
const DAYS: u64 = 7;

/// Whether a copy should be taken now. A clock that was set back makes no copy young for ever.
pub fn is_due(taken_ms: &[u64], now_ms: u64) -> bool {
    !taken_ms.iter().any(|taken| now_ms.abs_diff(*taken) < EVERY_MS)
}

/// Copies that nobody needs any more. The last one is always needed, whatever its age.
pub fn outlived(taken_ms: &[u64], now_ms: u64) -> Vec<u64> {
    let mut newest_first = taken_ms.to_vec();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut days = BTreeSet::new();
    let is_kept = |place: usize, taken: u64, days: &mut BTreeSet<u64>| {
        let age = now_ms.saturating_sub(taken);
        let is_days_last = days.insert(taken / DAY_MS);
        place == 0 || age < DAY_MS || (is_days_last && age < (DAYS + 1) * DAY_MS)
    };
    let all = newest_first.into_iter().enumerate();
    all.filter(|(place, taken)| !is_kept(*place, *taken, &mut days))
        .map(|(_, taken)| taken)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    /// Noon of some day.
    const NOW: u64 = 20_000 * DAY_MS + 12 * HOUR;

    #[test]
    fn a_copy_is_due_each_hour() {
        let check = |ages: &[u64], expected: bool| {
            let taken: Vec<u64> = ages.iter().map(|minutes| NOW - minutes * 60_000).collect();
            assert_eq!(is_due(&taken, NOW), expected, "{ages:?}");
        };
        check(&[], true);
        check(&[200, 10], false);
        check(&[200, 60], true);
        assert!(is_due(&[NOW + 5 * HOUR], NOW), "of a clock that was ahead");
    }

    #[test]
    fn a_day_is_kept_whole_and_a_week_by_days() {
        let taken: Vec<u64> = (0..24 * 30).map(|hours| NOW - hours * HOUR).collect();
        let gone = outlived(&taken, NOW);
        let kept: Vec<u64> = taken.iter().copied().filter(|it| !gone.contains(it)).collect();
        assert_eq!(kept.len(), 24 + 7, "{kept:?}");
        assert_eq!(kept.last().map(|last| (NOW - last) / HOUR), Some(12 + 7 * 24 + 1));
        assert_eq!(outlived(&[NOW - 400 * DAY_MS], NOW), Vec::<u64>::new());
    }
}
