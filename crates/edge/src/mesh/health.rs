//! Whether another edge is asked: judged by our requests to it and by probes. Pure.
//!
//! So many failures in a row as the rules say eject it, requests and probes counted apart; a connection that does not come about
//! ejects it at once, since nobody is there. It is probed while it is ejected: at the rules' interval and until the rules' successes
//! after counted failures; quickly, and until the first success, after a connection that did not come about. Who comes back starts
//! slowly: its share of requests grows over [`WARM_UP`].

use std::time::{Duration, Instant};

use pressroom_model::snapshot::HealthRules;

/// From its return on an edge gets a growing share for so long.
pub const WARM_UP: Duration = Duration::from_secs(10);
/// The share that it begins with.
const COLD: f64 = 0.1;
/// The first probe after a connection that did not come about; the next ones each twice as late, up to the interval.
const QUICK: Duration = Duration::from_millis(100);

/// What was seen of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered a request, or a probe.
    Answered,
    /// It did not answer, in time or at all.
    Silent,
    /// There was no connection.
    Unreachable,
}

/// Where a sign was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A request of a visitor.
    Request,
    /// A probe.
    Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Asked; since when, if it was ejected before.
    Up(Option<Instant>),
    /// Not asked.
    Ejected { cause: Cause, probes: u32, successes: u32 },
}

/// Why an edge is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// There was no connection.
    Unreachable,
    /// Requests went unanswered.
    Requests,
    /// Probes went unanswered.
    Probes,
}

impl Cause {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unreachable => "no connection to it came about",
            Self::Requests => "requests went unanswered",
            Self::Probes => "probes went unanswered",
        }
    }
}

/// What is known of an edge's health. One that nobody has seen yet is asked.
#[derive(Debug, Clone)]
pub struct Health {
    standing: Standing,
    requests: u32,
    probes: u32,
    next_probe: Instant,
}

impl Health {
    /// Of an edge that nobody has seen yet.
    pub fn new(now: Instant) -> Self {
        Self { standing: Standing::Up(None), requests: 0, probes: 0, next_probe: now }
    }

