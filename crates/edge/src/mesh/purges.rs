//! Purges between edges.
//!
//! Each edge numbers its purges and keeps them until every other edge has confirmed them. A batch says what number it begins with;
//! an edge that finds a gap, or hears another epoch, has missed something and makes all pages of all sites stale: then nothing
//! wrong can be served as fresh, whatever it was. A batch goes out at once, and an empty one a few times a second, so that an
//! edge that was away hears soon what it missed.
//!
//! An edge that starts asks for what it missed ([`catch_up`]) before it serves anybody. Whoever does not tell it in time may have
//! purged anything.
//!
//! Always: a purge is applied here before others hear of its number, and an edge that asks for a page names the purges it began to
//! apply, so nobody is given a page that is older than what it confirmed ([`Horizon`]).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use parking_lot::Mutex;
use pressroom_model::affirmation::{NodeReceipt, Purge};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::http::any_body;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::Mesh;
use super::company::{Quorum, SILENCE};
use super::horizon::{Horizon, Place};
use crate::Shared;
use crate::cache;

/// Where batches are sent.
pub(crate) const PATH: &str = "/.pressroom/mesh/purges";
/// Where what was missed is asked for.
pub(crate) const MISSED: &str = "/.pressroom/mesh/missed";
/// An edge that confirms later is told of as one that owes its receipt.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// Longest wait for a connection, try by try: short, so that a node that comes back is soon reached; now and then long enough for
/// one that is slow.
const CONNECT: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(300), Duration::from_millis(1200)];
/// Longest wait for the answer to a batch.
const BATCH: Duration = Duration::from_millis(1500);
/// Between two batches where there is nothing to send.
const BEAT: Duration = Duration::from_millis(250);
/// Longest wait of an edge that starts for what it missed.
const START: Duration = Duration::from_millis(400);
/// Purges that are kept for an edge that is away. One that missed more finds a gap.
const KEPT: usize = 4096;
/// Of those that all have confirmed so many are kept, for an edge that was killed before it noted where it was.
const TAIL: u64 = 256;
/// Of so many purges of an edge it is known how many pages they met.
const REMEMBERED: usize = 64;
/// Largest answer of an edge about purges.
const ANSWER: usize = 16 << 20;

/// One purge of our own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Item {
    site: SiteName,
    purge: Purge,
}

/// Purges in a row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// The stream: another one means that the sender forgot where it was.
    epoch: u64,
    /// The sender's process. Numbers of one process are never given twice; a machine that lost power may give some again.
    run: u64,
    /// The number of the first one; without any, the number that the next one will have.
    first: u64,
    items: Vec<Item>,
    /// Which of the receiver's cookie names the sender knows.
    #[serde(default)]
    cookies: u64,
}

/// The cookie names that sites set at an edge: a visitor who has one and comes to another edge shall bypass there as well.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cookies {
    version: u64,
    lines: BTreeMap<SiteName, String>,
}

impl Cookies {
    fn of(shared: &Shared) -> Self {
        let lines = shared.cache.cookies();
        let text = serde_json::to_vec(&lines).expect("plain data");
        let digest = blake3::hash(&text);
        let version = digest.as_bytes().first_chunk().expect("it has 32 bytes");
        Self { version: u64::from_le_bytes(*version), lines }
    }

    fn learn(&self, shared: &Shared) {
        for (name, lines) in &self.lines {
            if let Some(site) = shared.cache.known_site(name) {
                shared.cache.learn_cookies(&site, lines);
            }
        }
    }
}

/// What an edge says to a batch: for each of its purges how many pages it made stale.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    pages: Vec<u64>,
    /// Where its own stream is.
    #[serde(default)]
    place: Option<Place>,
    /// For so many milliseconds it hears the sender at least, and waits for receipts of it.
    #[serde(default)]
    counts_ms: Option<u64>,
    /// How busy its PHP is.
    #[serde(default)]
    loads: super::peers::Loads,
    /// Its cookie names, where the sender does not know them.
    #[serde(default)]
    cookies: Option<Cookies>,
}

