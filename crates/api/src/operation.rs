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
        /// `apply`, `remove-site` or `down`.
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

/// All operations of an agent. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    group: Group,
    turn: Arc<tokio::sync::Mutex<()>>,
    known: Arc<Mutex<VecDeque<Arc<Log>>>>,
    next: Arc<AtomicU64>,
}

impl Operations {
    pub(crate) fn new(group: Group) -> Self {
        Self {
            group,
            turn: Arc::default(),
            known: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Begins an operation, or has it wait for its turn. `work` gets where to tell its steps.
    pub(crate) fn begin<F, Fut>(&self, kind: &'static str, work: F) -> Result<Arc<Log>, Failure>
    where
        F: FnOnce(Progress) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<PathBuf>, Failure>> + Send + 'static,
    {
        let log = self.remember(kind)?;
        let (turn, told) = (Arc::clone(&self.turn), Arc::clone(&log));
        self.group.spawn(format!("{kind} {}", log.id), move |_| async move {
            let ending = Ending(told);
            let _turn = match turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => {
                    ending.progress().note("another operation is under way; waiting for its end");
                    turn.lock().await
                }
            };
            let progress = ending.progress();
            let end = work(progress).await;
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

    fn remember(&self, kind: &'static str) -> Result<Arc<Log>, Failure> {
        let mut known = lock(&self.known);
        if known.iter().filter(|log| !log.is_ended()).count() >= WAITING {
            return Err(Failure::yours(format!(
                "too many operations wait, so this `{kind}` was not begun"
            ))
            .hint("wait until they are done: `pressroom status` shows how things are"));
        }
        while known.len() >= REMEMBERED && known.front().is_some_and(|log| log.is_ended()) {
            known.pop_front();
        }
        let id = format!("op-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let log =
            Arc::new(Log { id: id.clone(), lines: Mutex::default(), count: watch::Sender::new(0) });
        log.add(Event::Operation { id, kind: kind.to_owned() });
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

/// Sees to it that an operation ends, whatever becomes of its task.
struct Ending(Arc<Log>);

impl Ending {
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
        let broken = operations.begin("apply", |_| async { panic!("on purpose") }).expect("begun");
        let seen = all(&broken).await;
        assert!(matches!(seen.last(), Some(Event::End { failure: Some(_), .. })), "{seen:?}");
        let next = operations.begin("apply", |_| async { Ok(None) }).expect("begun");
        let seen = all(&next).await;
        assert!(matches!(seen.last(), Some(Event::End { failure: None, .. })), "{seen:?}");
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
            let log = operations.begin("apply", |_| async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                gate.wait_for(|open| *open).await.expect("the test holds it");
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(None)
            });
            logs.push(log.expect("begun"));
        }
        assert!(operations.begin("apply", |_| async { Ok(None) }).is_err());
        open.send_replace(true);
        for log in logs {
            assert!(matches!(all(&log).await.last(), Some(Event::End { failure: None, .. })));
            assert!(operations.find(&log.id).is_some());
        }
    }
}
