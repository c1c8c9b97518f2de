//! One process: start it, wait, ask it to stop, or kill it.

use pressroom_model::process::Exit;
use pressroom_model::verdict::Health;

/// A process as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name at the keeper.
    pub name: String,
    /// Changes whenever it must be started anew.
    pub fingerprint: String,
}

/// A process as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The fingerprint that it was started with.
    pub fingerprint: String,
    /// Its process id while it runs.
    pub pid: Option<i32>,
    /// Asked to stop and not gone.
    pub is_stopping: bool,
    /// The last exit.
    pub exit: Option<Exit>,
    /// Exits in a row after a life shorter than [`QUICK_MS`].
    pub quick_exits: u32,
    /// What its probe says.
    pub health: Health,
    /// Why.
    pub because: String,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// Requests that it works on, as far as known.
    pub busy: u32,
    /// Why it is to be replaced although it is well.
    pub tired: Option<String>,
}

/// A life shorter than this counts towards a crash loop.
pub const QUICK_MS: u64 = 10_000;
/// So many quick exits in a row are a crash loop.
pub const LOOP_EXITS: u32 = 5;
/// How long an unhealthy process is left, in the hope that it answers again, before it is killed.
pub const PATIENCE_MS: u64 = 2_000;

/// What to do with one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, and it is as it should be or on its way.
    Leave,
    /// Start it.
    Start(String),
    /// Ask it to stop; it will be started again with its new configuration.
    Stop(String),
    /// Kill it; it will be started again.
    Kill(String),
    /// It waits for its next start, at this time.
    Wait(u64),
}

/// The quick exits of one process, as far as they speak about the version that it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    fingerprint: String,
    last_ms: u64,
    /// In a row.
    pub quick: u32,
}

impl Exits {
    /// Counts the last exit of a process, once. What another version left under the same name is not counted, and neither is an exit that
    /// nobody saw: it came with the end of everything (a power cut), and says nothing about the program.
    pub fn note(&mut self, fingerprint: &str, started_ms: u64, exit: &Exit) {
        if self.fingerprint != fingerprint {
            let before = if started_ms > exit.at_ms { exit.at_ms } else { 0 };
            *self = Self { fingerprint: fingerprint.to_owned(), last_ms: before, quick: 0 };
        }
        if exit.at_ms > self.last_ms {
            self.last_ms = exit.at_ms;
            // A process that runs again has its start after the exit; the life that ended began before.
            self.quick = quick_exits(self.quick, started_ms.min(exit.at_ms), exit);
        }
    }
}

/// Quick exits in a row, after one more exit.
fn quick_exits(before: u32, started_ms: u64, exit: &Exit) -> u32 {
    match exit {
        _ if exit.was_asked || exit.at_ms.saturating_sub(started_ms) >= QUICK_MS => 0,
        Exit { code: None, signal: None, .. } => before,
        _ => before + 1,
    }
}

/// The pause before the next start: none after a first exit, then doubling to half a minute.
pub fn pause_ms(quick_exits: u32) -> u64 {
    match quick_exits {
        0 | 1 => 0,
        n => (200u64 << (n - 2).min(8)).min(30_000),
    }
}

/// Decides for one process.
pub fn decide(wanted: &Wanted, seen: Option<&Seen>, now_ms: u64) -> Decision {
    let Some(seen) = seen else {
        return Decision::Start("it does not run yet".into());
    };
    if seen.is_stopping {
        return Decision::Leave;
    }
    if seen.pid.is_none() {
        return after_exit(seen, now_ms);
    }
    if seen.fingerprint != wanted.fingerprint {
        return Decision::Stop("its configuration changed".into());
    }
    if seen.health == Health::Unhealthy && now_ms >= seen.since_ms + PATIENCE_MS {
        return Decision::Kill(format!("it is unhealthy: {}", seen.because));
    }
    Decision::Leave
}

fn after_exit(seen: &Seen, now_ms: u64) -> Decision {
    let Some(exit) = &seen.exit else {
        return Decision::Start("it does not run".into());
    };
    let due = exit.at_ms + pause_ms(seen.quick_exits);
    if now_ms < due {
        return Decision::Wait(due);
    }
    Decision::Start(format!("it ended ({})", words(exit)))
}

/// An exit in words.
pub fn words(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        _ if exit.was_asked => "as asked".into(),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        (Some(code), None) => format!("exit status {code}"),
        (None, None) => "exit status unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { name: "mariadb".into(), fingerprint: "a".into() }
    }

    fn running() -> Seen {
        Seen {
            fingerprint: "a".into(),
            pid: Some(7),
            is_stopping: false,
            exit: None,
            quick_exits: 0,
            health: Health::Healthy,
            because: String::new(),
            since_ms: 0,
            busy: 0,
            tired: None,
        }
    }

    fn ended(quick_exits: u32) -> Seen {
        let exit = Exit { code: Some(1), signal: None, at_ms: 1000, was_asked: false };
        Seen { pid: None, exit: Some(exit), quick_exits, ..running() }
    }

    #[test]
    fn a_healthy_process_is_left_alone() {
        assert_eq!(decide(&wanted(), Some(&running()), 1), Decision::Leave);
        assert_eq!(
            decide(&wanted(), Some(&Seen { health: Health::Busy, ..running() }), 1),
            Decision::Leave
        );
    }

    #[test]
    fn a_first_death_is_answered_at_once_and_a_loop_waits() {
        assert!(matches!(decide(&wanted(), Some(&ended(1)), 1000), Decision::Start(_)));
        assert_eq!(decide(&wanted(), Some(&ended(5)), 1000), Decision::Wait(2600));
        assert!(matches!(decide(&wanted(), Some(&ended(5)), 2600), Decision::Start(_)));
        assert_eq!(pause_ms(100), 30_000);
    }

    #[test]
    fn a_changed_fingerprint_asks_for_a_stop() {
        let seen = Seen { fingerprint: "b".into(), ..running() };
        assert!(matches!(decide(&wanted(), Some(&seen), 1), Decision::Stop(_)));
    }

    #[test]
    fn an_ill_process_is_killed_only_after_patience() {
        let seen = Seen { health: Health::Unhealthy, since_ms: 5000, ..running() };
        assert_eq!(decide(&wanted(), Some(&seen), 5001), Decision::Leave);
        assert!(matches!(decide(&wanted(), Some(&seen), 5000 + PATIENCE_MS), Decision::Kill(_)));
    }

    #[test]
    fn a_stop_that_was_asked_is_no_crash() {
        let exit = Exit { code: Some(0), signal: None, at_ms: 10, was_asked: true };
        assert_eq!(quick_exits(3, 0, &exit), 0);
        assert_eq!(quick_exits(3, 0, &Exit { was_asked: false, ..exit }), 4);
    }

    #[test]
    fn only_exits_of_this_version_that_were_seen_are_counted() {
        let exit = |at_ms| Exit { code: Some(1), signal: None, at_ms, was_asked: false };
        let mut exits = Exits::default();
        let mut check = |fingerprint, started_ms, exit: &Exit, quick| {
            exits.note(fingerprint, started_ms, exit);
            assert_eq!(exits.quick, quick, "{fingerprint} {started_ms} {exit:?}");
        };
        check("a", 900, &exit(1000), 1);
        check("a", 900, &exit(1000), 1);
        check("a", 1900, &exit(2000), 2);
        // The next version begins; the exit is still the one of the former.
        check("b", 2100, &exit(2000), 0);
        check("b", 2100, &exit(2200), 1);
        check("b", 2300, &Exit { code: None, ..exit(2400) }, 1);
    }
}