/// Our own stream.
pub struct Outbox {
    path: PathBuf,
    run: u64,
    /// Purges that are kept for an edge that is away.
    kept: usize,
    state: Mutex<Sending>,
    wake: Notify,
}

struct Sending {
    epoch: u64,
    /// The number of the first one in `items`.
    first: u64,
    items: VecDeque<Item>,
    /// Who waits for which number's receipts.
    waiting: Vec<(u64, mpsc::UnboundedSender<NodeReceipt>)>,
}

impl Sending {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) {
    let fresh = path.with_extension("new");
    let text = serde_json::to_vec(value).expect("plain data");
    // Without it an edge finds a gap after our restart, which is safe.
    let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path));
}

impl Outbox {
    /// The stream goes on where it was, so that a restart of ours is no gap for others.
    pub(crate) fn open(path: &Path) -> Self {
        let place = read(path).unwrap_or(Place { epoch: rand::random::<u64>() >> 1, next: 1 });
        let state = Sending {
            epoch: place.epoch,
            first: place.next,
            items: VecDeque::new(),
            waiting: Vec::new(),
        };
        let run = rand::random::<u64>() >> 1;
        let (path, state, wake) = (path.to_owned(), Mutex::new(state), Notify::new());
        Self { path, run, kept: KEPT, state, wake }
    }

    /// Adds a purge, which `apply` applies here; the receipts of other edges come to the receiver.
    pub fn push<T>(
        &self,
        site: &SiteName,
        purge: &Purge,
        apply: impl FnOnce() -> T,
    ) -> (T, mpsc::UnboundedReceiver<NodeReceipt>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        // Nobody learns of its number, in a batch or in our horizon, before it holds here.
        let applied = apply();
        state.items.push_back(Item { site: site.clone(), purge: purge.clone() });
        if state.items.len() > self.kept {
            state.items.pop_front();
            state.first += 1;
        }
        let next = state.end();
        state.waiting.retain(|(_, sender)| !sender.is_closed());
        state.waiting.push((next - 1, sender));
        // Before anybody hears of it: a number is never given twice.
        write(&self.path, &Place { epoch: state.epoch, next });
        drop(state);
        self.wake.notify_waiters();
        (applied, receiver)
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        let state = self.state.lock();
        Place { epoch: state.epoch, next: state.end() }
    }

    /// What an edge lacks that has everything before `next`; and the number behind it.
    fn batch(&self, next: Option<u64>) -> (Batch, u64) {
        let state = self.state.lock();
        let end = state.end();
        let first = next.unwrap_or(state.first).clamp(state.first, end);
        let skip = usize::try_from(first - state.first).unwrap_or(usize::MAX);
        let items = state.items.iter().skip(skip).cloned().collect();
        (Batch { epoch: state.epoch, run: self.run, first, items, cookies: 0 }, end)
    }

    /// What an edge lacks that was at `place`, if it was anywhere.
    pub(crate) fn missed(&self, place: Option<Place>) -> Batch {
        let epoch = self.state.lock().epoch;
        self.batch(place.filter(|place| place.epoch == epoch).map(|place| place.next)).0
    }

    fn confirm(&self, node: &NodeName, batch: &Batch, confirmed: &Confirmed, ms: u64) {
        let state = self.state.lock();
        for (number, sender) in &state.waiting {
            let Some(at) = number.checked_sub(batch.first) else { continue };
            if at >= batch.items.len() as u64 {
                continue;
            }
            let pages = usize::try_from(at).ok().and_then(|at| confirmed.pages.get(at).copied());
            let receipt =
                NodeReceipt { node: node.clone(), ok: true, ms, pages: pages.unwrap_or_default() };
            // Who asked may have stopped waiting.
            let _ = sender.send(receipt);
        }
    }

