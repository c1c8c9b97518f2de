//! The tests that every implementation of [`Store`] passes. Each check gets an empty store of its own.
//!
//! Checks assume nothing but the trait: other implementations call [`run`] from their tests.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_runtime::clock;

use crate::election::campaign;
use crate::entry::Revision;
use crate::key::{Key, Prefix};
use crate::transaction::{Compare, Outcome, Transaction};
use crate::watch::Watch;
use crate::{Later, LeaseId, Store, StoreError};

type Any = Arc<dyn Store>;

/// Long enough for a busy machine, short enough for people.
const PATIENCE: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(1);

/// Runs every check, each on a store from `make`. `forget` has a store forget its history up to a revision; one that forgets
/// by itself does nothing.
pub async fn run<F, Fut, G, Gone>(make: F, forget: G)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Any>,
    G: Fn(Revision) -> Gone,
    Gone: Future<Output = ()>,
{
    a_value_comes_back_with_its_revisions(make().await).await;
    a_listing_is_sorted_and_keeps_to_its_prefix(make().await).await;
    a_refused_transaction_writes_nothing(make().await).await;
    of_two_rival_transactions_one_wins(make().await).await;
    writing_a_key_twice_is_refused(make().await).await;
    removing_what_is_absent_changes_nothing(make().await).await;
    a_watch_misses_nothing_before_and_after_it_starts(make().await).await;
    a_watch_sees_transactions_whole(make().await).await;
    a_watch_of_forgotten_history_says_so(make().await, forget).await;
    a_slow_watch_loses_itself_not_a_change(make().await).await;
    a_leased_key_vanishes_when_nobody_comes_back(make().await).await;
    a_kept_lease_outlives_its_time(make().await).await;
    a_key_written_without_its_lease_stays(make().await).await;
    a_lease_that_is_gone_cannot_be_used(make().await).await;
    one_candidate_at_a_time_leads(make().await).await;
    a_deposed_leader_writes_nothing(make().await).await;
}

fn key(text: &str) -> Key {
    text.parse().expect("a good key")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a good prefix")
}

