//! A real etcd of a cluster of one: who is answered there, and the way back to a copy of it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pressroom_agent::cluster::founding::{Founder, first_records, found};
use pressroom_agent::cluster::membership::{self, Membership};
use pressroom_agent::cluster::restoring::{Wanted, administrator, mend, sole};
use pressroom_agent::cluster::{access::Refused, backups};
use pressroom_agent::engine::etcd::Etcd;
use pressroom_agent::layout::Layout;
use pressroom_agent::users::Users;
use pressroom_model::id::NodeName;
use pressroom_runtime::tasks::Group;
use pressroom_runtime::{clock, shutdown};
use pressroom_store::etcd::{EtcdStore, Identity, Options, Tls};
use pressroom_store::key::Key;
use pressroom_store::transaction::Transaction;
use pressroom_store::{Store, StoreError};
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::identity::{fingerprint_of, new_key};
use rustix::process::{Pid, Signal, kill_process};

/// The first node of a cluster: its files, and its etcd.
struct First {
    layout: Layout,
    membership: Membership,
    process: Child,
    tasks: Group,
    _trigger: shutdown::Trigger,
    _folder: tempfile::TempDir,
}

/// A certificate with its key.
type Shown = (String, String);

impl First {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        for path in [layout.engines(), layout.logs(), layout.secrets()] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        // Eight ports in a row: somebody else may have one of them.
        let membership = (0..100).find_map(|_| {
            let port = rand::random_range(20_000..60_000);
            let address = [127, 0, 0, 1].into();
            let founder =
                Founder { node: name("n1"), zone: "a".into(), address, port, external: None };
            found(&layout, &founder, clock::wall_ms()).ok()
        });
        let membership = membership.expect("free ports");
        let process = process(&Etcd::of(&layout, &Users::new(), &membership).expect("an engine"));
        let (trigger, stop) = shutdown::pair();
        let tasks = Group::new("test", stop);
        let first = Self { layout, membership, process, tasks, _trigger: trigger, _folder: folder };
        let store = first.answering().await;
        first_records(&first.layout, &first.membership, &store).await.expect("stored");
        first
    }

    fn etcd(&self) -> Etcd {
        Etcd::of(&self.layout, &Users::new(), &self.membership).expect("an engine")
    }

    /// Ends etcd as the keeper does: it writes what it has.
    fn stop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it runs");
        self.process.wait().expect("ended");
    }

    /// Goes back to a copy, as the binary does it.
    async fn restore(&mut self, wanted: &Wanted) -> EtcdStore {
        self.stop();
        self.membership = sole(&self.membership, wanted);
        self.etcd().restore(wanted.from.as_deref(), wanted.at_ms).expect("restored");
        self.process = process(&self.etcd());
        let store = self.answering().await;
        mend(&self.layout, &self.membership, &store).await.expect("mended");
        store
    }

    /// The store, when it answers.
    async fn answering(&self) -> EtcdStore {
        let store = self.own();
        let late = Instant::now() + Duration::from_secs(20);
        while let Err(error) = store.get(&Key::literal("leader")).await {
            assert!(Instant::now() < late, "{error}");
        }
        store
    }

    fn authority(&self) -> Authority {
        membership::authority(&self.layout).expect("the founder has it")
    }

    /// The store, as whoever shows this certificate reaches it.
    fn as_of(&self, (chain, key): Shown) -> EtcdStore {
        let authority = self.authority().pem().to_owned();
        let tls = Some(Tls { authority, identity: Some(Identity { chain, key }) });
        let endpoints = self.membership.endpoints();
        let options = Options { endpoints, prefix: "/pressroom/".into(), tls, user: None };
        EtcdStore::connect(&options, &self.tasks).expect("good options")
    }

    fn own(&self) -> EtcdStore {
        let paths = membership::identity_paths(&self.layout);
        let read = |path| std::fs::read_to_string(path).expect("a file");
        self.as_of((read(&paths.chain), read(&paths.key)))
    }

    fn another_node(&self) -> Shown {
        let (key, public) = new_key().expect("a key");
        let (address, now) = ([127, 0, 0, 1].into(), clock::wall_ms() / 1000);
        let chain = self.authority().sign_node(&name("n2"), address, &PublicKey(public), now);
        (chain.expect("signed"), key)
    }

    fn guest(&self) -> Shown {
        let (key, public) = new_key().expect("a key");
        let now = clock::wall_ms() / 1000;
        let chain = self.authority().sign_guest("token", &PublicKey(public), now, now + 3600);
        (chain.expect("signed"), key)
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn process(etcd: &Etcd) -> Child {
    let spec = etcd.prepare().expect("prepared");
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("etcd")
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a good name")
}

async fn write(store: &EtcdStore) -> Result<(), StoreError> {
    put(store, "a").await
}

async fn put(store: &EtcdStore, key: &'static str) -> Result<(), StoreError> {
    store.commit(Transaction::new().put(Key::literal(key), "x")).await.map(drop)
}

async fn has(store: &EtcdStore, key: &'static str) -> bool {
    store.get(&Key::literal(key)).await.expect("an answer").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_answers_nodes_and_neither_guests_nor_removed_ones() {
    let first = First::start().await;
    let own = first.own();
    write(&own).await.expect("a node may write");

    // A join token is a certificate of the same authority.
    let guest = first.as_of(first.guest());
    write(&guest).await.expect_err("a guest may not");
    let error = guest.get(&Key::literal("leader")).await.expect_err("nor read");
    assert!(error.to_string().contains("permission denied"), "{error}");

    let shown = first.another_node();
    let key = fingerprint_of(&shown.0).expect("its key");
    let other = first.as_of(shown.clone());
    write(&other).await.expect_err("nobody let it in yet");
    own.allow(key.as_str()).await.expect("allowed");
    write(&other).await.expect("it is let in");

    // Removed: on the connection that it has …
    own.refuse(key.as_str()).await.expect("refused");
    write(&other).await.expect_err("it was removed");
    let url = &first.membership.endpoints()[0];
    first.as_of(shown.clone()).status(url).await.expect("who asks etcd how it is needs no user");
    // … and on every new one.
    let keys = [key.to_string()].into();
    let refused = Refused::default().with(&first.authority(), &keys, clock::wall_ms());
    let list = refused.expect("signed").list;
    let copy = first.layout.engine("etcd").join("refused.pem");
    std::fs::write(copy, list).expect("written");
    first.as_of(shown).status(url).await.expect_err("its key is refused");
    first.own().status(url).await.expect("ours is not");
    write(&own).await.expect("a node may still write");

    // Once more does no harm, and whoever is no node any more is put out.
    own.allow("somebody").await.expect("allowed");
    first_records(&first.layout, &first.membership, &own).await.expect("stored again");
    let users = own.users().await.expect("listed");
    assert_eq!(users.len(), 1, "{users:?}");
    write(&first.own()).await.expect("a node may still write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_state_and_what_etcd_had_can_be_gone_back_to() {
    let mut first = First::start().await;
    let own = first.own();
    put(&own, "before").await.expect("stored");
    let copy = first.layout.data().join("copy.db");
    let mut file = std::fs::File::create(&copy).expect("made");
    own.snapshot(&mut file).await.expect("taken");
    backups::check(&copy).expect("it is whole");
    put(&own, "after").await.expect("stored");
    // Nodes that were let in since stay nodes, and a leader of that time leads no more.
    let key = first.membership.nodes[&name("n1")].clone();
    first.membership.nodes.insert(name("n2"), key);
    put(&own, "leader").await.expect("stored");

    let from_copy = Wanted { from: Some(copy), at_ms: 1, external: None };
    let former = first.membership.clone();
    let store = first.restore(&from_copy).await;
    assert!(has(&store, "before").await && !has(&store, "after").await);
    assert!(has(&store, "nodes/n2").await && !has(&store, "leader").await);
    assert!(first.membership.restored_ms > former.restored_ms);
    assert_ne!(first.membership.token, former.token);
    write(&first.as_of(first.guest())).await.expect_err("a guest may still not");

    // Without a copy: what etcd has here, its last word included.
    put(&store, "last").await.expect("stored");
    let store = first.restore(&Wanted { from: None, at_ms: 2, external: None }).await;
    assert!(has(&store, "before").await && has(&store, "last").await);

    // A state in which this node was none yet is opened as its administrator.
    let key = first.membership.nodes[&name("n1")].keys.first().cloned().expect("its key");
    let now = clock::wall_ms() / 1000;
    let above = first.as_of(administrator(&first.layout, now).expect("signed"));
    above.refuse(&key).await.expect("refused");
    write(&first.own()).await.expect_err("it was shut out");
    above.allow(&key).await.expect("allowed");
    write(&first.own()).await.expect("it is let in again");

    // What failed is taken back, and etcd does not begin from nothing where it had something.
    first.stop();
    first.membership.stage = membership::Stage::Formed;
    first.etcd().restore(Some(&first.layout.store()), 3).expect_err("there is no such copy");
    let data = first.layout.engine("etcd").join("data");
    assert!(!data.exists());
    first.etcd().prepare().expect_err("its data is gone");
    first.etcd().unrestore(3).expect("taken back");
    first.process = process(&first.etcd());
    assert!(has(&first.answering().await, "last").await);
}