    /// Forgets what everybody has, but for the last ones.
    fn forget(&self, before: u64) {
        let mut state = self.state.lock();
        while state.first + TAIL < before && state.items.pop_front().is_some() {
            state.first += 1;
        }
    }
}

/// Sends our stream to every other edge, for as long as the process runs.
pub(crate) async fn send(mesh: Arc<Mesh>, shared: Arc<Shared>, stop: Shutdown) {
    let confirmed: Arc<Mutex<BTreeMap<NodeName, u64>>> = Arc::default();
    let mut running: BTreeMap<NodeName, tokio::task::JoinHandle<()>> = BTreeMap::new();
    while !stop.is_requested() {
        let others = mesh.others();
        running.retain(|node, task| {
            let stays = others.contains(node);
            if !stays {
                task.abort();
                confirmed.lock().remove(node);
            }
            stays
        });
        let _ = mesh.review(&shared);
        for node in others {
            let (own, known, to) = (Arc::clone(&mesh), Arc::clone(&confirmed), node.clone());
            let shared = Arc::clone(&shared);
            running.entry(node).or_insert_with(|| tokio::spawn(send_to(own, shared, to, known)));
        }
        // What everybody has need not be kept; for one that is away it is kept as far as there is room.
        let least = confirmed.lock().values().min().copied();
        if let Some(least) = least.filter(|_| confirmed.lock().len() == running.len()) {
            mesh.outbox.forget(least);
        }
        tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(BEAT) => {} }
    }
    running.into_values().for_each(|task| task.abort());
}

