//! How a stored page may be used at a moment: pure arithmetic on wall-clock milliseconds.

use super::Millis;

/// What may be done with a stored page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It may be called fresh for so much longer.
    Fresh(Millis),
    /// It may be served while one request refreshes it; stale for so long.
    StaleWhileRevalidate(Millis),
    /// It may be served when PHP fails or is overloaded; stale for so long.
    StaleIfError(Millis),
    /// It may not be served.
    Expired,
}

/// When a page was made, and what has become of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// When its render began.
    pub rendered_at: Millis,
    /// For how long it is fresh.
    pub ttl: Millis,
    /// When it was purged, if it was.
    pub purged_at: Option<Millis>,
}

/// A page that claims to be from this far in the future was stored under another clock.
const CLOCK_STEP: Millis = 2_000;

/// Judges a page.
pub(super) fn freshness(
    life: Life,
    stale_while_revalidate: Millis,
    stale_if_error: Millis,
    now: Millis,
) -> Freshness {
    let expires = life.rendered_at.saturating_add(life.ttl);
    let ends = life.purged_at.map_or(expires, |purged| purged.min(expires));
    if life.rendered_at > now.saturating_add(CLOCK_STEP) {
        return Freshness::StaleWhileRevalidate(0);
    }
    if life.purged_at.is_none() && now < expires {
        return Freshness::Fresh(expires - now);
    }
    let stale = now.saturating_sub(ends);
    if stale <= stale_while_revalidate {
        Freshness::StaleWhileRevalidate(stale)
    } else if stale <= stale_if_error {
        Freshness::StaleIfError(stale)
    } else {
        Freshness::Expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rendered_at: Millis, purged_at: Option<Millis>, now: Millis) -> Freshness {
        freshness(Life { rendered_at, ttl: 1000, purged_at }, 500, 5000, now)
    }

    #[test]
    fn a_page_goes_from_fresh_over_stale_to_expired() {
        for (now, wanted) in [
            (10_000, Freshness::Fresh(1000)),
            (10_999, Freshness::Fresh(1)),
            (11_000, Freshness::StaleWhileRevalidate(0)),
            (11_500, Freshness::StaleWhileRevalidate(500)),
            (11_501, Freshness::StaleIfError(501)),
            (16_000, Freshness::StaleIfError(5000)),
            (16_001, Freshness::Expired),
        ] {
            assert_eq!(judged(10_000, None, now), wanted, "{now}");
        }
    }

    #[test]
    fn a_purge_is_stale_at_once_even_when_the_clock_has_stepped_back() {
        assert_eq!(judged(10_000, Some(10_100), 10_100), Freshness::StaleWhileRevalidate(0));
        assert_eq!(judged(10_000, Some(10_100), 10_050), Freshness::StaleWhileRevalidate(0));
        assert_eq!(judged(10_000, Some(10_100), 10_700), Freshness::StaleIfError(600));
    }

    #[test]
    fn a_page_from_the_future_is_not_called_fresh() {
        assert_eq!(judged(100_000, None, 10_000), Freshness::StaleWhileRevalidate(0));
        assert_eq!(judged(10_500, None, 10_000), Freshness::Fresh(1500));
    }

    #[test]
    fn a_ttl_without_end_does_not_overflow() {
        let life = Life { rendered_at: 5, ttl: Millis::MAX, purged_at: None };
        assert!(matches!(freshness(life, 1, 1, 10), Freshness::Fresh(_)));
    }
}
