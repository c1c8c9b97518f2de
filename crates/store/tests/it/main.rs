//! The embedded store from outside: the battery, restarts, crashes and damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::embedded::open::OpenError;
use pressroom_store::key::{Key, Prefix};
use pressroom_store::transaction::Transaction;
use pressroom_store::{Store, StoreError, battery};

mod crash;
mod damage;
mod etcd;
mod full_disk;

/// A store and what keeps its leases running.
struct Opened {
    store: EmbeddedStore,
    tasks: Group,
    trigger: Trigger,
}

impl Opened {
    async fn try_at(path: &Path) -> Result<Self, OpenError> {
        let (trigger, stop) = shutdown::pair();
        let tasks = Group::new("test", stop);
        let store = EmbeddedStore::open(path, &tasks).await?;
        Ok(Self { store, tasks, trigger })
    }

    async fn at(path: &Path) -> Self {
        Self::try_at(path).await.expect("the store opens")
    }

    /// Closes the file: afterwards it can be opened again.
    async fn close(self) {
        self.trigger.fire("test");
        drop(self.store);
        assert!(self.tasks.finish(Duration::from_secs(10)).await.is_empty());
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) {
    let key: Key = key.parse().expect("a key");
    store.commit(Transaction::new().put(key, value)).await.expect("a commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_passes_the_battery() {
    let folder = tempfile::tempdir().expect("a folder");
    let number = std::sync::atomic::AtomicU32::new(0);
    let (_trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    battery::run(
        || {
            let n = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (path, tasks) = (folder.path().join(format!("{n}.redb")), tasks.clone());
            async move {
                Arc::new(EmbeddedStore::open(&path, &tasks).await.expect("it opens"))
                    as Arc<dyn Store>
            }
        },
        |_| async {},
    )
    .await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let opened = Opened::at(&path).await;
    put(&opened.store, "a", "one").await;
    let start = opened.store.list(&Prefix::all()).await.expect("a listing").revision;
    put(&opened.store, "b", "two").await;
    let before = opened.store.list(&Prefix::all()).await.expect("a listing");
    opened.close().await;

    let opened = Opened::at(&path).await;
    assert_eq!(opened.store.list(&Prefix::all()).await.expect("a listing"), before);
    let mut watch =
        opened.store.watch(&Prefix::all(), start).await.expect("history outlives a restart");
    assert_eq!(watch.next().await.expect("a change").changes[0].key.as_str(), "b");
    opened.close().await;
}

#[tokio::test]
async fn a_lease_outlives_a_restart_and_still_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let opened = Opened::at(&path).await;
    let lease = opened.store.grant(Duration::from_millis(300)).await.expect("a lease");
    let key = Key::literal("leased");
    opened
        .store
        .commit(Transaction::new().put_leased(key.clone(), "x", lease.id))
        .await
        .expect("a commit");
    opened.close().await;

    let opened = Opened::at(&path).await;
    opened.store.keep_alive(lease.id).await.expect("it has its full time again");
    let mut watch = opened
        .store
        .watch(&Prefix::all(), pressroom_store::entry::Revision(1))
        .await
        .expect("a watch");
    let changes = tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .expect("in time")
        .expect("a change");
    assert!(changes.changes[0].key == key && changes.changes[0].now.is_none());
    assert!(matches!(opened.store.keep_alive(lease.id).await, Err(StoreError::LeaseGone(_))));
    opened.close().await;
}

#[tokio::test]
async fn a_dropped_store_lets_its_lease_task_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let opened = Opened::at(&folder.path().join("state.redb")).await;
    drop(opened.store);
    tokio::time::timeout(Duration::from_secs(10), opened.tasks.idle())
        .await
        .expect("the task ends");
}
