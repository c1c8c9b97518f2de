//! From the answers of a probe to a verdict.
//!
//! A probe asks its engine a real question (`SELECT 1`, `PING`, php-fpm's status, the edge's status). One bad answer
//! is no illness; being busy is no illness at all.

use pressroom_model::verdict::{Health, Verdict};

/// What a probe brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answered rightly.
    Well,
    /// It answered that all its workers have something to do.
    Busy,
    /// It answered wrongly, or not in time; why, for people.
    Badly(String),
    /// The kernel says that the process was stopped (SIGSTOP): it cannot answer.
    Frozen,
}

/// What is remembered of one process between probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The current verdict.
    pub verdict: Verdict,
    /// Since when it has been so (milliseconds since 1970).
    pub since_ms: u64,
    /// When it was started.
    pub started_ms: u64,
    /// Bad answers in a row.
    pub failures: u32,
    /// Whether it ever answered well since its start.
    pub has_answered: bool,
}

impl Memory {
    /// Of a process that was just started.
    pub fn new(now_ms: u64) -> Self {
        Self {
            verdict: Verdict::new(Health::Starting, "started, has not answered yet"),
            since_ms: now_ms,
            started_ms: now_ms,
            failures: 0,
            has_answered: false,
        }
    }
}

/// How patient to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Bad answers in a row until it is unhealthy.
    pub failures: u32,
    /// Milliseconds a new process may take to its first good answer.
    pub start_ms: u64,
}

/// The verdict after one more answer.
pub fn judge(memory: &Memory, answer: &Answer, patience: Patience, now_ms: u64) -> Memory {
    let failures = match answer {
        Answer::Well | Answer::Busy => 0,
        Answer::Badly(_) | Answer::Frozen => memory.failures + 1,
    };
    let has_answered = memory.has_answered || failures == 0;
    let is_starting = !has_answered && now_ms < memory.started_ms + patience.start_ms;
    let verdict = match answer {
        Answer::Well => Verdict::new(Health::Healthy, "answers"),
        Answer::Busy => Verdict::new(Health::Busy, "every worker has a request"),
        Answer::Frozen if failures >= 2 => Verdict::new(Health::Unhealthy, "is stopped (SIGSTOP)"),
        Answer::Badly(why) if is_starting => {
            Verdict::new(Health::Starting, format!("not ready yet: {why}"))
        }
        Answer::Badly(why) if failures >= patience.failures => {
            Verdict::new(Health::Unhealthy, why.clone())
        }
        Answer::Badly(_) | Answer::Frozen => memory.verdict.clone(),
    };
    let is_same = verdict.health == memory.verdict.health;
    Memory {
        since_ms: if is_same { memory.since_ms } else { now_ms },
        started_ms: memory.started_ms,
        verdict,
        failures,
        has_answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { failures: 3, start_ms: 10_000 };

    fn after(answers: &[Answer]) -> Memory {
        let mut memory = Memory::new(0);
        for (n, answer) in answers.iter().enumerate() {
            memory = judge(&memory, answer, PATIENCE, 1000 * (n as u64 + 1));
        }
        memory
    }

    #[test]
    fn one_bad_answer_is_no_illness_and_three_are() {
        let bad = || Answer::Badly("timed out".into());
        assert_eq!(after(&[Answer::Well, bad()]).verdict.health, Health::Healthy);
        assert_eq!(after(&[Answer::Well, bad(), bad(), bad()]).verdict.health, Health::Unhealthy);
        assert_eq!(
            after(&[Answer::Well, bad(), bad(), Answer::Well, bad()]).verdict.health,
            Health::Healthy
        );
    }

    #[test]
    fn busy_is_no_illness() {
        assert_eq!(after(&vec![Answer::Busy; 20]).verdict.health, Health::Busy);
    }

    #[test]
    fn a_new_process_gets_its_time_to_start() {
        let bad = Answer::Badly("refused".into());
        assert_eq!(after(&vec![bad.clone(); 9]).verdict.health, Health::Starting);
        assert_eq!(after(&vec![bad; 12]).verdict.health, Health::Unhealthy);
    }

    #[test]
    fn a_frozen_process_is_ill_at_the_second_look() {
        assert_eq!(after(&[Answer::Well, Answer::Frozen]).verdict.health, Health::Healthy);
        assert_eq!(
            after(&[Answer::Well, Answer::Frozen, Answer::Frozen]).verdict.health,
            Health::Unhealthy
        );
    }
}
