//! The store in a real etcd: the battery over mutual TLS, and members that die and freeze.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_runtime::shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::etcd::{EtcdStore, Identity, Options, Tls};
use pressroom_store::key::{Key, Prefix};
use pressroom_store::transaction::Transaction;
use pressroom_store::{Store, StoreError, battery, copy};
use rustix::process::{Pid, Signal, kill_process};

/// A member, and what it takes to start it again.
struct Member {
    child: Child,
    url: String,
}

/// Members of one etcd, with an authority of their own.
struct Cluster {
    members: Vec<Member>,
    folder: tempfile::TempDir,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect(program).success(), "{program} {arguments:?}");
}

/// An authority and one certificate for everybody.
fn certificates(folder: &Path) {
    let key = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"];
    run("openssl", &[&key[..], &["ca.key"]].concat(), folder);
    run(
        "openssl",
        &[
            "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-days", "2", "-out",
            "ca.pem",
        ],
        folder,
    );
    run("openssl", &[&key[..], &["node.ec"]].concat(), folder);
    run("openssl", &["pkcs8", "-topk8", "-nocrypt", "-in", "node.ec", "-out", "node.key"], folder);
    run(
        "openssl",
        &["req", "-new", "-key", "node.key", "-subj", "/CN=node", "-out", "node.csr"],
        folder,
    );
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    run(
        "openssl",
        &[
            "x509",
            "-req",
            "-in",
            "node.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "san",
            "-out",
            "node.pem",
        ],
        folder,
    );
}