async fn send_to(
    mesh: Arc<Mesh>,
    shared: Arc<Shared>,
    node: NodeName,
    confirmed: Arc<Mutex<BTreeMap<NodeName, u64>>>,
) {
    let mut next = None;
    let (mut failures, mut cookies) = (0, 0);
    let asked_for = mesh.company.asked_for(&node);
    loop {
        let woken = mesh.outbox.wake.notified();
        let mut woken = std::pin::pin!(woken);
        // From now on nothing that is pushed goes unnoticed.
        woken.as_mut().enable();
        let (mut batch, end) = mesh.outbox.batch(next);
        batch.cookies = cookies;
        let begun = clock::now();
        let patience = CONNECT[failures % CONNECT.len()];
        let mut asked = begun;
        let said: Option<Confirmed> = match reach(&mesh, &node, patience, &asked_for).await {
            true => {
                asked = clock::now();
                call(&mesh, &node, PATH, &batch, BATCH).await
            }
            false => None,
        };
        let Some(said) = said else {
            failures += 1;
            tokio::select! { () = asked_for.notified() => {}, () = tokio::time::sleep(BEAT / 2) => {} }
            continue;
        };
        failures = 0;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        mesh.outbox.confirm(&node, &batch, &said, ms);
        next = Some(end);
        confirmed.lock().insert(node.clone(), end);
        // One of an older version does not say it.
        let counts = said.counts_ms.map_or(SILENCE, Duration::from_millis);
        if let Some(place) = said.place {
            hear(&mesh, &shared, &node, place, (asked, counts)).await;
        }
        mesh.peers.note_loads(&node, said.loads);
        if let Some(theirs) = said.cookies {
            theirs.learn(&shared);
            cookies = theirs.version;
        }
        if mesh.outbox.batch(next).0.items.is_empty() {
            // One that is about to count on us says so soon.
            let pause = if counts.is_zero() { BEAT / 5 } else { BEAT };
            tokio::select! {
                () = woken => {}
                () = asked_for.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Connects to an edge, where there is no connection. When one that was away shows that it is there, a connection that was begun before
/// may wait for long for another try of the kernel: it is begun anew.
async fn reach(mesh: &Mesh, node: &NodeName, patience: Duration, asked_for: &Notify) -> bool {
    tokio::select! {
        is_reached = connect(mesh, node, patience) => is_reached,
        () = asked_for.notified() => connect(mesh, node, CONNECT[2]).await,
    }
}

async fn connect(mesh: &Mesh, node: &NodeName, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, mesh.client.reach(node)).await, Ok(Ok(())))
}

/// An edge said where its stream is, to a question of `asked`: it is heard when all before that holds here. A batch of its own
/// would not tell: it may have been on its way for long.
async fn hear(
    mesh: &Mesh,
    shared: &Shared,
    node: &NodeName,
    place: Place,
    (asked, counts): (Instant, Duration),
) {
    if !mesh.inbox.has(node, place) {
        let known = mesh.inbox.place(node);
        let batch: Option<Batch> = ask(mesh, node, MISSED, &known, BATCH).await;
        let Some(batch) = batch else { return };
        if mesh.inbox.take(mesh, shared, node, batch).await.is_none() {
            return;
        }
    }
    let is_back = match mesh.review(shared) {
        Quorum::Held => false,
        // Those that were cut off together have always heard each other.
        Quorum::Lost => !mesh.company.hears(node),
        Quorum::Gathering(_) => true,
    };
    if is_back {
        mesh.peers.forgive(node);
    }
    mesh.company.hear(node, asked, counts);
    let _ = mesh.review(shared);
}

/// Asks another edge something about purges; `None`: it does not answer in time.
async fn ask<T: serde::de::DeserializeOwned>(
    mesh: &Mesh,
    node: &NodeName,
    path: &str,
    what: &impl Serialize,
    patience: Duration,
) -> Option<T> {
    match connect(mesh, node, patience).await {
        true => call(mesh, node, path, what, patience).await,
        false => None,
    }
}

/// The same of one that can be reached.
async fn call<T: serde::de::DeserializeOwned>(
    mesh: &Mesh,
    node: &NodeName,
    path: &str,
    what: &impl Serialize,
    patience: Duration,
) -> Option<T> {
    let text = serde_json::to_vec(what).expect("plain data");
    let request = Request::post(path).body(any_body(Full::new(Bytes::from(text)))).ok()?;
    let asked = async {
        let answer = mesh.client.call(node, request).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(patience, asked).await.ok()?
}

/// Hears from every other edge what was missed; from those who do not tell in time anything may have been.
pub(crate) async fn catch_up(mesh: &Arc<Mesh>, shared: &Arc<Shared>) {
    // This edge has heard nobody yet.
    let _ = mesh.review(shared);
    let mut asked = tokio::task::JoinSet::new();
    for node in mesh.others() {
        let (mesh, shared) = (Arc::clone(mesh), Arc::clone(shared));
        asked.spawn(async move {
            let place = mesh.inbox.place(&node);
            let batch: Option<Batch> = ask(&mesh, &node, MISSED, &place, START).await;
            let Some(batch) = batch else { return Some(node) };
            mesh.inbox.take(&mesh, &shared, &node, batch).await.is_none().then_some(node)
        });
    }
    let mut silent = Vec::new();
    while let Some(node) = asked.join_next().await {
        silent.extend(node.ok().flatten());
    }
    if !silent.is_empty() {
        tracing::warn!(
            ?silent,
            "these edges do not tell what they purged: all pages are made stale"
        );
        everything_is_stale(shared, "another edge could not be asked what it purged", Came::InTime);
    }
}

fn everything_is_stale(shared: &Shared, because: &str, came: Came) {
    for site in &shared.view.load().sites {
        // The journal has it in time, or the pages on disk are not believed.
        let since = came.stale_since(&site.cached);
        let _ = shared.cache.purge_here(&site.cached, &cache::all(), because, since);
    }
}

/// When a purge of another edge came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// At once.
    InTime,
    /// After one of the two had not heard the other: visitors elsewhere have seen newer pages for a while.
    Late,
}

impl Came {
    /// Since when pages that are met count as stale. What comes late leaves none that may be served while it is made anew: only
    /// when PHP fails.
    fn stale_since(self, site: &cache::Site) -> cache::Millis {
        match self {
            Self::InTime => cache::now(),
            Self::Late => {
                cache::now().saturating_sub(site.rules().stale_while_revalidate.saturating_add(1))
            }
        }
    }
}

/// Where somebody else's stream is, as it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    epoch: u64,
    next: u64,
    run: u64,
}

impl Heard {
    fn place(self) -> Place {
        Place { epoch: self.epoch, next: self.next }
    }
}

/// How a batch continues what was heard.
#[derive(Debug, PartialEq, Eq)]
enum Continuation {
    /// So many of its purges are known already.
    After(usize),
    /// Something before it was missed.
    Gap,
}

fn continuation(known: Option<Heard>, batch: &Batch) -> Continuation {
    let Some(known) = known else {
        // Its very first purge is in it, or there was none yet.
        return if batch.first == 1 { Continuation::After(0) } else { Continuation::Gap };
    };
    match known.next.checked_sub(batch.first) {
        Some(0) if known.epoch == batch.epoch => Continuation::After(0),
        // Sent again, because our word was late.
        Some(again) if known.epoch == batch.epoch && known.run == batch.run => {
            let again = usize::try_from(again).unwrap_or(usize::MAX);
            Continuation::After(again.min(batch.items.len()))
        }
        _ => Continuation::Gap,
    }
}

/// What was heard of other edges' streams.
pub struct Inbox {
    path: PathBuf,
    streams: Mutex<Streams>,
    turns: Mutex<BTreeMap<NodeName, Arc<tokio::sync::Mutex<()>>>>,
    is_kept: AtomicBool,
}

#[derive(Default)]
struct Streams {
    /// What holds here.
    heard: BTreeMap<NodeName, Heard>,
    /// What holds here, or is about to.
    begun: BTreeMap<NodeName, Place>,
    /// How many pages the last purges of an edge met, for a batch that comes again.
    met: BTreeMap<NodeName, VecDeque<u64>>,
}

impl Streams {
    /// The counts of a batch: those that were known for the first ones, as far as they are remembered, then the new ones.
    fn met(&mut self, from: &NodeName, skip: usize, new: Vec<u64>) -> Vec<u64> {
        let met = self.met.entry(from.clone()).or_default();
        let known = met.iter().rev().take(skip).rev().copied();
        let known: Vec<u64> = known.collect();
        let forgotten = std::iter::repeat_n(0, skip - known.len());
        let all = forgotten.chain(known).chain(new.iter().copied()).collect();
        met.extend(new);
        met.drain(..met.len().saturating_sub(REMEMBERED));
        all
    }
}

impl Inbox {
    pub(crate) fn open(path: &Path) -> Self {
        let heard: BTreeMap<NodeName, Heard> = read(path).unwrap_or_default();
        let begun = heard.iter().map(|(node, heard)| (node.clone(), heard.place())).collect();
        Self {
            path: path.to_owned(),
            streams: Mutex::new(Streams { heard, begun, ..Streams::default() }),
            turns: Mutex::default(),
            is_kept: AtomicBool::new(true),
        }
    }

    /// Keeps on disk where the streams are.
    pub(crate) async fn keep(&self, stop: Shutdown) {
        while !stop.is_requested() {
            self.note();
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(BEAT * 2) => {} }
        }
        self.note();
    }

    fn note(&self) {
        if !self.is_kept.swap(true, Ordering::AcqRel) {
            write(&self.path, &self.streams.lock().heard.clone());
        }
    }

    /// Where an edge's stream is.
    fn place(&self, node: &NodeName) -> Option<Place> {
        self.streams.lock().heard.get(node).map(|heard| heard.place())
    }

    /// Whether all before a place holds here.
    fn has(&self, node: &NodeName, place: Place) -> bool {
        self.place(node).is_some_and(|it| it.epoch == place.epoch && it.next >= place.next)
    }

    /// How far we have come in the streams of others: what holds here.
    pub(crate) fn horizon(&self) -> Horizon {
        let streams = self.streams.lock();
        Horizon(streams.heard.iter().map(|(node, heard)| (node.clone(), heard.place())).collect())
    }

    /// The same with what is about to hold.
    pub(crate) fn horizon_begun(&self) -> Horizon {
        Horizon(self.streams.lock().begun.clone())
    }

    /// Applies a batch of another edge; `None`: it could not be kept, and is to be sent again.
    pub(crate) async fn take(
        &self,
        mesh: &Mesh,
        shared: &Shared,
        from: &NodeName,
        batch: Batch,
    ) -> Option<Confirmed> {
        let turn = Arc::clone(self.turns.lock().entry(from.clone()).or_default());
        // Batches of one edge are applied one after the other, whichever way they came.
        let _turn = turn.lock().await;
        let came = if mesh.company.is_with(from) { Came::InTime } else { Came::Late };
        let known = self.streams.lock().heard.get(from).copied();
        let sent = batch.first + batch.items.len() as u64;
        let continuation = continuation(known, &batch);
        let (skip, next) = match continuation {
            Continuation::After(skip) => (skip, known.map_or(sent, |known| known.next.max(sent))),
            Continuation::Gap => (0, sent),
        };
        let heard = Heard { epoch: batch.epoch, next, run: batch.run };
        self.streams.lock().begun.insert(from.clone(), heard.place());
        if continuation == Continuation::Gap {
            tracing::warn!(%from, ?known, first = batch.first, "purges were missed: all pages are made stale");
            everything_is_stale(shared, "purges of another edge were missed", Came::Late);
        }
        let is_news = continuation == Continuation::Gap || skip < batch.items.len();
        if came == Came::Late && is_news {
            mesh.peers.expect_retries();
        }
        let pages = apply(shared, &batch.items[skip..], came).await?;
        let mut streams = self.streams.lock();
        if streams.heard.insert(from.clone(), heard) != Some(heard) {
            self.is_kept.store(false, Ordering::Release);
        }
        let pages = streams.met(from, skip, pages);
        let cookies = Some(Cookies::of(shared)).filter(|own| own.version != batch.cookies);
        // First: what is purged after this is waited for, what was purged before is in the place.
        let counts = mesh.company.counts_on(from);
        let counts_ms = Some(u64::try_from(counts.as_millis()).unwrap_or_default());
        let place = Some(mesh.outbox.place());
        Some(Confirmed { pages, place, counts_ms, loads: super::peers::loads(shared), cookies })
    }
}

