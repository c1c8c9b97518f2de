//! Which nodes have fallen silent, as the node with the data hears it.
//!
//! A node that died or was cut off cannot close its connections. What they hold in the database (a lock by name, a transaction)
//! would be held until TCP gives up on them; the pulse tells sooner. A node counts as heard with each beat of its pulse and each
//! connection that it opens.
//!
//! The engine sees that a connection is closed when the statement is done that it is in.

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

    /// Notes that a node is silent, if it was not heard for so long: whoever waits for that goes on. Otherwise how long is
    /// left.
    pub(crate) fn note(&self, node: &NodeName, silence: Duration) -> Option<Duration> {
        self.with(node, |ear| {
            let left = silence.checked_sub(clock::now().duration_since(ear.heard));
            let left = left.filter(|left| !left.is_zero());
            if left.is_none() {
                ear.silences.send_modify(|silences| *silences += 1);
            }
            left
        })
    }

    /// The next silence of a node that is heard now.
    pub(crate) fn next(&self, node: &NodeName) -> Silence {
        Silence(self.with(node, |ear| {
            ear.heard = clock::now();
            ear.silences.subscribe()
        }))
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
