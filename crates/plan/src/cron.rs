//! When a site's cron is run: on time, once at a time, and not in a hurry after a failure.

/// What is remembered of one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// It is being run now.
    pub is_running: bool,
    /// Runs that failed in a row.
    pub failures: u32,
    /// When the last run ended, milliseconds since 1970.
    pub ended_ms: u64,
}

/// When an event is due whose runner died inside it: before all others.
pub const CUT_OFF: u64 = 0;

/// Whether to run a site's cron now, and why. `next_event` is when its earliest event is due, seconds since 1970.
pub fn is_due(next_event: Option<u64>, memory: &Memory, now_ms: u64) -> Option<String> {
    let next = next_event?;
    if memory.is_running || next.saturating_mul(1000) > now_ms {
        return None;
    }
    // An event that dies leaves itself rescheduled or removed; one that cannot even start must not burn a core. And an
    // event that stays due although the run went well (a plugin's own lock) is tried again a little later.
    let pause_ms = match memory.failures {
        0 => 1000,
        n => (1000u64 << (n - 1).min(8)).min(60_000),
    };
    if memory.ended_ms + pause_ms > now_ms {
        return None;
    }
    Some(match next {
        CUT_OFF => "an event was cut off".to_owned(),
        next => format!("an event is due since {} s", (now_ms / 1000).saturating_sub(next)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_runs_when_it_is_due_and_not_before() {
        let memory = Memory::default();
        assert_eq!(is_due(Some(100), &memory, 99_999), None);
        assert!(is_due(Some(100), &memory, 100_000).is_some());
        assert_eq!(is_due(None, &memory, 100_000), None);
        let cut_off = is_due(Some(CUT_OFF), &memory, 100_000);
        assert_eq!(cut_off.as_deref(), Some("an event was cut off"));
        // A site writes this number itself.
        assert_eq!(is_due(Some(u64::MAX), &memory, 100_000), None);
    }

    #[test]
    fn a_site_runs_once_at_a_time_and_waits_after_failures() {
        let running = Memory { is_running: true, ..Memory::default() };
        assert_eq!(is_due(Some(1), &running, 100_000), None);
        let failed = Memory { failures: 3, ended_ms: 100_000, is_running: false };
        assert_eq!(is_due(Some(1), &failed, 103_999), None);
        assert!(is_due(Some(1), &failed, 104_001).is_some());
    }
}
