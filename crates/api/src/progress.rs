//! The steps of something long, as they happen: told by whoever does it, shown by whoever waits.
//!
//! Telling never blocks and never fails: a step that nobody listens to is dropped by the sink.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One line of progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done, as people say it: ``start `mariadb` ``. The same text in every state of one step.
    pub step: String,
    /// Where it stands.
    pub state: StepState,
    /// More about it: the reason, a figure, an error. May be empty.
    #[serde(default)]
    pub detail: String,
    /// Milliseconds since the step began.
    #[serde(default)]
    pub ms: u64,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It is being done.
    Running,
    /// It is done.
    Done,
    /// There was nothing to do.
    Skipped,
    /// It failed.
    Failed,
    /// Not a step: something to know.
    Note,
}

/// Where steps are told. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    sink: Arc<dyn Fn(Step) + Send + Sync>,
}

impl Progress {
    /// Steps go to `sink`, which must not block.
    pub fn new(sink: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink) }
    }

    /// Nobody listens.
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Tells a step as it is.
    pub fn tell(&self, step: Step) {
        (self.sink)(step);
    }

    /// Something to know that is not a step.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(Step { step: text.into(), state: StepState::Note, detail: String::new(), ms: 0 });
    }

    /// Begins a step; say how it ended with the value that comes back.
    pub fn begin(&self, step: impl Into<String>) -> Running {
        let running = Running {
            progress: self.clone(),
            step: step.into(),
            since: Instant::now(),
            is_open: true,
        };
        running.tell(StepState::Running, String::new());
        running
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A step under way. Dropped without a word (the task was cancelled, or an error went past) it counts as failed.
#[derive(Debug)]
pub struct Running {
    progress: Progress,
    step: String,
    since: Instant,
    is_open: bool,
}

impl Running {
    /// It is done.
    pub fn done(self, detail: impl Into<String>) {
        self.end(StepState::Done, detail.into());
    }

    /// There was nothing to do.
    pub fn skipped(self, detail: impl Into<String>) {
        self.end(StepState::Skipped, detail.into());
    }

    /// It failed.
    pub fn failed(self, detail: impl Into<String>) {
        self.end(StepState::Failed, detail.into());
    }

    /// Still under way, with something new to say of it.
    pub fn say(&self, detail: impl Into<String>) {
        self.tell(StepState::Running, detail.into());
    }

    fn end(mut self, state: StepState, detail: String) {
        self.is_open = false;
        self.tell(state, detail);
    }

    fn tell(&self, state: StepState, detail: String) {
        let ms = self.since.elapsed().as_millis() as u64;
        self.progress.tell(Step { step: self.step.clone(), state, detail, ms });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_open {
            self.tell(StepState::Failed, String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_step_dropped_without_a_word_counts_as_failed() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let progress =
            Progress::new(move |step| sink.lock().expect("no panic while held").push(step.state));
        progress.begin("one").done("");
        drop(progress.begin("two"));
        assert_eq!(
            *told.lock().expect("no panic while held"),
            [StepState::Running, StepState::Done, StepState::Running, StepState::Failed]
        );
    }
}