/// How many pages each purge made stale; `None`: the journal does not take them.
async fn apply(shared: &Shared, items: &[Item], came: Came) -> Option<Vec<u64>> {
    let purge = |item: &Item| {
        let site = shared.cache.known_site(&item.site)?;
        let since = came.stale_since(&site);
        Some(shared.cache.purge_here(&site, &item.purge, "another edge", since))
    };
    // All are applied before the first one is waited for.
    let purged: Vec<_> = items.iter().map(purge).collect();
    let mut pages = Vec::with_capacity(purged.len());
    for purged in purged {
        pages.push(match purged {
            None => 0,
            Some(purged) => {
                let receipt = purged.receipt().await;
                receipt.ok.then_some(receipt.pages)?
            }
        });
    }
    Some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(folder: &tempfile::TempDir) -> Outbox {
        Outbox::open(&folder.path().join("purges.json"))
    }

    fn push(outbox: &Outbox) -> mpsc::UnboundedReceiver<NodeReceipt> {
        let site: SiteName = "blog".parse().expect("a name");
        outbox.push(&site, &Purge { all: true, ..Purge::default() }, || ()).1
    }

    #[test]
    fn a_stream_goes_on_after_a_restart_and_a_number_is_never_given_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = outbox(&folder);
        drop((push(&before), push(&before)));
        let (batch, end) = before.batch(None);
        assert_eq!((batch.first, batch.items.len(), end), (1, 2, 3));
        assert!(before.batch(Some(3)).0.items.is_empty());
        let (batch, end) = outbox(&folder).batch(None);
        assert_eq!((batch.first, end), (3, 3));
        assert_eq!(batch.epoch, before.batch(None).0.epoch);
    }

    #[test]
    fn what_all_have_is_forgotten_but_for_a_tail_and_what_one_lacks_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox { kept: 400, ..outbox(&folder) };
        (0..300).for_each(|_| drop(push(&outbox)));
        outbox.forget(301);
        assert_eq!(outbox.batch(None).0.first, 301 - TAIL);
        let place = Place { next: 90, ..outbox.place() };
        assert_eq!(outbox.missed(Some(place)).items.len(), 211);
        assert_eq!(outbox.missed(Some(Place { epoch: 0, next: 200 })).first, 301 - TAIL);
        (0..200).for_each(|_| drop(push(&outbox)));
        assert_eq!(outbox.missed(Some(place)).first, 101, "more than there is room for: a gap");
    }

    #[test]
    fn whoever_waits_gets_the_receipt_of_its_own_purge() {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = outbox(&folder);
        let node: NodeName = "n2".parse().expect("a name");
        let mut first = push(&outbox);
        let (batch, _) = outbox.batch(None);
        let mut second = push(&outbox);
        let said = Confirmed { pages: vec![7], ..Confirmed::default() };
        outbox.confirm(&node, &batch, &said, 3);
        let receipt = first.try_recv().expect("it is there");
        assert_eq!((receipt.node, receipt.pages, receipt.ok), (node, 7, true));
        assert!(second.try_recv().is_err());
    }

    #[test]
    fn a_batch_that_comes_again_is_confirmed_as_the_first_time() {
        let (mut streams, node) = (Streams::default(), "n2".parse().expect("a name"));
        assert_eq!(streams.met(&node, 0, vec![3, 4]), [3, 4]);
        assert_eq!(streams.met(&node, 2, vec![5]), [3, 4, 5]);
        assert_eq!(streams.met(&node, 5, vec![]), [0, 0, 3, 4, 5]);
        assert_eq!(streams.met(&node, 0, vec![1; 100]).len(), 100);
        assert_eq!(streams.met(&node, 70, vec![])[5..8], [0, 1, 1]);
    }

    #[test]
    fn a_batch_continues_what_was_heard_or_leaves_a_gap() {
        use Continuation::{After, Gap};
        let items = |count| {
            let site: SiteName = "blog".parse().expect("a name");
            vec![Item { site, purge: Purge::default() }; count]
        };
        let check = |known: Option<(u64, u64, u64)>, (epoch, run, first, count), expected| {
            let known = known.map(|(epoch, run, next)| Heard { epoch, run, next });
            let batch = Batch { epoch, run, first, items: items(count), cookies: 0 };
            assert_eq!(continuation(known, &batch), expected, "{known:?} {batch:?}");
        };
        check(None, (1, 1, 1, 3), After(0));
        check(None, (1, 1, 2, 3), Gap);
        check(Some((1, 1, 5)), (1, 1, 5, 2), After(0));
        check(Some((1, 1, 5)), (1, 1, 6, 2), Gap);
        // Sent again: whole, or with more behind it.
        check(Some((1, 1, 5)), (1, 1, 3, 2), After(2));
        check(Some((1, 1, 5)), (1, 1, 3, 4), After(2));
        check(Some((1, 1, 5)), (1, 1, 2, 1), After(1));
        // A restart in order; one after which numbers are given again; one that forgot all.
        check(Some((1, 1, 5)), (1, 2, 5, 1), After(0));
        check(Some((1, 1, 5)), (1, 2, 4, 1), Gap);
        check(Some((1, 1, 5)), (2, 2, 5, 1), Gap);
    }
}
