//! An etcd that operators keep, with TLS and users of theirs: what is refused before anything is moved, the way in, the way back to a
//! copy, and the way out.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pressroom_agent::cluster::external::{
    Contents, ExternalError, check, claim, give_back, move_in,
};
use pressroom_agent::cluster::founding::{Founder, found};
use pressroom_agent::cluster::membership::Membership;
use pressroom_agent::cluster::{backups, keys, restoring};
use pressroom_agent::layout::Layout;
use pressroom_model::external::Etcd;
use pressroom_model::secret::Secret;
use pressroom_runtime::tasks::Group;
use pressroom_runtime::{clock, shutdown};
use pressroom_store::Store;
use pressroom_store::copy::make_equal;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::etcd::EtcdStore;
use pressroom_store::key::{Key, Prefix};
use pressroom_store::transaction::{Compare, Transaction};
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::identity::new_key;

const PREFIX: &str = "/pressroom/shop/";
const PATIENCE: Duration = Duration::from_secs(20);

/// An etcd whose user `shop` may do everything below one prefix, and nothing else.
struct Kept {
    child: Child,
    urls: [String; 2],
    authority: String,
    folder: tempfile::TempDir,
}

impl Kept {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now = clock::wall_ms() / 1000;
        let (authority, _) = Authority::make(now).expect("an authority");
        let (key, public) = new_key().expect("a key");
        let name = "e1".parse().expect("a name");
        let chain = authority.sign_node(&name, [127, 0, 0, 1].into(), &PublicKey(public), now);
        for (name, text) in
            [("ca.pem", authority.pem()), ("e.pem", &chain.expect("signed")), ("e.key", &key)]
        {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let urls = [free("https"), free("https")];
        let child = run(folder.path(), &urls);
        let kept = Self { child, urls, authority: authority.pem().to_owned(), folder };
        kept.until_well();
        for words in [
            "user add root:above",
            "role add shop",
            "role grant-permission shop --prefix=true readwrite /pressroom/shop/",
            "role grant-permission shop --prefix=true readwrite /skydns",
            "user add shop:word",
            "user grant-role shop shop",
            "user grant-role root root",
            "auth enable",
        ] {
            kept.must(words);
        }
        kept.must("put /others/key x");
        kept
    }

    /// Everybody who may do something there.
    fn people(&self) -> String {
        self.must("user list") + &self.must("role list") + &self.must("role get shop")
    }

    fn until_well(&self) {
        let late = Instant::now() + PATIENCE;
        while !self.ctl("endpoint health").0 {
            assert!(Instant::now() < late, "etcd does not answer");
        }
    }

    /// Ends it at once, and starts it again: it forgets who had shown a password.
    fn again(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.child = run(self.folder.path(), &self.urls);
        self.until_well();
    }

    /// As its administrator.
    fn ctl(&self, words: &str) -> (bool, String) {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").current_dir(self.folder.path());
        command.args(["--endpoints", &self.urls[0], "--cacert", "ca.pem"]);
        let said = command.args(["--user", "root:above"]).args(words.split(' ')).output();
        let said = said.expect("etcdctl is installed");
        (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned())
    }

    fn must(&self, words: &str) -> String {
        let (is_done, said) = self.ctl(words);
        assert!(is_done, "{words}: {said}");
        said
    }

