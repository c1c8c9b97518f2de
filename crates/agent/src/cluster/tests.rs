//! Agents of several nodes in one process, over real doors and one store: without engines and sites.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::cluster::{Node, Role, Sealing};
use pressroom_model::id::NodeName;
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;
use pressroom_runtime::{clock, tree};
use pressroom_store::Store;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::etcd::{EtcdStore, Options};
use pressroom_store::transaction::Transaction;
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::http::{PROTOCOL, serve};
use pressroom_wire::identity::public_part;
use pressroom_wire::tls::Guests;
use pressroom_wire::validity::Validity;

use super::founding::{Founder, found};
use super::joining::{Joiner, TOKEN_LIFE, join};
use super::membership::{self, Membership, Stage, keep};
use super::sealing::SealingKey;
use super::secrets::sealing_key;
use super::{Cluster, files_of, keys};
use crate::agent::Agent;
use crate::layout::Layout;

mod external;
mod hearsay;
mod histories;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that the nodes have in common.
struct House {
    store: Arc<dyn Store>,
    _group: Group,
    _trigger: Trigger,
    folder: tempfile::TempDir,
}

/// A node with its agent.
struct Machine {
    layout: Layout,
    agent: Arc<Agent>,
    cluster: Arc<Cluster>,
    /// Ends what the agent does.
    trigger: Trigger,
    group: Group,
}

fn name(node: &str) -> NodeName {
    node.parse().expect("a name")
}

fn now() -> u64 {
    clock::wall_ms() / 1000
}

