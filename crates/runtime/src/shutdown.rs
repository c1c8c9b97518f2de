//! The word "stop", passed in rather than looked up.
//!
//! One [`Trigger`] belongs to whoever may end the process; every task holds a [`Shutdown`]. A trigger that is dropped
//! without a word counts as fired: nobody is left to end the tasks otherwise.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Fires the shutdown. The first reason stays.
#[derive(Debug, Clone)]
pub struct Trigger(watch::Sender<Option<&'static str>>);

/// Tells a task to stop.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Option<&'static str>>);

/// A trigger and what it triggers.
pub fn pair() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(None);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks everybody to stop.
    pub fn fire(&self, because: &'static str) {
        self.0.send_if_modified(|reason| reason.is_none() && reason.replace(because).is_none());
    }

    /// Another listener.
    pub fn listener(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }
}

impl Shutdown {
    /// Whether it is time to stop.
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// Why, once it is requested.
    pub fn reason(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// Waits until it is time to stop. Cancel-safe.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        let _owner_gone = receiver.wait_for(Option::is_some).await.is_err();
    }
}

/// Waits for SIGTERM or SIGINT and fires. Returns the signal's name; a second signal is left to the caller.
pub async fn on_signals(trigger: &Trigger) -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    trigger.fire(name);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_everybody_hears_it() {
        let (trigger, shutdown) = pair();
        assert!(!shutdown.is_requested());
        trigger.fire("first");
        trigger.fire("second");
        shutdown.requested().await;
        trigger.listener().requested().await;
        assert_eq!(shutdown.reason(), Some("first"));
    }

    #[tokio::test]
    async fn a_lost_trigger_means_stop() {
        let (trigger, shutdown) = pair();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
