//! A real etcd that dies and comes back.

use std::process::{Child, Command, Stdio};

use pressroom_store::etcd::{EtcdStore, Options as Etcd};
use pressroom_store::transaction::Write;

use super::*;

/// An etcd with its data in a folder.
struct Server {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Server {
    fn start(data: PathBuf) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
            format!("http://{}", listener.local_addr().expect("an address"))
        };
        let (url, peer) = (free(), free());
        let child = Self::run(&data, &url, &peer);
        Self { child, url, data }
    }

    fn run(data: &Path, url: &str, peer: &str) -> Child {
        Command::new("etcd")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", url, "--advertise-client-urls", url])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed")
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// The same data at the same address; its peers' one is not asked for any more.
    fn restart(&mut self) {
        let peer = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let peer = format!("http://{}", peer.local_addr().expect("an address"));
        self.child = Self::run(&self.data, &self.url, &peer);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Writes, as soon as the store answers.
async fn write(store: &EtcdStore, writes: &[(&str, Option<&str>)]) {
    let late = Instant::now() + Duration::from_secs(30);
    loop {
        let mut transaction = Transaction::new();
        transaction.writes = writes
            .iter()
            .map(|(key, value)| {
                let key = key.parse().expect("a key");
                match value {
                    Some(value) => Write::Put { key, value: (*value).into(), lease: None },
                    None => Write::Delete(key),
                }
            })
            .collect();
        match store.commit(transaction).await {
            Ok(outcome) if outcome.is_committed() => return,
            other => assert!(Instant::now() < late, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_outlives_its_store_and_follows_it_again() {
    let desk = Desk::new("{{range gets `/app/*`}}{{base .Key}}={{.Value}} {{end}}", "");
    let mut server = Server::start(desk.path("etcd"));
    let (trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    let options =
        Etcd { endpoints: vec![server.url.clone()], prefix: "/".into(), tls: None, user: None };
    let store = EtcdStore::connect(&options, &tasks).expect("a store");
    let watched = Watched::of(desk, Arc::new(store.clone()), trigger, tasks.clone());
    write(&store, &[("app/a", Some("1")), ("other/b", Some("2"))]).await;
    watched.until("the first values", |desk| desk.text() == "a=1 ").await;

    server.kill();
    std::fs::write(
        watched.desk.path("conf.d/more.toml"),
        "[template]\nsrc = 'a.tmpl'\ndest = '/dev/null/x'\nkeys = ['/app']",
    )
    .expect("written");
    let is_waiting = |_: &Desk| {
        let of_more = |state: &pressroom_model::template::State| state.name == "more.toml";
        watched.board.all().iter().filter(|state| of_more(state)).any(|state| !state.is_heard)
    };
    watched.until("nobody answers", is_waiting).await;
    assert_eq!(watched.desk.text(), "a=1 ");

    server.restart();
    write(&store, &[("app/a", Some("2")), ("app/b", Some("3"))]).await;
    watched.until("what was written since", |desk| desk.text() == "a=2 b=3 ").await;
    write(&store, &[("app/a", None), ("app/b", None)]).await;
    let is_held = |_: &Desk| {
        watched.board.all().iter().any(|s| s.name == "a.toml" && s.standing == Standing::Held)
    };
    watched.until("an empty answer", is_held).await;
    assert_eq!(watched.desk.text(), "a=2 b=3 ");
    watched.end().await;
}