fn port() -> u16 {
    // Below those that the system gives to connections. Somebody else may have one of the eight, then another try is made.
    rand::random_range(10_000..32_000)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let late = clock::now() + PATIENCE;
    while !is_so() {
        assert!(clock::now() < late, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("house", stop);
        let path = folder.path().join("store");
        let (store, _) = EmbeddedStore::open_or_replace(&path, &group).await.expect("opened");
        Self { store: Arc::new(store), _group: group, _trigger: trigger, folder }
    }

    /// A secret as it is stored.
    async fn sealed(&self, secret: &str) -> Option<Vec<u8>> {
        let key = keys::secret(secret).expect("a good name");
        Some(self.store.get(&key).await.expect("an answer")?.value)
    }

    /// Waits until the store has this secret, sealed with the key that this node seals with.
    async fn wait_sealed(&self, by: &Machine, secret: &str) -> Vec<u8> {
        let late = clock::now() + PATIENCE;
        loop {
            let sealed = self.sealed(secret).await;
            if let Some(sealed) = sealed.filter(|sealed| by.sealing_key().is_current(sealed)) {
                return sealed;
            }
            assert!(clock::now() < late, "`{secret}` is not sealed with the key of now");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_sealing_done(&self) -> bool {
        let entry = self.store.get(&keys::sealing()).await.expect("an answer");
        let stored = entry.map(|entry| serde_json::from_slice::<Sealing>(&entry.value));
        stored.is_some_and(|stored| stored.is_ok_and(|it| it.is_done && !it.wants_another))
    }

    fn layout(&self, node: &str) -> Layout {
        let layout = Layout::new(self.folder.path().join(node));
        for path in [layout.secrets(), layout.engines(), layout.run()] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        layout
    }

    /// The first node, which may admit others.
    async fn first(&self) -> Machine {
        let layout = self.layout("n1");
        let founded = (0..100).find_map(|_| {
            let address = [127, 0, 0, 1].into();
            let founder = Founder {
                node: name("n1"),
                zone: "a".into(),
                address,
                port: port(),
                external: None,
            };
            found(&layout, &founder, clock::wall_ms()).ok()
        });
        let membership = Membership { stage: Stage::Formed, ..founded.expect("free ports") };
        membership.write(&layout).expect("written");
        let record = serde_json::to_vec(&membership.nodes[&name("n1")]).expect("plain data");
        let records = Transaction::new()
            .put(keys::node(&name("n1")), record)
            .put(keys::data(), "n1")
            .put(keys::refused(), files_of(&layout.cluster().join("refused.json")).expect("read"));
        self.store.commit(records).await.expect("stored");
        self.start(layout).await
    }

    async fn join(&self, by: &Machine, node: &str, role: Role) -> Layout {
        let layout = self.layout(node);
        let token = by.agent.make_token(TOKEN_LIFE).await.expect("a token");
        self.join_by(&token, &layout, node, role).await;
        layout
    }

    async fn join_by(&self, token: &str, layout: &Layout, node: &str, role: Role) -> Membership {
        let mut last = None;
        for _ in 0..100 {
            let joiner = Joiner {
                node: name(node),
                zone: "b".into(),
                address: Some([127, 0, 0, 1].into()),
                port: port(),
                roles: vec![role],
                labels: BTreeMap::new(),
            };
            match join(layout, token, &joiner).await {
                Ok((membership, _)) => return membership,
                Err(error) => last = Some(error),
            }
        }
        panic!("{last:?}")
    }

    /// Starts a node's agent, as far as it is a node, and its door.
    async fn start(&self, layout: Layout) -> Machine {
        let machine = self.start_deaf(layout, Some(Arc::clone(&self.store))).await;
        machine.follow().await;
        machine
    }

    /// The same, which does not follow the store; `None`: it does not even reach it.
    async fn start_deaf(&self, layout: Layout, store: Option<Arc<dyn Store>>) -> Machine {
        let membership = Membership::read(&layout).expect("read").expect("a node");
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("machine", stop);
        let cluster =
            Cluster::open(&layout, membership.clone(), group.clone()).expect("an identity");
        // Nobody answers there: the agents ask the store that they share.
        let options = Options {
            endpoints: vec!["https://127.0.0.1:1".into()],
            prefix: "/".into(),
            tls: None,
            user: None,
        };
        let etcd = EtcdStore::connect(&options, &group).expect("good options");
        let store = store.unwrap_or_else(|| Arc::new(etcd.clone()));
        let node = Some((Arc::clone(&cluster), etcd));
        let config = Path::new("/nowhere/pressroom.toml");
        let opened = Agent::open(layout.clone(), config, store, None, node);
        let mut agent = opened.await.expect("an agent");
        Arc::get_mut(&mut agent).expect("nobody has it yet").etcd = None;
        let door = SocketAddr::new(membership.address, membership.port);
        let listener = tokio::net::TcpListener::bind(door).await.expect("a free port");
        let acceptor = cluster.wire.acceptor(&[PROTOCOL], Guests::Welcome).expect("an acceptor");
        let (wire, connections, asked) = (cluster.wire.clone(), group.clone(), Arc::clone(&agent));
        let answer = move |peer, request| Arc::clone(&asked).answer_node(peer, request);
        group.spawn("door", move |stop| serve(wire, acceptor, listener, connections, stop, answer));
        Machine { layout, agent, cluster, trigger, group }
    }
}

impl Machine {
    /// Follows the store, and waits until it was heard.
    async fn follow(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("follow", move |stop| agent.follow_store(cluster, stop));
        until("the store is not heard", || self.agent.state.lock().known.is_heard).await;
    }

    fn keep_certificate(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("certificate", move |stop| agent.keep_certificate(cluster, stop));
    }

    fn watch_removal(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("removal", move |stop| agent.watch_removal(cluster, stop));
    }

    /// Shares secrets, and keeps the key that they are sealed with.
    fn share_secrets(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("secrets", move |stop| agent.share_secrets(cluster, stop));
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("sealing", move |stop| agent.keep_sealing(cluster, stop));
    }

    fn sealing_key(&self) -> SealingKey {
        sealing_key(&self.layout).expect("it has one")
    }

    fn secret(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.layout.secrets().join(name)).ok()
    }

    async fn lead(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("stand", move |stop| agent.stand(cluster, stop));
        until("it does not lead", || self.agent.leads()).await;
    }

    async fn remove(&self, node: &str) {
        self.agent.remove_node(&name(node)).await.expect("removed");
        let is_heard = || !self.agent.state.lock().known.nodes.contains_key(&name(node));
        until("its removal is not heard", is_heard).await;
    }

    async fn end(self) -> Layout {
        self.trigger.fire("the test ends it");
        self.group.finish(Duration::from_secs(5)).await;
        self.layout
    }

    fn shown(&self) -> Validity {
        self.cluster.wire.identity().validity()
    }
}

/// Gives a node a certificate that is good until then, and no longer.
fn shorten(layout: &Layout, authority: &Authority, node: &str, until: u64) {
    let paths = membership::identity_paths(layout);
    let key = String::from_utf8(files_of(&paths.key).expect("a key")).expect("text");
    let public = PublicKey(public_part(&key).expect("a key"));
    let address = [127, 0, 0, 1].into();
    let chain = authority.sign_node_until(&name(node), address, &public, now(), until);
    keep(layout, "node.pem", chain.expect("signed").as_bytes()).expect("kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_lead_is_told_at_once_that_it_is_deposed() {
    let house = House::new().await;
    let first = house.first().await;
    tokio::time::timeout(PATIENCE, first.agent.deposed()).await.expect("at once");
    first.lead().await;
    let waits = tokio::time::timeout(Duration::from_millis(50), first.agent.deposed());
    waits.await.expect_err("it leads");
    first.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_agents_run() {
    let house = House::new().await;
    let first = house.first().await;
    let layout = house.join(&first, "n2", Role::App).await;
    assert!(!membership::authority_key(&layout).exists(), "it may not admit others");
    let authority = membership::authority(&first.layout).expect("the founder has it");
    let second = house.start(layout).await;
    let soon = now() + 600;
    for (machine, node) in [(&first, "n1"), (&second, "n2")] {
        let key = machine.cluster.wire.identity().fingerprint();
        // Put there by somebody else, it is taken over; and then it is due.
        shorten(&machine.layout, &authority, node, soon);
        machine.keep_certificate();
        let on_disk = || membership::identity(&machine.layout).expect("read");
        until("it was not renewed", || on_disk().validity().until > soon + 86_400).await;
        until("it was not taken over", || on_disk().validity() == machine.shown()).await;
        assert_eq!(on_disk().fingerprint(), key);
    }
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_has_ended_comes_back_by_a_token_as_who_it_was() {
    let house = House::new().await;
    let first = house.first().await;
    let layout = house.join(&first, "n2", Role::App).await;
    let authority = membership::authority(&first.layout).expect("the founder has it");
    shorten(&layout, &authority, "n2", now() - 60);
    let changed = |node: &mut Node| {
        node.is_drained = true;
        node.labels.insert("rack".into(), "7".into());
    };
    let key = keys::node(&name("n2"));
    let mut record: Node = {
        let entry = house.store.get(&key).await.expect("an answer").expect("a record");
        serde_json::from_slice(&entry.value).expect("a record")
    };
    changed(&mut record);
    let text = serde_json::to_vec(&record).expect("plain data");
    house.store.commit(Transaction::new().put(key.clone(), text)).await.expect("stored");

    // By itself it cannot: nobody lets it in.
    let second = house.start(layout).await;
    second.keep_certificate();
    let told = || second.agent.state.lock().notices.iter().any(|it| it.contains("node join TOKEN"));
    until("the way back was not told", told).await;
    // Nor by the token of another cluster.
    let other = House::new().await;
    let stranger = other.first().await;
    let token = stranger.agent.make_token(TOKEN_LIFE).await.expect("a token");
    let joiner = Joiner {
        node: name("other"),
        zone: "c".into(),
        address: None,
        port: 1,
        roles: vec![],
        labels: BTreeMap::new(),
    };
    join(&second.layout, &token, &joiner).await.expect_err("another cluster");
    stranger.end().await;

    let token = first.agent.make_token(TOKEN_LIFE).await.expect("a token");
    let before = Membership::read(&second.layout).expect("read").expect("a node");
    let (joined, _) = join(&second.layout, &token, &joiner).await.expect("joined again");
    assert_eq!((joined.node, joined.port), (before.node, before.port));
    until("the agent did not take it over", || second.shown().until > now()).await;
    let entry = house.store.get(&key).await.expect("an answer").expect("a record");
    let after: Node = serde_json::from_slice(&entry.value).expect("a record");
    assert_eq!(after, record, "drained and labelled as it was");
    first.end().await;
    tree::remove(second.end().await.data()).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_hears_of_it_acts_as_none_and_says_the_way_back() {
    let house = House::new().await;
    let first = house.first().await;
    first.lead().await;
    let layout = house.join(&first, "n2", Role::Manager).await;
    let second = house.start(layout).await;
    second.watch_removal();
    assert!(second.agent.removal().is_none());
    first.remove("n2").await;
    until("it was not noticed", || second.agent.removal().is_some()).await;
    let notices = second.agent.status().notices;
    assert!(
        notices[0].contains("removed") && notices[0].contains("node join TOKEN"),
        "{notices:?}"
    );
    let standings = second.agent.standings();
    let [own] = standings.as_slice() else { panic!("{standings:?}") };
    assert!(own.because.contains("node join TOKEN") && own.is_removed, "{own:?}");
    assert!(!own.serves && !own.leader, "{own:?}");
    let is_known = first.agent.standings().iter().any(|node| node.name == name("n2"));
    assert!(!is_known, "the others have forgotten it");
    // Nobody leads for a moment, and it is a manager: it must not.
    first.end().await;
    let (agent, cluster) = (Arc::clone(&second.agent), Arc::clone(&second.cluster));
    second.group.spawn("stand", move |stop| agent.stand(cluster, stop));
    tokio::time::timeout(Duration::from_secs(5), second.agent.deposed()).await.expect("at once");
    assert!(!second.agent.leads());
    // It is so after a restart as well.
    let second = house.start(second.end().await).await;
    assert!(second.agent.removal().is_some());
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_while_it_was_away_is_told_by_the_others_and_comes_back_by_a_token()
{
    let house = House::new().await;
    let first = house.first().await;
    first.lead().await;
    let layout = house.join(&first, "n2", Role::App).await;
    let before = Membership::read(&layout).expect("read").expect("a node");
    let former = membership::identity(&layout).expect("read").fingerprint();
    first.remove("n2").await;
    let second = house.start_deaf(layout, None).await;
    second.watch_removal();
    until("nobody told it", || second.agent.removal().is_some()).await;
    assert!(Membership::read(&second.layout).expect("read").expect("kept").removed_ms > 0);

    let joiner = Joiner {
        node: name("n2"),
        zone: "c".into(),
        address: Some(before.address),
        port: before.port,
        roles: vec![Role::App],
        labels: BTreeMap::new(),
    };
    let other = House::new().await;
    let stranger = other.first().await;
    let token = stranger.agent.make_token(TOKEN_LIFE).await.expect("a token");
    join(&second.layout, &token, &joiner).await.expect_err("another cluster");
    stranger.end().await;
    let token = first.agent.make_token(TOKEN_LIFE).await.expect("a token");
    // Its own door has the ports still.
    join(&second.layout, &token, &joiner).await.expect("joined again");
    tokio::time::timeout(PATIENCE, second.agent.end.notified()).await.expect("it makes way");
    let second = house.start(second.end().await).await;
    assert!(second.agent.removal().is_none());
    assert_ne!(second.cluster.wire.identity().fingerprint(), former);
    second.watch_removal();
    let answered = second.cluster.wire.knock(&name("n1")).await.expect("an answer");
    assert_eq!(answered, pressroom_wire::tls::Knock::LetIn);
    assert!(second.agent.standings().iter().any(|node| node.name == name("n1")));
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_node_replaces_the_key_of_secrets_also_for_a_node_that_was_away() {
    let house = House::new().await;
    let first = house.first().await;
    first.lead().await;
    first.share_secrets();
    let write = |secret: &str, text: &str| {
        std::fs::write(first.layout.secrets().join(secret), text).expect("written");
    };
    write("site-blog", "one");
    house.wait_sealed(&first, "site-blog").await;
    let mut layouts = Vec::new();
    for node in ["n2", "n3", "n4"] {
        layouts.push(house.join(&first, node, Role::App).await);
    }
    let [second, away, removed] = <[Layout; 3]>::try_from(layouts).expect("three");
    let second = house.start(second).await;
    second.share_secrets();
    until("the secret is not there", || second.secret("site-blog").as_deref() == Some("one")).await;
    let former = first.sealing_key();

    first.remove("n4").await;
    until("the key stays", || first.sealing_key().current() != former.current()).await;
    let sealed = house.wait_sealed(&first, "site-blog").await;
    let known = sealing_key(&removed).expect("it was told one when it joined");
    assert!(known.open("site-blog", &sealed).is_err(), "the removed node opens it");
    let done = async || {
        let late = clock::now() + PATIENCE;
        while !house.is_sealing_done().await {
            assert!(clock::now() < late, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    done().await;
    let is_same = |one: &Machine, other: &Machine| {
        one.sealing_key().current() == other.sealing_key().current()
    };
    until("it seals with the former key", || is_same(&first, &second)).await;
    // What is new is heard on all nodes; and the one that was away asks for the key.
    write("site-shop", "two");
    house.wait_sealed(&first, "site-shop").await;
    until("it is not heard", || second.secret("site-shop").as_deref() == Some("two")).await;
    let away = house.start(away).await;
    assert!(!away.sealing_key().has(first.sealing_key().current()));
    away.share_secrets();
    until("it did not get the key", || is_same(&first, &away)).await;
    for (secret, text) in [("site-blog", "one"), ("site-shop", "two")] {
        until(secret, || away.secret(secret).as_deref() == Some(text)).await;
    }
    // A leader that dies after it has handed out a key and before it said so leaves no harm; nor does a key that nobody has.
    let lost = Sealing { key: "00000000".into(), wants_another: false, is_done: false };
    let lost = serde_json::to_vec(&lost).expect("plain data");
    house.store.commit(Transaction::new().put(keys::sealing(), lost)).await.expect("stored");
    let before = first.sealing_key();
    until("no key replaces it", || first.sealing_key().current() != before.current()).await;
    house.wait_sealed(&first, "site-blog").await;
    done().await;
    until("it has another key", || is_same(&first, &away) && is_same(&first, &second)).await;
    for machine in [first, second, away] {
        machine.end().await;
    }
}

#[test]
fn a_drained_node_works_when_the_others_are_gone_for_a_while_and_not_before_that_is_known() {
    let mut known = super::Known::default();
    for (node, is_drained) in [("n1", true), ("n2", false)] {
        let text = serde_json::json!({
            "zone": "a", "address": "10.0.0.1", "port": 7400, "keys": [], "is_drained": is_drained,
        });
        known.nodes.insert(name(node), serde_json::from_value(text).expect("a node"));
    }
    let rests = |known: &super::Known| known.rests(&name("n1"), Role::Edge);
    // A new agent has heard of nobody.
    assert!(rests(&known));
    known.gone.insert(name("n2"), clock::now());
    assert!(rests(&known), "its agent may be new as well");
    let long_ago = clock::now().checked_sub(super::GONE).expect("the machine runs for longer");
    known.gone.insert(name("n2"), long_ago);
    assert!(!rests(&known));
}