    /// Whether it is asked.
    pub fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up(_))
    }

    /// Why it is not.
    pub fn cause(&self) -> Option<Cause> {
        match self.standing {
            Standing::Up(_) => None,
            Standing::Ejected { cause, .. } => Some(cause),
        }
    }

    /// When it is to be probed next.
    pub fn next_probe(&self) -> Instant {
        self.next_probe
    }

    /// The share of its capacity that it may have now, above 0 and at most 1.
    pub fn warmth(&self, now: Instant) -> f64 {
        let Standing::Up(Some(since)) = self.standing else { return 1.0 };
        let grown = now.saturating_duration_since(since).as_secs_f64() / WARM_UP.as_secs_f64();
        (COLD + (1.0 - COLD) * grown).min(1.0)
    }

    /// Takes a sign in. Whether it is up after it differs from before: `Some`.
    pub fn see(&mut self, sign: Sign, by: By, rules: &HealthRules, now: Instant) -> Option<bool> {
        let was_up = self.is_up();
        match self.standing {
            Standing::Up(_) => self.see_of_one_that_is_up(sign, by, rules, now),
            Standing::Ejected { cause, probes, successes } if by == By::Probe => {
                let successes = if sign == Sign::Answered { successes + 1 } else { 0 };
                let needed = if cause == Cause::Unreachable { 1 } else { rules.successes };
                self.standing = Standing::Ejected { cause, probes: probes + 1, successes };
                if successes >= needed {
                    (self.requests, self.probes) = (0, 0);
                    self.standing = Standing::Up(Some(now));
                }
            }
            // What was on its way when it was ejected says nothing new.
            Standing::Ejected { .. } => {}
        }
        if by == By::Probe {
            self.next_probe = now + self.pause(rules);
        }
        (was_up != self.is_up()).then(|| self.is_up())
    }

    fn see_of_one_that_is_up(&mut self, sign: Sign, by: By, rules: &HealthRules, now: Instant) {
        let (count, cause) = match by {
            By::Request => (&mut self.requests, Cause::Requests),
            By::Probe => (&mut self.probes, Cause::Probes),
        };
        *count = if sign == Sign::Answered { 0 } else { *count + 1 };
        let cause = match sign {
            Sign::Unreachable => Some(Cause::Unreachable),
            Sign::Silent if *count >= rules.failures => Some(cause),
            Sign::Silent | Sign::Answered => None,
        };
        if let Some(cause) = cause {
            self.standing = Standing::Ejected { cause, probes: 0, successes: 0 };
            self.next_probe = self.next_probe.min(now + self.pause(rules));
        }
    }

    fn pause(&self, rules: &HealthRules) -> Duration {
        let interval = rules.interval.get();
        match self.standing {
            Standing::Ejected { cause: Cause::Unreachable, probes, .. } => {
                (QUICK * (1 << probes.min(8))).min(interval)
            }
            _ => interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pressroom_model::unit::Span;

    fn rules(failures: u32, successes: u32) -> HealthRules {
        HealthRules { interval: Span::seconds(30), timeout: Span::seconds(5), failures, successes }
    }

    #[test]
    fn failures_and_successes_are_honoured_to_the_count() {
        for (failures, successes) in [(10, 10), (2, 2), (1, 1)] {
            let (rules, now) = (rules(failures, successes), Instant::now());
            let mut health = Health::new(now);
            for n in 1..=failures {
                assert!(health.is_up(), "before failure {n} of {failures}");
                health.see(Sign::Silent, By::Probe, &rules, now);
                assert_eq!(health.next_probe(), now + Duration::from_secs(30));
            }
            assert_eq!(health.cause(), Some(Cause::Probes));
            for n in 1..=successes {
                assert!(!health.is_up(), "before success {n} of {successes}");
                health.see(Sign::Answered, By::Probe, &rules, now);
            }
            assert!(health.is_up());
        }
    }

    #[test]
    fn an_answer_between_failures_begins_the_count_anew_for_its_own_kind() {
        let (rules, now) = (rules(2, 1), Instant::now());
        let mut health = Health::new(now);
        for by in [By::Request, By::Probe] {
            health.see(Sign::Silent, by, &rules, now);
            health.see(Sign::Answered, by, &rules, now);
            health.see(Sign::Silent, by, &rules, now);
        }
        assert!(health.is_up(), "one of each kind since the last answer");
        health.see(Sign::Answered, By::Probe, &rules, now);
        assert_eq!(health.see(Sign::Silent, By::Request, &rules, now), Some(false));
        assert_eq!(health.cause(), Some(Cause::Requests));
    }

    #[test]
    fn no_connection_ejects_at_once_and_is_probed_quickly_and_ever_later() {
        let (rules, now) = (rules(10, 10), Instant::now());
        let mut health = Health::new(now + Duration::from_secs(20));
        assert_eq!(health.see(Sign::Unreachable, By::Request, &rules, now), Some(false));
        let mut pauses = Vec::new();
        let mut at = now;
        for _ in 0..10 {
            pauses.push((health.next_probe() - at).as_millis());
            at = health.next_probe();
            health.see(Sign::Unreachable, By::Probe, &rules, at);
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9], 25_600);
        assert_eq!(health.see(Sign::Answered, By::Probe, &rules, at), Some(true));
    }

    #[test]
    fn what_was_on_its_way_when_it_was_ejected_does_not_bring_it_back() {
        let (rules, now) = (rules(1, 1), Instant::now());
        let mut health = Health::new(now);
        health.see(Sign::Silent, By::Request, &rules, now);
        assert_eq!(health.see(Sign::Answered, By::Request, &rules, now), None);
        assert!(!health.is_up());
    }

    #[test]
    fn who_comes_back_gets_a_growing_share() {
        let (rules, now) = (rules(1, 1), Instant::now());
        let mut health = Health::new(now);
        assert!((health.warmth(now) - 1.0).abs() < 1e-9, "nobody was away");
        health.see(Sign::Silent, By::Probe, &rules, now);
        health.see(Sign::Answered, By::Probe, &rules, now);
        let shares: Vec<_> = [0, 5, 10, 60]
            .map(|s| (health.warmth(now + Duration::from_secs(s)) * 100.0).round())
            .into();
        assert_eq!(shares, [10.0, 55.0, 100.0, 100.0]);
    }
}