    fn etcd(&self) -> Etcd {
        Etcd {
            endpoints: self.urls.to_vec(),
            prefix: PREFIX.into(),
            authority: Some(self.authority.clone()),
            certificate: None,
            key: None,
            user: Some("shop".into()),
            password: Some(Secret::new("word")),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free(scheme: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("{scheme}://{}", listener.local_addr().expect("it is bound"))
}

fn run(folder: &Path, urls: &[String; 2]) -> Child {
    let (urls, peer) = (urls.join(","), free("http"));
    Command::new("etcd")
        .current_dir(folder)
        .args(["--data-dir", "data", "--bcrypt-cost", "4"])
        .args(["--listen-client-urls", &urls, "--advertise-client-urls", &urls])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--cert-file", "e.pem", "--key-file", "e.key"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed")
}

fn founded(layout: &Layout, external: &Etcd) -> Membership {
    for path in [layout.engines(), layout.secrets(), layout.data().join("store")] {
        std::fs::create_dir_all(path).expect("a folder");
    }
    // Eight ports in a row: somebody else may have one of them.
    let founded = (0..100).find_map(|_| {
        let founder = Founder {
            node: "n1".parse().expect("a name"),
            zone: "a".into(),
            address: [127, 0, 0, 1].into(),
            port: rand::random_range(20_000..60_000),
            external: Some(external.clone()),
        };
        found(layout, &founder, clock::wall_ms()).ok()
    });
    founded.expect("free ports")
}

async fn refused(etcd: &Etcd, contents: Contents<'_>, because: &str) -> ExternalError {
    let error = check(etcd, contents).await.expect_err(because);
    assert!(error.to_string().contains(because), "{error}");
    error
}

async fn put(store: &dyn Store, key: &'static str) {
    store.commit(Transaction::new().put(Key::literal(key), "x")).await.expect("stored");
}

async fn has(store: &dyn Store, key: &'static str) -> bool {
    store.get(&Key::literal(key)).await.expect("an answer").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_etcd_of_others_lacks_is_said_before_anything_is_moved() {
    let kept = Kept::start();
    let (good, free_for_us) = (kept.etcd(), Contents::FreeFor(""));
    check(&good, free_for_us).await.expect("it will do");

    let bad = Etcd { password: Some(Secret::new("guessed")), ..good.clone() };
    refused(&bad, free_for_us, "invalid user ID or password").await;
    let bad = Etcd { prefix: "/pressroom/other/".into(), ..good.clone() };
    refused(&bad, free_for_us, "permission denied").await;
    let mut bad = good.clone();
    bad.endpoints.push(free("https"));
    refused(&bad, free_for_us, &bad.endpoints[2]).await;
    let (stranger, _) = Authority::make(clock::wall_ms() / 1000).expect("an authority");
    let bad = Etcd { authority: Some(stranger.pem().to_owned()), ..good.clone() };
    refused(&bad, free_for_us, &good.endpoints[0]).await;
    let bad = Etcd { endpoints: vec!["http://10.0.0.1:2379".into()], ..good.clone() };
    assert!(matches!(refused(&bad, free_for_us, "https").await, ExternalError::Fault(_)));

    // Whatever is there, it is not ours: also what is no key that we would write.
    kept.must("put /pressroom/shop/a//b x");
    let error = refused(&good, free_for_us, PREFIX).await;
    assert!(matches!(error, ExternalError::Taken(_)), "{error}");
    let error = refused(&good, Contents::StateOf("ours"), PREFIX).await;
    assert!(matches!(error, ExternalError::NotThere(_)), "{error}");
    // Of all that nothing stays.
    kept.must("del /pressroom/shop/a//b");
    assert_eq!(kept.must("get --prefix /pressroom --keys-only"), "");
    check(&good, free_for_us).await.expect("it will do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_moves_into_an_etcd_of_others_back_to_a_copy_and_out_again() {
    let mut kept = Kept::start();
    let people = kept.people();
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(folder.path());
    let own = founded(&layout, &kept.etcd());
    assert!(!own.is_voter() && own.takes_copies());
    let file = layout.cluster().join("membership.json");
    let mode = std::fs::metadata(file).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it has the password");
    let (_trigger, stop) = shutdown::pair();
    let tasks = Group::new("test", stop);
    let (alone, _) =
        EmbeddedStore::open_or_replace(&layout.store(), &tasks).await.expect("a store");
    put(&alone, "before").await;
    let options = own.options(&layout).expect("readable");
    let store = EtcdStore::connect(&options, &tasks).expect("good options");
    for _ in 0..2 {
        // Once more, as after an interruption.
        move_in(&layout, &own, &alone, &store).await.expect("moved");
    }
    assert!(has(&store, "before").await && has(&store, "nodes/n1").await);
    assert!(!has(&store, "cluster/voters").await, "nobody votes");
    check(&kept.etcd(), Contents::StateOf(&own.token)).await.expect("the state is there");
    let second = Membership { token: "another".into(), ..own.clone() };
    claim(&second, &store).await.expect_err("a second cluster cannot have it");

    // Names are beside that, for a user that may nothing else there.
    let (names, of_names) = (store.at("/"), Prefix::from(Key::literal("skydns")));
    let before = names.list(&of_names).await.expect("listed").revision;
    let mut watch = names.watch(&of_names, before).await.expect("watched");
    put(&names, "skydns/local/a").await;
    assert_eq!(watch.next().await.expect("shown").changes.len(), 1);
    names.commit(Transaction::new().delete(Key::literal("skydns/local/a"))).await.expect("deleted");

    // A password that was shown is forgotten, and shown again.
    kept.again();
    let late = Instant::now() + PATIENCE;
    while store.get(&keys::mark()).await.is_err() {
        assert!(Instant::now() < late, "it is not heard any more");
    }

    // Back to a copy: who leads leads no more, and writes nothing.
    let copy = layout.data().join("a.entries");
    let mut file = std::fs::File::create(&copy).expect("made");
    backups::write_entries(&store, &mut file).await.expect("written");
    put(&store, "after").await;
    put(&store, "leader").await;
    let leader = store.get(&Key::literal("leader")).await.expect("an answer").expect("one leads");
    let office = restoring::depose(&own, &store).await.expect("deposed");
    let fenced = Transaction::new()
        .when(Compare::Created(leader.key, leader.created))
        .put(Key::literal("late"), "x");
    assert!(!store.commit(fenced).await.expect("an answer").is_committed());
    make_equal(&store, &backups::read(&copy).expect("whole")).await.expect("written");
    restoring::mend(&layout, &own, &store).await.expect("mended");
    office.resign().await.expect("resigned");
    assert!(has(&store, "before").await && has(&store, "nodes/n1").await);
    assert!(!has(&store, "after").await && !has(&store, "leader").await);
    backups::check_snapshot(&copy).expect_err("etcd's own tools cannot read it");

    // Out again: nothing of ours stays, and everything of theirs.
    give_back(&second, &store).await.expect("not ours, so nothing is done");
    assert!(has(&store, "before").await);
    give_back(&own, &store).await.expect("given back");
    assert_eq!(kept.must("get --prefix / --keys-only").trim(), "/others/key");
    assert_eq!(kept.people(), people);
    assert_eq!(kept.must("member list").lines().count(), 1);
}
