//! Which nodes have fallen silent, as the node with the data hears it.
//!
//! A node that died or was cut off cannot close its connections. What they hold in the database (a lock by name, a transaction)
//! would be held until TCP gives up on them; the pulse tells sooner. A node counts as heard with each beat of its pulse and each
//! connection that it opens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use tokio::sync::watch;

/// What was heard of the nodes. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silences(Arc<Mutex<BTreeMap<NodeName, Ear>>>);

#[derive(Debug)]
struct Ear {
    heard: Instant,
    /// How often the node fell silent.
    silences: watch::Sender<u64>,
}

/// Waits for the next silence of a node.
pub(crate) struct Silence(watch::Receiver<u64>);

impl Silences {
    /// A node was heard.
    pub(crate) fn heard(&self, node: &NodeName) {
        self.with(node, |ear| ear.heard = clock::now());
    }

    /// How long ago a node was heard last.
    pub(crate) fn quiet(&self, node: &NodeName) -> Duration {
        self.with(node, |ear| clock::now().duration_since(ear.heard))
    }

    /// A node has fallen silent: whoever waits for that goes on.
    pub(crate) fn note(&self, node: &NodeName) {
        self.with(node, |ear| ear.silences.send_modify(|silences| *silences += 1));
    }

    /// The next silence from now on.
    pub(crate) fn next(&self, node: &NodeName) -> Silence {
        Silence(self.with(node, |ear| ear.silences.subscribe()))
    }

    fn with<T>(&self, node: &NodeName, then: impl FnOnce(&mut Ear) -> T) -> T {
        let mut ears = self.0.lock();
        let ear = ears
            .entry(node.clone())
            .or_insert_with(|| Ear { heard: clock::now(), silences: watch::Sender::new(0) });
        then(ear)
    }
}

impl Silence {
    /// Returns when the node has fallen silent.
    pub(crate) async fn begins(mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