impl Cluster {
    fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        certificates(folder.path());
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=https://127.0.0.1:{peer}"))
            .collect();
        let members = ports
            .iter()
            .enumerate()
            .map(|(n, (client, peer))| {
                let url = format!("https://127.0.0.1:{client}");
                let peer = format!("https://127.0.0.1:{peer}");
                let child = Command::new("etcd")
                    .current_dir(folder.path())
                    .args(["--name", &format!("m{n}"), "--data-dir", &format!("data{n}")])
                    .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                    .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                    .args([
                        "--initial-cluster",
                        &peers.join(","),
                        "--initial-cluster-token",
                        "test",
                    ])
                    .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                    .args([
                        "--cert-file",
                        "node.pem",
                        "--key-file",
                        "node.key",
                        "--trusted-ca-file",
                        "ca.pem",
                        "--client-cert-auth",
                    ])
                    .args([
                        "--peer-cert-file",
                        "node.pem",
                        "--peer-key-file",
                        "node.key",
                        "--peer-trusted-ca-file",
                        "ca.pem",
                        "--peer-client-cert-auth",
                    ])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("etcd is installed");
                Member { child, url }
            })
            .collect();
        Self { members, folder }
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::read_to_string(path).expect("a file")
    }

    fn options(&self, prefix: &str) -> Options {
        let identity = Identity { chain: self.file("node.pem"), key: self.file("node.key") };
        Options {
            endpoints: self.members.iter().map(|member| member.url.clone()).collect(),
            prefix: prefix.into(),
            tls: Some(Tls { authority: self.file("ca.pem"), identity: Some(identity) }),
            user: None,
        }
    }

    async fn store(&self, prefix: &str, tasks: &Group) -> EtcdStore {
        let store = EtcdStore::connect(&self.options(prefix), tasks).expect("good options");
        let late = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.list(&Prefix::all()).await {
            assert!(Instant::now() < late, "{error}");
        }
        store
    }

    fn signal(&self, n: usize, signal: Signal) {
        let pid = i32::try_from(self.members[n].child.id()).expect("a pid");
        kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it runs");
    }

    /// The member that a store asks at the moment leads nothing by itself: which one leads, etcd says.
    async fn leader(&self, store: &EtcdStore) -> usize {
        for (n, member) in self.members.iter().enumerate() {
            if store.status(&member.url).await.is_ok_and(|status| status.id == status.leader) {
                return n;
            }
        }
        panic!("nobody leads")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_etcd_passes_the_battery() {
    let cluster = Cluster::start(1);
    let (_trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    let store = cluster.store("/", &tasks).await;
    let number = std::sync::atomic::AtomicU32::new(0);
    let forgetful = store.clone();
    battery::run(
        || {
            let n = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let store: Arc<dyn Store> = Arc::new(store.at(&format!("/battery/{n}/")));
            async move { store }
        },
        move |revision| {
            let store = forgetful.clone();
            async move { store.compact(revision).await.expect("compacted") }
        },
    )
    .await;
    // Whoever shows no certificate is answered nothing.
    let mut stranger = cluster.options("/");
    stranger.tls = stranger.tls.map(|tls| Tls { identity: None, ..tls });
    let stranger = EtcdStore::connect(&stranger, &tasks).expect("good options");
    assert!(matches!(stranger.get(&key("a")).await, Err(StoreError::Failed { .. })));
    // What is too much is refused before it is sent.
    let large = Transaction::new().put(key("a"), vec![0; 2 << 20]);
    assert!(matches!(store.commit(large).await, Err(StoreError::TooLarge { .. })));
    // A copy is whole, and the same again.
    let (from, to) = (store.at("/battery/1/"), store.at("/copied/"));
    let count = copy(&from, &to).await.expect("copied");
    assert!(count > 3);
    to.commit(Transaction::new().put(key("more"), "x").delete(key("other"))).await.expect("put");
    assert_eq!(copy(&from, &to).await.expect("copied"), count);
    // A snapshot is what etcd's own tool takes for one.
    let mut snapshot = Vec::new();
    let bytes = store.snapshot(&mut snapshot).await.expect("taken");
    assert_eq!(bytes, snapshot.len() as u64);
    std::fs::write(cluster.folder.path().join("snapshot"), &snapshot).expect("written");
    run("etcdctl", &["snapshot", "status", "snapshot"], cluster.folder.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_may_freeze_and_die_and_a_watch_misses_nothing() {
    let mut cluster = Cluster::start(3);
    let (_trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    let store = cluster.store("/pressroom/", &tasks).await;
    let start = store.list(&Prefix::all()).await.expect("a listing").revision;
    let mut watch = store.watch(&Prefix::all(), start).await.expect("a watch");
    let mut written = 0;
    let mut write = async |store: &EtcdStore| {
        let late = Instant::now() + Duration::from_secs(15);
        written += 1;
        // Without a condition: putting the same twice is putting it once.
        while let Err(error) =
            store.commit(Transaction::new().put(key(&format!("w/{written}")), "x")).await
        {
            assert!(Instant::now() < late, "{error}");
        }
    };
    write(&store).await;
    let first = cluster.leader(&store).await;
    cluster.signal(first, Signal::STOP);
    write(&store).await;
    write(&store).await;
    cluster.signal(first, Signal::CONT);
    write(&store).await;
    let late = Instant::now() + Duration::from_secs(15);
    while !store.status(&cluster.members[first].url).await.is_ok_and(|status| status.leader != 0) {
        assert!(Instant::now() < late, "the thawed member does not come back");
    }
    let second = cluster.leader(&store).await;
    let gone = store.status(&cluster.members[second].url).await.expect("it is up").id;
    cluster.members[second].child.kill().expect("killed");
    write(&store).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < written {
        let changes = tokio::time::timeout(Duration::from_secs(15), watch.next());
        let changes = changes.await.expect("in time").expect("changes");
        seen.extend(changes.changes.into_iter().map(|change| change.key.to_string()));
    }
    // etcd refuses for some seconds. Whoever has lost the answer asks once more.
    let late = Instant::now() + Duration::from_secs(15);
    while let Err(error) = store.remove(gone).await {
        assert!(Instant::now() < late, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.remove(gone).await.expect("gone already");
    // One of two that are left goes: nobody waits for ever.
    let third = (0..3).find(|n| ![second].contains(n)).expect("one is left");
    cluster.members[third].child.kill().expect("killed");
    let begun = Instant::now();
    let error = store.get(&key("w/1")).await.expect_err("no quorum");
    assert!(error.is_passing(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
