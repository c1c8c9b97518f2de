//! Long operations: they run one at a time, go on when whoever asked has gone, and can be followed from the first step.
//!
//! Always: an operation ends with exactly one [`Event::End`], also when its task panics or is aborted. What a follower
//! reads is the same whether it came early or late.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pressroom_runtime::tasks::Group;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::progress::{Progress, Step, StepState};

/// One line of an operation, as it is sent: a JSON object per line. Empty lines only say that the agent lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first line.
    Operation {
        /// Its id, for `GET /v1/operations/ID`.
        id: String,
        /// `apply`, `deploy`, `remove-site`, `environment` or `down`.
        kind: String,
    },
    /// Something on the way.
    Step(Step),
    /// The last line.
    End {
        /// Why it failed, if it did.
        #[serde(default)]
        failure: Option<Failure>,
        /// What was kept of something removed.
        #[serde(default)]
        kept: Option<PathBuf>,
    },
}

/// Operations that are remembered after their end.
const REMEMBERED: usize = 16;
/// Operations that may wait for their turn.
const WAITING: usize = 8;
/// Lines kept of one operation; what a step says while it runs is left out beyond that.
const LINES: usize = 4096;
/// Between two signs of life on a quiet operation.
pub(crate) const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is given up when a `Down` begins: what it waits for will not come.
    Apply,
    /// Likewise; the rollout goes on with the next start.
    Deploy,
    /// It runs to its end, so that a dump is whole.
    RemoveSite,
    /// It changes an environment, and runs to its end as well.
    Environment,
    /// It is never refused.
    Down,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Deploy => "deploy",
            Self::RemoveSite => "remove-site",
            Self::Environment => "environment",
            Self::Down => "down",
        }
    }
}

/// All operations of an agent. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    group: Group,
    /// How many `Down` were begun.
    downs: Arc<watch::Sender<u64>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Mutex<VecDeque<Arc<Log>>>>,
    next: Arc<AtomicU64>,
}

impl Operations {
    pub(crate) fn new(group: Group) -> Self {
        Self {
            group,
            downs: Arc::new(watch::Sender::new(0)),
            turn: Arc::default(),
            known: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Begins an operation, or has it wait for its turn. `work` gets where to tell its steps.
    pub(crate) fn begin<F, Fut>(&self, kind: Kind, work: F) -> Result<Arc<Log>, Failure>
    where
        F: FnOnce(Progress) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<PathBuf>, Failure>> + Send + 'static,
    {
        let log = self.remember(kind)?;
        if kind == Kind::Down {
            self.downs.send_modify(|downs| *downs += 1);
        }
        let (turn, told, mut downs) =
            (Arc::clone(&self.turn), Arc::clone(&log), self.downs.subscribe());
        self.group.spawn(format!("{} {}", kind.as_str(), log.id), move |_| async move {
            let ending = Ending(told);
            let whole = ending.take_turn(&turn, work);
            let end = match kind {
                Kind::RemoveSite | Kind::Environment | Kind::Down => whole.await,
                Kind::Apply | Kind::Deploy => tokio::select! {
                    biased;
                    _ = downs.changed() => Err(given_up()),
                    end = whole => end,
                },
            };
            let (failure, kept) =
                end.map_or_else(|failure| (Some(failure), None), |kept| (None, kept));
            ending.0.add(Event::End { failure, kept });
        });
        Ok(log)
    }

    /// The operation with this id, running or ended.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Log>> {
        lock(&self.known).iter().find(|log| log.id == id).cloned()
    }

    fn remember(&self, kind: Kind) -> Result<Arc<Log>, Failure> {
        let mut known = lock(&self.known);
        let waiting = known.iter().filter(|log| !log.is_ended()).count();
        if kind != Kind::Down && waiting >= WAITING {
            return Err(Failure::yours(format!(
                "too many operations wait, so this `{}` was not begun",
                kind.as_str()
            ))
            .hint("wait until they are done: `pressroom status` shows how things are"));
        }
        while known.len() >= REMEMBERED && known.front().is_some_and(|log| log.is_ended()) {
            known.pop_front();
        }
        let id = format!("op-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let log =
            Arc::new(Log { id: id.clone(), lines: Mutex::default(), count: watch::Sender::new(0) });
        log.add(Event::Operation { id, kind: kind.as_str().to_owned() });
        known.push_back(Arc::clone(&log));
        Ok(log)
    }
}

/// What one operation has said.
#[derive(Debug)]
pub(crate) struct Log {
    id: String,
    lines: Mutex<Vec<Event>>,
    count: watch::Sender<usize>,
}

impl Log {
    fn add(&self, event: Event) {
        let mut lines = lock(&self.lines);
        let is_ended = matches!(lines.last(), Some(Event::End { .. }));
        let is_chatter = matches!(&event, Event::Step(step) if step.state == StepState::Running);
        if is_ended || (is_chatter && lines.len() >= LINES) {
            return;
        }
        lines.push(event);
        self.count.send_replace(lines.len());
    }

    fn is_ended(&self) -> bool {
        matches!(lock(&self.lines).last(), Some(Event::End { .. }))
    }

    /// The lines after the first `seen`, as soon as there are some; nothing after the end, or a quiet while.
    pub(crate) async fn after(&self, seen: usize) -> Vec<Event> {
        let mut count = self.count.subscribe();
        let more = count.wait_for(|count| *count > seen);
        let _quiet = tokio::time::timeout(SIGN_OF_LIFE, more).await.is_err();
        lock(&self.lines).get(seen..).unwrap_or_default().to_vec()
    }
}

/// Why an `apply` ended before its time.
fn given_up() -> Failure {
    Failure::yours("it was given up, since everything is being stopped")
        .state("the intent is stored: `pressroom up` goes on with it")
}

/// Sees to it that an operation ends, whatever becomes of its task.
struct Ending(Arc<Log>);

impl Ending {
    async fn take_turn<F, Fut>(
        &self,
        turn: &tokio::sync::Mutex<()>,
        work: F,
    ) -> Result<Option<PathBuf>, Failure>
    where
        F: FnOnce(Progress) -> Fut,
        Fut: Future<Output = Result<Option<PathBuf>, Failure>>,
    {
        let _turn = match turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                self.progress().note("another operation is under way; waiting for its end");
                turn.lock().await
            }
        };
        work(self.progress()).await
    }

