//! A node that the store tells nothing hears from others what changed, and is heard by them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use pressroom_model::id::SiteName;
use pressroom_model::placement::Placement;
use pressroom_store::entry::{Entry, Listing, Revision};
use pressroom_store::key::{Key, Prefix};
use pressroom_store::transaction::Outcome;
use pressroom_store::watch::{Changes, Watch};
use pressroom_store::{Later, Lease, LeaseId, StoreError};
use tokio::sync::mpsc;

use super::*;

/// The store, over a way that lets every question through and no notification.
struct Mute {
    store: Arc<dyn Store>,
    watches: Mutex<Vec<mpsc::Sender<Result<Changes, StoreError>>>>,
    listed: AtomicUsize,
}

impl Store for Mute {
    fn get<'a>(&'a self, key: &'a Key) -> Later<'a, Option<Entry>> {
        self.store.get(key)
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> Later<'a, Listing> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        self.store.list(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Later<'_, Outcome> {
        self.store.commit(transaction)
    }

    fn watch<'a>(&'a self, _: &'a Prefix, after: Revision) -> Later<'a, Watch> {
        let (sender, coming) = mpsc::channel(1);
        self.watches.lock().push(sender);
        Box::pin(async move { Ok(Watch::new(after, VecDeque::new(), coming)) })
    }

    fn grant(&self, ttl: Duration) -> Later<'_, Lease> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> Later<'_, ()> {
        self.store.keep_alive(lease)
    }

    fn rest(&self, lease: LeaseId) -> Later<'_, Option<Duration>> {
        self.store.rest(lease)
    }

    fn revoke(&self, lease: LeaseId) -> Later<'_, ()> {
        self.store.revoke(lease)
    }
}

impl Machine {
    fn ask_what_is_heard(&self) {
        let (agent, cluster) = (Arc::clone(&self.agent), Arc::clone(&self.cluster));
        self.group.spawn("hearsay", move |stop| agent.ask_what_is_heard(cluster, stop));
    }

    fn placement(&self, site: &SiteName) -> Option<Placement> {
        self.agent.state.lock().known.placements.get(site).cloned()
    }

    fn report_of(&self, node: &str) -> Option<u64> {
        let state = self.agent.state.lock();
        state.known.reports.get(&name(node)).map(|(report, _)| report.at_ms)
    }
}

async fn put(house: &House, key: Key, value: &impl serde::Serialize) {
    let text = serde_json::to_vec(value).expect("plain data");
    house.store.commit(Transaction::new().put(key, text)).await.expect("stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_does_not_tell_is_heard_from_others_and_the_other_way_round() {
    let house = House::new().await;
    let first = house.first().await;
    let layout = house.join(&first, "n2", Role::App).await;
    for node in ["n1", "n2"] {
        put(&house, keys::report(&name(node)), &first.agent.own_report()).await;
    }
    let mute = Arc::new(Mute {
        store: Arc::clone(&house.store),
        watches: Mutex::default(),
        listed: AtomicUsize::default(),
    });
    let second = house.start_deaf(layout, Some(Arc::clone(&mute) as Arc<dyn Store>)).await;
    second.follow().await;
    let [blog, shop]: [SiteName; 2] = ["blog", "shop"].map(|name| name.parse().expect("a name"));
    let placed = Placement { nodes: [(name("n2"), 3)].into(), ..Placement::default() };
    put(&house, keys::placement(&blog), &placed).await;
    until("the first has not heard", || first.placement(&blog).is_some()).await;
    assert_eq!(second.placement(&blog), None, "it hears the store");
    assert_eq!(first.report_of("n2"), Some(0));

    second.ask_what_is_heard();
    until("the second has not heard", || second.placement(&blog) == Some(placed.clone())).await;
    until("the report does not come", || first.report_of("n2") > Some(0)).await;
    // What is gone is heard too, in its turn.
    let gone = Transaction::new().delete(keys::placement(&blog));
    house.store.commit(gone).await.expect("stored");
    put(&house, keys::placement(&shop), &placed).await;
    until("the second has not heard", || second.placement(&shop).is_some()).await;
    assert_eq!(second.placement(&blog), None);
    assert_eq!(mute.listed.load(Ordering::Relaxed), 1, "it lists the store again");
    first.end().await;
    second.end().await;
}
