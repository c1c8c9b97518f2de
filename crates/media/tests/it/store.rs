//! An object store beside nodes: one in memory, or Garage where that is installed.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use parking_lot::Mutex;
use pressroom_media::bucket::{AccessKey, Bucket, Error};
use pressroom_media::ledger::Entry;
use pressroom_media::object::is_behind;
use pressroom_media::settle::{Settled, settle};
use pressroom_media::stored::Stored;
use pressroom_model::config::MediaStore;
use pressroom_model::id::SiteName;

use crate::garage::{self, Garage};
use crate::moody::Moody;
use crate::nodes::{Node, map, meet, now, tell};

/// The site of all tests.
fn site() -> SiteName {
    "blog".parse().expect("a name")
}

/// A node with a store.
struct Copied {
    node: Node,
    stored: Mutex<Stored>,
    bucket: Bucket,
}

impl Copied {
    fn new(bucket: &Bucket) -> Self {
        Self::on(Node::new(), bucket)
    }

    fn on(node: Node, bucket: &Bucket) -> Self {
        let stored = Stored::read(node.place().join("stored"), "s3://it").expect("read");
        Self { node, stored: Mutex::new(stored), bucket: bucket.clone() }
    }

    /// It is killed and started again.
    fn restart(self) -> Self {
        self.stored.lock().write().expect("written");
        Self::on(self.node.stop().start(), &self.bucket)
    }

    async fn settle(&self, path: &str) -> Result<Settled, Error> {
        let folder = self.node.folder();
        settle(&self.bucket, &folder, &self.stored, &site(), path, now()).await
    }

    /// What the store is to hear of, as far as this node knows.
    fn behind(&self) -> usize {
        let folder = self.node.folder();
        let (ledger, stored) = (folder.ledger.lock(), self.stored.lock());
        let is_behind =
            |(path, entry): &(&String, &Entry)| is_behind(Some(entry), stored.version(path));
        ledger.entries().iter().filter(is_behind).count()
    }
}

async fn versions(bucket: &Bucket) -> Vec<(String, usize)> {
    let all = bucket.all(&site()).await.expect("listed");
    all.into_iter().map(|(path, objects)| (path, objects.len())).collect()
}

fn one(path: &str) -> Vec<(String, usize)> {
    vec![(path.to_owned(), 1)]
}

/// What every store must pass.
async fn battery(bucket: &Bucket) {
    let (a, b) = (Copied::new(bucket), Copied::new(bucket));
    let path = "2026/11/ä 100% [x]+&.jpg";
    a.node.write(path, "one");
    assert_eq!(a.behind(), 1);
    assert_eq!(a.settle(path).await.expect("sent"), Settled::Brought);
    assert_eq!((a.behind(), versions(bucket).await), (0, one(path)));
    assert_eq!(a.settle(path).await.expect("looked"), Settled::Equal);
    // A node that is new gets it from the store, with its time and its line.
    assert!(matches!(b.settle(path).await.expect("fetched"), Settled::Fetched(_)));
    assert_eq!(b.node.files(), map(&[(path, "one")]));
    assert_eq!(b.node.folder().ledger.lock().entries(), a.node.folder().ledger.lock().entries());
    // Two that have the same send it once.
    b.settle(path).await.expect("looked");
    assert_eq!(versions(bucket).await, one(path));
    // What replaced it, replaces it there; whoever is late with the old version does not bring it back.
    b.node.write(path, "another");
    b.settle(path).await.expect("sent");
    assert_eq!(versions(bucket).await, one(path));
    assert!(matches!(a.settle(path).await.expect("fetched"), Settled::Fetched(_)));
    assert_eq!(a.node.files(), map(&[(path, "another")]));
    assert!(a.node.kept().is_empty(), "whoever made the new one had seen the old one");
    // Gone is gone.
    a.node.delete(path);
    assert_eq!(a.behind(), 1);
    assert_eq!(a.settle(path).await.expect("deleted"), Settled::Brought);
    assert_eq!((a.behind(), versions(bucket).await), (0, Vec::new()));
    // Larger than a part.
    let large = "0123456789abcde\n".repeat(1 << 20);
    a.node.write("large.mp4", &large);
    a.settle("large.mp4").await.expect("sent");
    b.settle("large.mp4").await.expect("fetched");
    assert!(b.node.files()["large.mp4"] == large);
}

#[tokio::test]
async fn a_store_in_memory_keeps_what_it_is_to_keep() {
    battery(&Bucket::over(Arc::new(InMemory::new()), "some/prefix")).await;
}

#[tokio::test]
async fn other_bytes_than_were_sent_replace_nothing() {
    let store = Arc::new(InMemory::new());
    let bucket = Bucket::over(Arc::clone(&store) as Arc<dyn ObjectStore>, "p");
    let (a, b) = (Copied::new(&bucket), Copied::new(&bucket));
    a.node.write("a.jpg", "one");
    a.settle("a.jpg").await.expect("sent");
    let objects = bucket.versions(&site(), "a.jpg").await.expect("listed");
    let at = Path::parse(format!("p/blog/a.jpg/{}", objects[0].name())).expect("a path");
    store.put(&at, PutPayload::from_static(b"0ne")).await.expect("put");
    assert!(matches!(b.settle("a.jpg").await, Err(Error::Disk(_))));
    assert!(b.node.files().is_empty());
    // What others put there is passed over.
    for name in ["p/blog/a.jpg/readme", "p/blog/x.y.z", "p/blog/%zz/1.2.3", "q/blog/a/b"] {
        let at = Path::parse(name).expect("a path");
        store.put(&at, PutPayload::from_static(b"x")).await.expect("put");
    }
    assert_eq!(versions(&bucket).await, one("a.jpg"));
}

