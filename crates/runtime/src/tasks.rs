//! Groups of tasks that somebody waits for.
//!
//! Nobody spawns loose. A group hands its [`Shutdown`] to every task; [`Group::finish`] waits for them until a
//! deadline, then aborts the rest and names them. A task that panics is logged with its name and ends only itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::shutdown::Shutdown;

/// A group of named tasks. Clones are the same group.
#[derive(Debug, Clone)]
pub struct Group {
    name: &'static str,
    shutdown: Shutdown,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    tasks: Mutex<Tasks>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Tasks {
    next: u64,
    named: BTreeMap<u64, (String, Option<AbortHandle>)>,
}

impl Group {
    /// An empty group.
    pub fn new(name: &'static str, shutdown: Shutdown) -> Self {
        let running = Running { tasks: Mutex::default(), count: watch::Sender::new(0) };
        Self { name, shutdown, running: Arc::new(running) }
    }

    /// What tells the group's tasks to stop.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task in the current tokio runtime. It gets the shutdown and should end soon after that is requested.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, task: F)
    where
        F: FnOnce(Shutdown) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let place = self.enter(name.into());
        let id = place.id;
        let future = task(self.shutdown.clone());
        let handle = tokio::spawn(async move {
            let place = place;
            future.await;
            drop(place);
        });
        if let Some((_, abort)) = self.running.tasks.lock().named.get_mut(&id) {
            *abort = Some(handle.abort_handle());
        }
    }

    /// The names of the tasks that run now, oldest first.
    pub fn names(&self) -> Vec<String> {
        self.running.tasks.lock().named.values().map(|(name, _)| name.clone()).collect()
    }

    /// Waits until no task runs. Cancel-safe.
    pub async fn idle(&self) {
        let _sender_gone =
            self.running.count.subscribe().wait_for(|count| *count == 0).await.is_err();
    }

    /// Waits for all tasks, at most for `grace`; then aborts those that are late and returns their names.
    /// The caller has fired the shutdown before.
    pub async fn finish(&self, grace: Duration) -> Vec<String> {
        if tokio::time::timeout(grace, self.idle()).await.is_ok() {
            return Vec::new();
        }
        let late = self.names();
        tracing::warn!(
            group = self.name,
            late = late.join(", "),
            grace_ms = grace.as_millis(),
            "tasks did not stop in time"
        );
        for (_, abort) in self.running.tasks.lock().named.values() {
            if let Some(abort) = abort {
                abort.abort();
            }
        }
        late
    }

    fn enter(&self, name: String) -> Place {
        let mut tasks = self.running.tasks.lock();
        let id = tasks.next;
        tasks.next += 1;
        tasks.named.insert(id, (name, None));
        self.running.count.send_replace(tasks.named.len());
        Place { group: self.name, id, running: Arc::clone(&self.running) }
    }
}

/// A task's place in its group; it is given back however the task ends.
struct Place {
    group: &'static str,
    id: u64,
    running: Arc<Running>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tasks = self.running.tasks.lock();
        let name = tasks.named.remove(&self.id).map(|(name, _)| name).unwrap_or_default();
        self.running.count.send_replace(tasks.named.len());
        drop(tasks);
        if std::thread::panicking() {
            tracing::error!(group = self.group, task = name, "a task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;

    #[tokio::test]
    async fn finish_waits_for_tasks_that_stop() {
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("test", stop);
        group.spawn("polite", |stop| async move { stop.requested().await });
        assert_eq!(group.names(), ["polite"]);
        trigger.fire("test");
        assert!(group.finish(Duration::from_secs(10)).await.is_empty());
    }

    #[tokio::test]
    async fn finish_names_and_ends_those_who_are_late() {
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("test", stop);
        group.spawn("deaf", |_| std::future::pending());
        trigger.fire("test");
        assert_eq!(group.finish(Duration::from_millis(20)).await, ["deaf"]);
        group.idle().await;
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_own_task() {
        let (_trigger, stop) = shutdown::pair();
        let group = Group::new("test", stop);
        group.spawn("broken", |_| async { panic!("on purpose") });
        group.idle().await;
        group.spawn("fine", |_| async {});
        group.idle().await;
    }
}
