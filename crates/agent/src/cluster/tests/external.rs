//! Nodes whose state is in an etcd that operators keep, as far as they go by their memberships alone.

use pressroom_model::external::Etcd;
use pressroom_model::secret::Secret;
use pressroom_store::key::Prefix;

use super::*;

fn etcd(endpoint: &str) -> Etcd {
    Etcd {
        endpoints: vec![endpoint.into()],
        prefix: "/pressroom/".into(),
        authority: None,
        certificate: None,
        key: None,
        user: Some("shop".into()),
        password: Some(Secret::new("word")),
    }
}

impl House {
    /// The first node, whose state is marked as in an etcd of operators'.
    async fn first_of_external(&self) -> Machine {
        let layout = self.first().await.end().await;
        let own = Membership::read(&layout).expect("read").expect("a node");
        let own = Membership {
            external: Some(etcd("http://127.0.0.1:1")),
            voters: BTreeMap::new(),
            ..own
        };
        own.write(&layout).expect("written");
        let mark = Transaction::new().put(keys::mark(), own.token);
        self.store.commit(mark).await.expect("stored");
        self.start(layout).await
    }
}

impl Machine {
    fn tell_restored(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("restored", move |stop| agent.tell_restored(cluster, stop));
    }

    fn on_disk(&self) -> Membership {
        Membership::read(&self.layout).expect("read").expect("a node")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_was_emptied_or_is_anothers_changes_no_node() {
    let house = House::new().await;
    let first = house.first_of_external().await;
    let known = || first.agent.state.lock().known.clone();
    assert!(known().nodes.contains_key(&name("n1")));
    let state = house.store.list(&Prefix::all()).await.expect("listed").entries;
    let (mut gone, mut back) = (Transaction::new(), Transaction::new());
    for entry in state {
        gone = gone.delete(entry.key.clone());
        back = back.put(entry.key, entry.value);
    }
    house.store.commit(gone).await.expect("emptied");
    until("it is not noticed", || !known().is_heard).await;
    assert!(known().nodes.contains_key(&name("n1")));
    let told = || first.agent.state.lock().notices.iter().any(|it| it.contains("restore COPY"));
    assert!(told(), "people are told");
    // Somebody else's state there is not taken for ours.
    let other = Transaction::new().put(keys::mark(), "other").put(keys::data(), "n9");
    house.store.commit(other).await.expect("stored");
    let entries = house.store.list(&Prefix::all()).await.expect("listed").entries;
    first.cluster.check_ours(&entries).expect_err("it is another one's");
    house.store.commit(back).await.expect("stored");
    until("it is not heard again", || first.agent.state.lock().known.is_heard).await;
    assert_eq!(first.agent.state.lock().known.data, Some(name("n1")));
    first.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_endpoints_reach_all_nodes_and_a_removed_one_forgets_them() {
    let house = House::new().await;
    let first = house.first_of_external().await;
    let second = house.join(&first, "n2", Role::App).await;
    let second = house.start(second).await;
    assert_eq!(second.on_disk().external, Some(etcd("http://127.0.0.1:1")), "it was told");
    assert!(!second.on_disk().is_voter());

    // Whoever is told ends, and asks there from then on.
    first.agent.reach_by(etcd("http://127.0.0.1:2")).expect("kept");
    first.agent.should_end().await;
    let first = house.start(first.end().await).await;
    first.tell_restored();
    tokio::time::timeout(PATIENCE, second.agent.should_end()).await.expect("it was told");
    let second = house.start(second.end().await).await;
    for machine in [&first, &second] {
        assert_eq!(machine.on_disk().external, Some(etcd("http://127.0.0.1:2")));
        assert_eq!(*machine.cluster.endpoints.borrow(), ["http://127.0.0.1:2"]);
    }

    second.watch_removal();
    first.lead().await;
    first.remove("n2").await;
    until("it does not notice", || second.agent.removal().is_some()).await;
    until("it still knows the password", || second.on_disk().external.is_none()).await;
    assert!(second.cluster.endpoints.borrow().is_empty());
    first.end().await;
    second.end().await;
}