#[tokio::test]
async fn a_file_that_is_being_written_is_sent_later() {
    let bucket = Bucket::over(Arc::new(InMemory::new()), "");
    let a = Copied::new(&bucket);
    a.node.write("a.jpg", "one");
    std::fs::write(a.node.path("a.jpg"), "longer").expect("written");
    assert_eq!(a.settle("a.jpg").await.expect("looked"), Settled::Changing);
    assert_eq!((a.behind(), versions(&bucket).await), (1, Vec::new()));
    a.node.look();
    assert_eq!(a.settle("a.jpg").await.expect("sent"), Settled::Brought);
    assert_eq!((a.behind(), versions(&bucket).await), (0, one("a.jpg")));
}

#[tokio::test]
async fn what_a_lost_node_could_not_send_is_sent_by_those_that_have_it() {
    let store = Arc::new(Moody::new());
    let bucket = Bucket::over(Arc::clone(&store) as Arc<dyn ObjectStore>, "p");
    let (a, b) = (Copied::new(&bucket), Copied::new(&bucket));
    a.node.write("old.jpg", "old");
    a.settle("old.jpg").await.expect("sent");
    meet(&a.node, &b.node);
    b.settle("old.jpg").await.expect("looked");
    store.go_away();
    a.node.write("new.jpg", "new");
    a.node.delete("old.jpg");
    for path in ["new.jpg", "old.jpg"] {
        assert!(matches!(a.settle(path).await, Err(Error::Store(_))));
    }
    meet(&a.node, &b.node);
    drop(a);
    // Also after a restart it is known what the store lacks and has too much.
    let b = b.restart();
    assert_eq!(b.behind(), 2);
    store.come_back();
    for path in ["new.jpg", "old.jpg"] {
        assert_eq!(b.settle(path).await.expect("settled"), Settled::Brought);
    }
    assert_eq!((b.behind(), versions(&bucket).await), (0, one("new.jpg")));
    assert_eq!(b.restart().behind(), 0);
    // All of them are lost: a machine that is new has it from the store.
    let c = Copied::new(&bucket);
    c.settle("new.jpg").await.expect("fetched");
    assert_eq!(c.node.files(), map(&[("new.jpg", "new")]));
}

#[tokio::test]
async fn a_slow_store_does_not_bring_back_what_was_deleted_or_replaced_meanwhile() {
    let store = Arc::new(Moody::new());
    let bucket = Bucket::over(Arc::clone(&store) as Arc<dyn ObjectStore>, "p");
    for is_replaced in [false, true] {
        let (a, b) = (Copied::new(&bucket), Copied::new(&bucket));
        a.node.write("a.jpg", "slow");
        meet(&a.node, &b.node);
        store.hold();
        let meanwhile = async {
            store.holds().await;
            match is_replaced {
                true => b.node.write("a.jpg", "quick"),
                false => b.node.delete("a.jpg"),
            }
            let settled = if is_replaced { Settled::Brought } else { Settled::Equal };
            assert_eq!(b.settle("a.jpg").await.expect("settled"), settled);
            tell(&b.node, &a.node).expect("told");
            store.release();
        };
        let (sent, ()) = tokio::join!(a.settle("a.jpg"), meanwhile);
        assert_eq!(sent.expect("sent"), Settled::Changing);
        assert_eq!(a.behind(), 1, "it is noted, also when it dies here");
        a.settle("a.jpg").await.expect("settled");
        let left = if is_replaced { one("a.jpg") } else { Vec::new() };
        assert_eq!((a.behind(), versions(&bucket).await), (0, left));
        let c = Copied::new(&bucket);
        c.settle("a.jpg").await.expect("settled");
        let has = if is_replaced { map(&[("a.jpg", "quick")]) } else { map(&[]) };
        assert_eq!(c.node.files(), has);
    }
}

#[tokio::test]
async fn garage_keeps_what_it_is_to_keep_and_what_it_lacks_waits_while_it_is_away() {
    let address = garage::free();
    let Some(mut garage) = Garage::start(address, &[]) else { return };
    let place = MediaStore {
        bucket: garage::BUCKET.into(),
        prefix: "site/media".into(),
        endpoint: Some(format!("http://{address}")),
        region: "garage".into(),
        key_file: PathBuf::new(),
    };
    let key = AccessKey::parse(&garage::key()).expect("a key");
    let bucket = Bucket::open(&place, &key).expect("opened");
    battery(&bucket).await;
    garage.stop();
    let a = Copied::new(&bucket);
    a.node.write("later.jpg", "later");
    assert!(matches!(a.settle("later.jpg").await, Err(Error::Store(_))));
    assert_eq!(a.behind(), 1);
    garage.run();
    a.settle("later.jpg").await.expect("sent");
    assert_eq!(a.behind(), 0);
}