    fn progress(&self) -> Progress {
        let log = Arc::clone(&self.0);
        Progress::new(move |step| log.add(Event::Step(step)))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.0.is_ended() {
            let failure = Failure::ours("the operation was broken off")
                .state("what was done so far stays")
                .hint("read `pressroom logs agent`, then try again: everything may be done twice");
            self.0.add(Event::End { failure: Some(failure), kept: None });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use pressroom_runtime::shutdown;

    use super::*;

    async fn all(log: &Log) -> Vec<Event> {
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(Event::End { .. })) {
            seen.extend(log.after(seen.len()).await);
        }
        seen
    }

    #[tokio::test]
    async fn an_operation_whose_task_panics_still_ends() {
        let (_trigger, stop) = shutdown::pair();
        let operations = Operations::new(Group::new("test", stop));
        let broken =
            operations.begin(Kind::Apply, |_| async { panic!("on purpose") }).expect("begun");
        let seen = all(&broken).await;
        assert!(matches!(seen.last(), Some(Event::End { failure: Some(_), .. })), "{seen:?}");
        let next = operations.begin(Kind::Apply, |_| async { Ok(None) }).expect("begun");
        let seen = all(&next).await;
        assert!(matches!(seen.last(), Some(Event::End { failure: None, .. })), "{seen:?}");
    }

    #[tokio::test]
    async fn a_down_ends_an_apply_that_waits_for_ever() {
        let (_trigger, stop) = shutdown::pair();
        let operations = Operations::new(Group::new("test", stop));
        let stuck = operations.begin(Kind::Apply, |_| std::future::pending()).expect("begun");
        let queued = operations.begin(Kind::Apply, |_| async { Ok(None) }).expect("begun");
        let down = operations.begin(Kind::Down, |_| async { Ok(None) }).expect("begun");
        assert!(matches!(all(&down).await.last(), Some(Event::End { failure: None, .. })));
        for log in [stuck, queued] {
            let seen = all(&log).await;
            assert!(matches!(seen.last(), Some(Event::End { failure: Some(_), .. })), "{seen:?}");
        }
    }

    #[tokio::test]
    async fn operations_run_one_at_a_time_and_wait_in_bounds() {
        let (_trigger, stop) = shutdown::pair();
        let operations = Operations::new(Group::new("test", stop));
        let (open, gate) = watch::channel(false);
        let running = Arc::new(AtomicU64::new(0));
        let mut logs = Vec::new();
        for _ in 0..WAITING {
            let (mut gate, running) = (gate.clone(), Arc::clone(&running));
            let log = operations.begin(Kind::Apply, |_| async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                gate.wait_for(|open| *open).await.expect("the test holds it");
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(None)
            });
            logs.push(log.expect("begun"));
        }
        assert!(operations.begin(Kind::Apply, |_| async { Ok(None) }).is_err());
        open.send_replace(true);
        for log in logs {
            assert!(matches!(all(&log).await.last(), Some(Event::End { failure: None, .. })));
            assert!(operations.find(&log.id).is_some());
        }
    }
}