async fn ok<T>(later: Later<'_, T>) -> T {
    in_time(later).await.expect("the store works")
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn put(store: &Any, name: &str, value: &str) -> Revision {
    match ok(store.commit(Transaction::new().put(key(name), value))).await {
        Outcome::Committed(revision) => revision,
        Outcome::Refused { .. } => panic!("nothing was compared"),
    }
}

async fn read(store: &Any, name: &str) -> Option<String> {
    let entry = ok(store.get(&key(name))).await;
    entry.map(|e| String::from_utf8(e.value).expect("text"))
}

/// Waits until the key is gone.
async fn gone(store: &Any, name: &str) -> Instant {
    let name = key(name);
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    in_time(async {
        while ok(store.get(&name)).await.is_some() {
            pause.tick().await;
        }
    })
    .await;
    clock::now()
}

async fn a_value_comes_back_with_its_revisions(store: Any) {
    assert_eq!(ok(store.get(&key("a"))).await, None);
    let first = put(&store, "a", "one").await;
    let second = put(&store, "a", "two").await;
    assert!(second > first);
    let entry = ok(store.get(&key("a"))).await.expect("it is there");
    assert_eq!(
        (entry.value.as_slice(), entry.created, entry.modified),
        (b"two".as_slice(), first, second)
    );
    ok(store.commit(Transaction::new().delete(key("a")))).await;
    let again = put(&store, "a", "three").await;
    let entry = ok(store.get(&key("a"))).await.expect("it is there");
    assert_eq!(
        (entry.created, entry.modified),
        (again, again),
        "a key that comes back is a new one"
    );
}

async fn a_listing_is_sorted_and_keeps_to_its_prefix(store: Any) {
    for name in ["site/b", "site", "sites", "site/a/x", "site-2", "other"] {
        put(&store, name, name).await;
    }
    let names = |listing: &crate::entry::Listing| {
        listing.entries.iter().map(|e| e.key.to_string()).collect::<Vec<_>>()
    };
    let listing = ok(store.list(&prefix("site"))).await;
    assert_eq!(names(&listing), ["site", "site/a/x", "site/b"]);
    let last = put(&store, "more", "").await;
    let all = ok(store.list(&Prefix::all())).await;
    assert_eq!((all.entries.len(), all.revision), (7, last));
}

async fn a_refused_transaction_writes_nothing(store: Any) {
    let at = put(&store, "a", "old").await;
    let cases = [
        Compare::Absent(key("a")),
        Compare::Present(key("b")),
        Compare::Modified(key("a"), at.next()),
        Compare::Modified(key("b"), at),
        Compare::Created(key("a"), Revision(at.0 + 7)),
    ];
    for compare in cases {
        let transaction = Transaction::new().when(Compare::Present(key("a"))).when(compare.clone());
        let outcome = ok(store.commit(transaction.put(key("a"), "new").put(key("b"), "new"))).await;
        let Outcome::Refused { compare: told, found, revision } = outcome else {
            panic!("{compare:?} should not hold")
        };
        assert_eq!((&told, revision), (&compare, at));
        assert_eq!(found, ok(store.get(told.key())).await);
    }
    assert_eq!(read(&store, "a").await.as_deref(), Some("old"));
    assert_eq!(read(&store, "b").await, None);
    let good = Transaction::new()
        .when(Compare::Modified(key("a"), at))
        .when(Compare::Created(key("a"), at));
    assert!(ok(store.commit(good.put(key("a"), "new"))).await.is_committed());
}

async fn of_two_rival_transactions_one_wins(store: Any) {
    put(&store, "counter", "0").await;
    let add = |store: Any| async move {
        for _ in 0..20 {
            loop {
                let entry = ok(store.get(&key("counter"))).await.expect("it is there");
                let n: u64 = String::from_utf8_lossy(&entry.value).parse().expect("a number");
                let next = Transaction::new()
                    .when(Compare::Modified(key("counter"), entry.modified))
                    .put(key("counter"), (n + 1).to_string());
                if ok(store.commit(next)).await.is_committed() {
                    break;
                }
            }
        }
    };
    tokio::join!(add(store.clone()), add(store.clone()), add(store.clone()));
    assert_eq!(read(&store, "counter").await.as_deref(), Some("60"));
}

async fn writing_a_key_twice_is_refused(store: Any) {
    let twice = Transaction::new().put(key("a"), "1").delete(key("a"));
    assert!(
        matches!(in_time(store.commit(twice)).await, Err(StoreError::WrittenTwice(k)) if k == key("a"))
    );
}

async fn removing_what_is_absent_changes_nothing(store: Any) {
    let at = put(&store, "a", "").await;
    ok(store.commit(Transaction::new().delete(key("b")))).await;
    let mut watch = ok(store.watch(&Prefix::all(), at)).await;
    let next = put(&store, "c", "").await;
    assert_eq!(in_time(watch.next()).await.expect("a change").revision, next);
}

async fn a_watch_misses_nothing_before_and_after_it_starts(store: Any) {
    let start = put(&store, "w/0", "").await;
    put(&store, "w/1", "").await;
    put(&store, "elsewhere", "").await;
    let mut watch = ok(store.watch(&prefix("w"), start)).await;
    put(&store, "w/2", "").await;
    ok(store.commit(Transaction::new().delete(key("w/1")))).await;
    let seen = take(&mut watch, 3).await;
    assert_eq!(seen, ["w/1 is", "w/2 is", "w/1 gone"]);
    let resumed = watch.revision();
    drop(watch);
    put(&store, "w/3", "").await;
    let mut watch = ok(store.watch(&prefix("w"), resumed)).await;
    assert_eq!(take(&mut watch, 1).await, ["w/3 is"]);
}

async fn take(watch: &mut Watch, n: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < n {
        let changes = in_time(watch.next()).await.expect("a change");
        let word = |c: &crate::watch::Change| {
            format!("{} {}", c.key, if c.now.is_some() { "is" } else { "gone" })
        };
        seen.extend(changes.changes.iter().map(word));
    }
    seen
}

async fn a_watch_sees_transactions_whole(store: Any) {
    let mut watch = ok(store.watch(&prefix("w"), Revision::ZERO)).await;
    let both = Transaction::new().put(key("w/a"), "1").put(key("x"), "").put(key("w/b"), "2");
    let Outcome::Committed(revision) = ok(store.commit(both)).await else {
        panic!("nothing was compared")
    };
    let changes = in_time(watch.next()).await.expect("a change");
    assert_eq!((changes.revision, changes.changes.len()), (revision, 2));
    assert!(changes.changes.iter().all(|c| c.now.as_ref().is_some_and(|e| e.modified == revision)));
}

async fn a_watch_of_forgotten_history_says_so<G, Gone>(store: Any, forget: G)
where
    G: Fn(Revision) -> Gone,
    Gone: Future<Output = ()>,
{
    let first = put(&store, "a", "").await;
    let many = crate::embedded::HISTORY + 10;
    for n in 0..many {
        put(&store, "a", &n.to_string()).await;
    }
    let last = put(&store, "a", "last").await;
    forget(Revision(last.0 - 5)).await;
    let watch = in_time(store.watch(&Prefix::all(), first)).await;
    let Err(StoreError::Compacted { oldest }) = watch else {
        panic!("history should be forgotten")
    };
    assert!(oldest > first);
    let mut watch = ok(store.watch(&Prefix::all(), oldest)).await;
    assert_eq!(in_time(watch.next()).await.expect("a change").revision, oldest.next());
}

async fn a_slow_watch_loses_itself_not_a_change(store: Any) {
    let start = put(&store, "a", "").await;
    let mut watch = ok(store.watch(&Prefix::all(), start)).await;
    for n in 0..crate::watch::QUEUE + 10 {
        put(&store, "a", &n.to_string()).await;
    }
    let mut expected = start.next();
    loop {
        match in_time(watch.next()).await {
            Ok(changes) => assert_eq!(changes.revision, expected),
            Err(StoreError::Compacted { .. }) => break,
            Err(error) => panic!("{error}"),
        }
        expected = expected.next();
    }
    let mut watch = ok(store.watch(&Prefix::all(), watch.revision())).await;
    assert_eq!(in_time(watch.next()).await.expect("a change").revision, expected);
}

async fn a_leased_key_vanishes_when_nobody_comes_back(store: Any) {
    let granted = clock::now();
    let lease = ok(store.grant(TTL)).await;
    let leased = Transaction::new().put_leased(key("l/a"), "x", lease.id).put_leased(
        key("l/b"),
        "x",
        lease.id,
    );
    ok(store.commit(leased.put(key("free"), "x"))).await;
    let at = ok(store.list(&Prefix::all())).await.revision;
    let mut watch = ok(store.watch(&prefix("l"), at)).await;
    assert!(gone(&store, "l/a").await >= granted + TTL);
    assert_eq!(take(&mut watch, 2).await, ["l/a gone", "l/b gone"]);
    assert!(read(&store, "free").await.is_some());
    assert_eq!(ok(store.rest(lease.id)).await, None);
    assert!(
        matches!(in_time(store.keep_alive(lease.id)).await, Err(StoreError::LeaseGone(id)) if id == lease.id)
    );
}

async fn a_kept_lease_outlives_its_time(store: Any) {
    let lease = ok(store.grant(TTL)).await;
    ok(store.commit(Transaction::new().put_leased(key("a"), "x", lease.id))).await;
    let rest = ok(store.rest(lease.id)).await.expect("it runs");
    assert!(rest <= lease.ttl);
    let until = clock::now() + lease.ttl * 2;
    let mut pause = tokio::time::interval(lease.ttl / 4);
    while clock::now() < until {
        pause.tick().await;
        ok(store.keep_alive(lease.id)).await;
    }
    assert!(read(&store, "a").await.is_some());
    ok(store.revoke(lease.id)).await;
    assert!(read(&store, "a").await.is_none());
    ok(store.revoke(lease.id)).await;
}

async fn a_key_written_without_its_lease_stays(store: Any) {
    let lease = ok(store.grant(TTL)).await;
    ok(store.commit(Transaction::new().put_leased(key("a"), "x", lease.id))).await;
    put(&store, "a", "mine").await;
    ok(store.revoke(lease.id)).await;
    assert_eq!(read(&store, "a").await.as_deref(), Some("mine"));
}

async fn a_lease_that_is_gone_cannot_be_used(store: Any) {
    let lease = ok(store.grant(TTL)).await;
    ok(store.revoke(lease.id)).await;
    for id in [lease.id, LeaseId(u64::from(u32::MAX))] {
        let leased = Transaction::new().put(key("b"), "x").put_leased(key("a"), "x", id);
        assert!(
            matches!(in_time(store.commit(leased)).await, Err(StoreError::LeaseGone(gone)) if gone == id)
        );
        assert!(
            matches!(in_time(store.keep_alive(id)).await, Err(StoreError::LeaseGone(gone)) if gone == id)
        );
    }
    assert_eq!(read(&store, "b").await, None);
}

async fn one_candidate_at_a_time_leads(store: Any) {
    let office = Key::literal("leader");
    let first =
        in_time(campaign(store.clone(), office.clone(), "one", TTL)).await.expect("elected");
    assert_eq!(read(&store, "leader").await.as_deref(), Some("one"));
    let second = campaign(store.clone(), office.clone(), "two", TTL * 10);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "the office is taken");
    let token = first.token();
    in_time(first.resign()).await.expect("resigned");
    let second = in_time(second).await.expect("elected");
    assert!(second.token() > token);
    assert_eq!(read(&store, "leader").await.as_deref(), Some("two"));
}

async fn a_deposed_leader_writes_nothing(store: Any) {
    let office = Key::literal("leader");
    let mut first =
        in_time(campaign(store.clone(), office.clone(), "one", TTL)).await.expect("elected");
    let write =
        |fence: Compare| ok(store.commit(Transaction::new().when(fence).put(key("work"), "x")));
    assert!(write(first.fence()).await.is_committed());
    // Nobody holds the office for the first; so the second gets it, and holds it longer than its lease.
    let mut second = in_time(campaign(store.clone(), office, "two", TTL)).await.expect("elected");
    assert!(!first.is_held(clock::now()));
    assert!(!write(first.fence()).await.is_committed());
    assert!(matches!(in_time(first.hold()).await, StoreError::LeaseGone(_)));
    assert!(
        tokio::time::timeout(TTL * 2, second.hold()).await.is_err(),
        "a kept office is not lost"
    );
    assert!(write(second.fence()).await.is_committed());
}
