//! A real etcd, and what others do to it with its own tool.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_agent::names::{seen, view};
use pressroom_model::config::Dns;
use pressroom_runtime::clock;
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;
use pressroom_store::etcd::{EtcdStore, Options};
use pressroom_store::key::Prefix;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::dig::{Server, publish};

pub(crate) struct Etcd {
    _folder: TempDir,
    child: Child,
    url: String,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (url, peer) = (format!("http://{}", free()), format!("http://{}", free()));
        let child = Command::new("etcd")
            .current_dir(folder.path())
            .args(["--name", "m0", "--data-dir", "data", "--initial-cluster"])
            .arg(format!("m0={peer}"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            // Leases may be short then.
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        Self { _folder: folder, child, url }
    }

    pub(crate) async fn store(&self, tasks: &Group) -> EtcdStore {
        let options = Options {
            endpoints: vec![self.url.clone()],
            prefix: "/".into(),
            tls: None,
            user: None,
        };
        let store = EtcdStore::connect(&options, tasks).unwrap();
        let late = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.list(&Prefix::all()).await {
            assert!(Instant::now() < late, "{error}");
        }
        store
    }

    /// etcd's own tool; what it prints.
    pub(crate) fn etcdctl(&self, words: &[&str], input: &str) -> String {
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("etcdctl is installed");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Nobody is told: as if the machine had lost its power.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has a server answer from what is in etcd, as an agent does.
pub(crate) fn follow(store: EtcdStore, server: &Server) {
    let (store, seen) = (Arc::new(store), Arc::new(watch::Sender::new(seen::Seen::default())));
    let (following, of) = (Arc::clone(&store), Arc::clone(&seen));
    server.tasks.spawn("follow", move |stop| async move {
        seen::follow(&*following, &of, stop).await;
    });
    let of = Arc::clone(&seen);
    server.tasks.spawn("leases", move |stop| async move {
        seen::look_at_leases(&*store, &of, stop).await;
    });
    let (folder, mut changes) = (server.folder.path().to_owned(), seen.subscribe());
    server.tasks.spawn("publish", move |stop| async move {
        while !stop.is_requested() {
            let view = {
                let seen = changes.borrow_and_update();
                seen.is_heard
                    .then(|| view::view(&seen, &Dns::default(), clock::now(), clock::wall_ms()))
            };
            if let Some(view) = view {
                publish(&folder, &view);
            }
            tokio::select! { () = stop.requested() => {}, _ = changes.changed() => {} }
        }
    });
}
