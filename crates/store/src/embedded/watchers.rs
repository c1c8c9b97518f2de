//! Who is told of changes. A watcher whose queue is full is dropped with a word, never waited for.

use tokio::sync::mpsc;

use crate::StoreError;
use crate::entry::Revision;
use crate::key::Prefix;
use crate::watch::{Changes, QUEUE};

/// Everybody who watches.
#[derive(Default)]
pub(super) struct Watchers(Vec<Watcher>);

struct Watcher {
    prefix: Prefix,
    after: Revision,
    queue: mpsc::Sender<Result<Changes, StoreError>>,
}

impl Watchers {
    /// Somebody more.
    pub(super) fn add(
        &mut self,
        prefix: Prefix,
        after: Revision,
    ) -> mpsc::Receiver<Result<Changes, StoreError>> {
        self.0.retain(|watcher| !watcher.queue.is_closed());
        let (queue, receiver) = mpsc::channel(QUEUE + 1);
        self.0.push(Watcher { prefix, after, queue });
        receiver
    }

    /// Tells everybody what concerns them.
    pub(super) fn tell(&mut self, all: &Changes) {
        self.0.retain(|watcher| {
            let concern = |change: &&crate::watch::Change| change.key.is_under(&watcher.prefix);
            let changes: Vec<_> = all.changes.iter().filter(concern).cloned().collect();
            changes.is_empty()
                || all.revision <= watcher.after
                || watcher.tell(Changes { revision: all.revision, changes })
        });
    }
}

impl Watcher {
    /// Whether the watcher stays. The last place of its queue is for the word that it was too slow.
    fn tell(&self, changes: Changes) -> bool {
        let revision = changes.revision;
        if self.queue.capacity() > 1 {
            return self.queue.try_send(Ok(changes)).is_ok();
        }
        let _reader_gone =
            self.queue.try_send(Err(StoreError::Compacted { oldest: revision })).is_err();
        false
    }
}
