//! An object store that gets a copy of all uploads, in the background: no upload waits for it.
//!
//! What it lacks follows from what is on disk: the ledger of a folder, and what the store is known to have ([`Stored`]). Every node
//! works that out for itself, since every node has every file; the one where something changed goes first, the others a little
//! later, unless they are told before that the store has it ([`super::media_news`]). So what was uploaded to a node that was lost
//! afterwards is sent by those that had it from it. What is missing here and at the other nodes is fetched from the store.
//!
//! Deliberately missing: a store that does not answer stops nothing, and no file is deleted here because the store lacks it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_media::bucket::{AccessKey, Bucket, Error};
use pressroom_media::folder::Folder;
use pressroom_media::ledger::Ledger;
use pressroom_media::object::{Object, Step, is_behind, plan};
use pressroom_media::settle::{Settled, known, settle};
use pressroom_media::stored::Stored;
use pressroom_media::waiting::{Kind, Place, Waiting};
use pressroom_model::config::MediaStore;
use pressroom_model::id::SiteName;
use pressroom_model::status;
use pressroom_runtime::backoff::{Backoff, roll};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::{Shutdown, pair};
use pressroom_runtime::tasks::Group;
use tokio::sync::Notify;

use super::media::now;
use super::media_news::News;
use crate::agent::Agent;
use crate::files;

/// So many paths are looked after at a time.
const WORKERS: usize = 4;
/// Between two looks for what is due.
const LOOK: Duration = Duration::from_millis(300);
/// Between two looks at the configuration and the key.
const CONFIG: Duration = Duration::from_secs(1);
/// What changed on another node is left to that node for so long, and up to as much again.
pub(super) const GRACE: Duration = Duration::from_secs(4);
/// What is missing here is left to the other nodes for so long.
const PEERS: Duration = Duration::from_secs(15);
/// All of the store is looked at again after that.
const LISTING: Duration = Duration::from_secs(6 * 3600);
/// What this machine's disk refused is tried again then.
const DISK: Duration = Duration::from_secs(60);
/// What the store refused is tried again then, or when the store is tried again.
const REFUSED: Duration = Duration::from_secs(1);
/// A file that is being written is looked at again then.
const CHANGING: Duration = Duration::from_secs(1);
/// What waits for longer is reported to the other nodes.
const LONG: Duration = Duration::from_secs(20);
/// After so many failures in a row it is said that the store is away.
const AWAY: u32 = 4;
/// The store's key among the secrets, where all nodes have it.
const KEY: &str = "media-store.key";

/// What is known of the object store.
#[derive(Debug)]
pub(crate) struct Copies {
    /// Which one; `None`: there is to be none.
    url: Mutex<Option<String>>,
    /// Whose uploads it gets.
    sites: Mutex<BTreeSet<SiteName>>,
    pub(super) waiting: Mutex<Waiting>,
    pub(super) stored: Mutex<BTreeMap<SiteName, Arc<Mutex<Stored>>>>,
    /// What the other nodes are to be told of it.
    pub(super) news: News,
    /// When all of it is looked at again.
    listing: Mutex<BTreeMap<SiteName, Instant>>,
    /// When all of it was looked at last, nanoseconds since 1970.
    listed: Mutex<BTreeMap<SiteName, i64>>,
    /// What changed here, and was not noted yet.
    own: Mutex<BTreeSet<Place>>,
    health: Mutex<StoreHealth>,
    wake: Notify,
}

#[derive(Debug)]
struct StoreHealth {
    backoff: Backoff,
    /// Nothing is asked of it before.
    until: Instant,
    /// Why not.
    because: Option<String>,
    /// It was said that it is away.
    is_told: bool,
}

impl Default for StoreHealth {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(400), Duration::from_secs(20));
        Self { backoff, until: clock::now(), because: None, is_told: false }
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            url: Mutex::default(),
            sites: Mutex::default(),
            waiting: Mutex::default(),
            stored: Mutex::default(),
            news: News::default(),
            listing: Mutex::default(),
            listed: Mutex::default(),
            own: Mutex::default(),
            health: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

impl Copies {
    /// A path changed here, and not on another node.
    pub(super) fn changed(&self, site: &SiteName, path: &str) {
        if self.url.lock().is_some() {
            self.own.lock().insert((site.clone(), path.to_owned()));
        }
    }

    /// The store has heard of what was deleted in a site before then, nanoseconds since 1970, and has nothing of it any more.
    pub(super) fn heard_until(&self, site: &SiteName) -> i64 {
        if !self.is_stored(site) {
            return i64::MAX;
        }
        if self.waiting.lock().count() > 0 {
            return i64::MIN;
        }
        self.listed.lock().get(site).copied().unwrap_or(i64::MIN)
    }

    fn is_stored(&self, site: &SiteName) -> bool {
        self.sites.lock().contains(site)
    }

    /// Whose uploads it gets from now on.
    pub(super) fn keep_sites(&self, sites: &BTreeSet<SiteName>) {
        let before = std::mem::replace(&mut *self.sites.lock(), sites.clone());
        for site in before.difference(sites) {
            self.begin_site(site);
            self.waiting.lock().forget(site);
        }
    }

    /// A site's folder was looked at anew, or is gone: nothing of what was found before counts.
    pub(super) fn begin_site(&self, site: &SiteName) {
        let before = self.stored.lock().remove(site);
        if let Some(stored) = before {
            write_stored(&stored);
        }
        self.listing.lock().remove(site);
        self.listed.lock().remove(site);
    }

    /// Begins anew, with this store.
    fn begin(&self, url: Option<String>) {
        *self.url.lock() = url;
        *self.waiting.lock() = Waiting::default();
        self.stored.lock().clear();
        self.listing.lock().clear();
        self.listed.lock().clear();
        self.own.lock().clear();
        self.news.take();
        *self.health.lock() = StoreHealth::default();
    }

    fn note(&self, site: &SiteName, path: &str, kind: Kind, after: Duration) {
        let due = clock::now() + after;
        self.waiting.lock().note((site.clone(), path.to_owned()), kind, due, clock::wall_ms());
    }

    /// What waits for long, at most a few digits of it: it is reported, and every change of a report is written, and read by all
    /// nodes. An upload that the store gets as usual is none of these.
    pub(crate) fn about_waiting(&self) -> u64 {
        let long_ago = clock::wall_ms().saturating_sub(LONG.as_millis() as u64);
        let count = self.waiting.lock().count_since(long_ago);
        let step = 10_u64.pow(count.checked_ilog10().unwrap_or_default());
        count / step * step
    }

    /// How it stands, for people.
    pub(crate) fn status(&self) -> Option<status::MediaStore> {
        let url = self.url.lock().clone()?;
        let waiting = self.waiting.lock();
        let (count, since) = (waiting.count(), waiting.since_ms());
        drop(waiting);
        let because = self.health.lock().because.clone();
        Some(status::MediaStore { url, waiting: count, waiting_since_ms: since, because })
    }

    fn is_away(&self) -> bool {
        self.health.lock().because.is_some()
    }

    fn is_paused(&self) -> bool {
        clock::now() < self.health.lock().until
    }

    /// It answered; whether it had been said to be away.
    fn answered(&self) -> bool {
        let mut health = self.health.lock();
        health.backoff.reset();
        health.because = None;
        std::mem::take(&mut health.is_told)
    }

    /// It did not; whether that is news.
    fn failed(&self, because: &str) -> bool {
        let mut health = self.health.lock();
        let now = clock::now();
        // Those who failed together count once.
        if now >= health.until {
            let pause = health.backoff.pause(roll());
            health.until = now + pause;
        }
        health.because = Some(because.to_owned());
        let is_news = health.backoff.failures() >= AWAY && !health.is_told;
        health.is_told |= is_news;
        is_news
    }
}

impl Agent {
    /// The object store that is to be used.
    pub(super) fn media_store(&self) -> Option<MediaStore> {
        self.state.lock().config.as_ref()?.media.store.clone()
    }

    /// The sites whose uploads it gets: environments are copies for trying things.
    pub(super) fn stored_sites(&self) -> BTreeSet<SiteName> {
        let sites = self.config().into_iter().flat_map(|config| config.sites);
        sites.filter(|site| site.environment.is_none()).map(|site| site.name).collect()
    }

    /// Its key. The leader takes it from the file of the operator and keeps it among the secrets, which all nodes have.
    fn media_key(&self, place: &MediaStore) -> Result<AccessKey, String> {
        let kept = self.layout.secrets().join(KEY);
        if self.leads() && place.key_file.exists() {
            let text = read_private(place)?;
            files::write(&kept, text.as_bytes(), 0o600, None).map_err(|error| error.to_string())?;
        }
        let Ok(text) = std::fs::read_to_string(&kept) else {
            let path = place.key_file.display();
            return Err(match self.leads() {
                true => format!("the file with its key, {path}, is not there"),
                false => "its key has not come from the node that leads".to_owned(),
            });
        };
        AccessKey::parse(&text).ok_or_else(|| {
            let path = place.key_file.display();
            format!("{path} has no `aws_access_key_id = …` and `aws_secret_access_key = …`")
        })
    }

    /// Keeps the object store like the media, for as long as the agent runs, whichever it is.
    pub(super) async fn keep_media_store(self: Arc<Self>, stop: Shutdown) {
        let mut current = None;
        let mut running = None;
        while !stop.is_requested() {
            let place = self.media_store();
            let wanted = place.map(|place| (self.media_key(&place), place));
            if wanted != current {
                if let Some((trigger, group)) = running.take() {
                    end_group(&trigger, &group).await;
                    self.write_stored();
                }
                self.media.store.begin(wanted.as_ref().map(|(_, place)| place.url()));
                running = wanted.as_ref().and_then(|(key, place)| self.begin_store(key, place));
                current = wanted;
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(CONFIG) => {} }
        }
        if let Some((trigger, group)) = running {
            end_group(&trigger, &group).await;
        }
        self.write_stored();
    }

    fn begin_store(
        self: &Arc<Self>,
        key: &Result<AccessKey, String>,
        place: &MediaStore,
    ) -> Option<(pressroom_runtime::shutdown::Trigger, Group)> {
        let opened = key
            .clone()
            .and_then(|key| Bucket::open(place, &key).map_err(|error| error.to_string()));
        let bucket = match opened {
            Ok(bucket) => bucket,
            Err(because) => {
                if self.leads() {
                    let url = place.url();
                    self.notice(format!(
                        "uploads do not reach {url}: {because}; they are kept here until it has them"
                    ));
                }
                self.media.store.health.lock().because = Some(because);
                return None;
            }
        };
        let (trigger, shutdown) = pair();
        let group = Group::new("object store", shutdown);
        for number in 0..WORKERS {
            let (agent, bucket) = (Arc::clone(self), bucket.clone());
            group.spawn(format!("copy {number}"), move |stop| agent.copy_due(bucket, stop));
        }
        let agent = Arc::clone(self);
        group.spawn("list", move |stop| agent.list_store(bucket, stop));
        if let Some(cluster) = self.cluster.clone() {
            let (agent, place) = (Arc::clone(self), place.clone());
            group.spawn("news", move |stop| agent.tell_news(cluster, place, stop));
        }
        Some((trigger, group))
    }

    /// What the store is known to have of a site; it is told of everything else when this is asked for the first time.
    fn stored(&self, site: &SiteName, ledger: &Ledger) -> Option<Arc<Mutex<Stored>>> {
        let store = &self.media.store;
        let url = store.url.lock().clone()?;
        if !store.is_stored(site) {
            return None;
        }
        if let Some(stored) = store.stored.lock().get(site) {
            return Some(Arc::clone(stored));
        }
        let path = self.layout.cluster().join("media").join(format!("{site}.stored"));
        let read = match Stored::read(&path, &url) {
            Ok(read) => read,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "it cannot be read what the object store has");
                return None;
            }
        };
        for (path, entry) in ledger.entries() {
            if is_behind(Some(entry), read.version(path)) {
                let (kind, after) = self.backlog();
                store.note(site, path, kind, after);
            }
        }
        let stored = Arc::new(Mutex::new(read));
        store.stored.lock().insert(site.clone(), Arc::clone(&stored));
        store.wake.notify_waiters();
        Some(stored)
    }

    /// Who goes first with what waits for long: the leader, then whoever comes to it.
    fn backlog(&self) -> (Kind, Duration) {
        match self.leads() {
            true => (Kind::Own, Duration::ZERO),
            false => (Kind::Heard, GRACE + PEERS.mul_f64(roll())),
        }
    }

    /// Notes what is new in a ledger and not yet on disk.
    pub(super) fn mind_store(&self, site: &SiteName, ledger: &Ledger) {
        let store = &self.media.store;
        let Some(stored) = self.stored(site, ledger) else { return };
        let mut is_own_news = false;
        for path in ledger.fresh().iter().filter(|path| !path.is_empty()) {
            let is_own = store.own.lock().remove(&(site.clone(), path.clone()));
            if is_behind(ledger.entries().get(path), stored.lock().version(path)) {
                let (kind, after) = match is_own {
                    true => (Kind::Own, Duration::ZERO),
                    false => (Kind::Heard, GRACE + GRACE.mul_f64(roll())),
                };
                store.note(site, path, kind, after);
                is_own_news |= is_own;
            }
        }
        if is_own_news {
            store.wake.notify_waiters();
        }
    }

    /// Does what is due, one path after the other, until it is told to stop.
    async fn copy_due(self: Arc<Self>, bucket: Bucket, stop: Shutdown) {
        let store = &self.media.store;
        while !stop.is_requested() {
            let woken = store.wake.notified();
            let next = match store.is_paused() {
                true => None,
                false => store.waiting.lock().take(clock::now()),
            };
            match next {
                // Whatever is cut off here is found and done again.
                Some((place, _)) => tokio::select! {
                    () = stop.requested() => return,
                    () = self.copy_path(&bucket, &place) => {}
                },
                None => tokio::select! {
                    () = stop.requested() => return,
                    () = woken => {}
                    () = tokio::time::sleep(LOOK) => {}
                },
            }
        }
    }

    async fn copy_path(&self, bucket: &Bucket, place: &Place) {
        let (site, path) = place;
        let store = &self.media.store;
        let stored = store.stored.lock().get(site).cloned();
        let (Some(folder), Some(stored)) = (self.media_folder(site), stored) else {
            return store.waiting.lock().again(place, clock::now(), CHANGING);
        };
        match settle(bucket, &folder, &stored, site, path, now()).await {
            Ok(settled) => {
                self.store_answered();
                let is_changing = settled == Settled::Changing;
                if settled == Settled::Brought && self.cluster.is_some() {
                    store.news.note(site, path);
                }
                if let Settled::Fetched(heard) = settled {
                    self.mind_heard(site, &heard);
                    self.complain(site, None);
                }
                match is_changing {
                    true => store.waiting.lock().again(place, clock::now(), CHANGING),
                    false => store.waiting.lock().done(place),
                }
            }
            Err(Error::Store(because)) => {
                tracing::debug!(%site, path, because, "the object store waits");
                self.store_failed(&because);
                store.waiting.lock().again(place, clock::now(), REFUSED);
            }
            Err(Error::Disk(error)) => {
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    self.complain(site, Some(&error));
                }
                store.waiting.lock().again(place, clock::now(), DISK);
            }
        }
    }

    fn store_answered(&self) {
        if self.media.store.answered() {
            let mut waiting = self.media.store.waiting.lock();
            waiting.hasten(clock::now());
            let count = waiting.count();
            drop(waiting);
            let waited = match count {
                0 => String::new(),
                count => format!("; {count} waited and are sent now"),
            };
            self.notice(format!("uploads reach the object store again{waited}"));
        }
    }

    fn store_failed(&self, because: &str) {
        if self.media.store.failed(because) {
            self.notice(format!(
                "uploads do not reach the object store ({because}); they are kept here until it has them"
            ));
        }
    }

    /// Looks at all that the store has, once and then now and again; puts on disk what is known of it.
    async fn list_store(self: Arc<Self>, bucket: Bucket, stop: Shutdown) {
        while !stop.is_requested() {
            tokio::select! {
                () = stop.requested() => return,
                () = async {
                    self.try_out(&bucket).await;
                    self.list_due(&bucket).await;
                } => {}
            }
            let agent = Arc::clone(&self);
            // A panic in there is logged by nobody else; the next look tries again.
            if let Err(error) = tokio::task::spawn_blocking(move || agent.write_stored()).await {
                tracing::error!(%error, "what the object store has cannot be kept");
            }
            tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    /// Asks one that was away whether it is back, if nothing waits for that: another node may have brought it, and nobody else would
    /// ask. What waits asks itself; a store that only lists what it has is none that works.
    async fn try_out(&self, bucket: &Bucket) {
        let store = &self.media.store;
        if !store.is_away() || store.is_paused() || !store.waiting.lock().is_empty() {
            return;
        }
        match bucket.try_out().await {
            Ok(()) => self.store_answered(),
            Err(error) => self.store_failed(&error.to_string()),
        }
    }

    async fn list_due(self: &Arc<Self>, bucket: &Bucket) {
        let store = &self.media.store;
        let sites = store.sites.lock().clone();
        for site in sites {
            let is_due = store.listing.lock().get(&site).is_none_or(|due| *due <= clock::now());
            let stored = store.stored.lock().get(&site).cloned();
            let (Some(folder), Some(stored)) = (self.media_folder(&site), stored) else { continue };
            if !is_due || store.is_paused() {
                continue;
            }
            let began = now();
            let all = match bucket.all(&site).await {
                Ok(all) => all,
                Err(error) => {
                    self.store_failed(&error.to_string());
                    continue;
                }
            };
            self.store_answered();
            let (agent, of, with) = (Arc::clone(self), site.clone(), Arc::clone(&stored));
            let compared = tokio::task::spawn_blocking(move || {
                agent.compare(&of, &folder, &with, &all);
            });
            if let Err(error) = compared.await {
                tracing::error!(%site, %error, "it cannot be compared what the object store has");
            }
            // Looked at anew meanwhile: once more.
            if store.stored.lock().get(&site).is_none_or(|it| !Arc::ptr_eq(it, &stored)) {
                continue;
            }
            let next = clock::now() + LISTING + LISTING.mul_f64(roll());
            store.listing.lock().insert(site.clone(), next);
            store.listed.lock().insert(site, began);
        }
    }

    /// Notes where store and folder differ.
    fn compare(
        &self,
        site: &SiteName,
        folder: &Folder,
        stored: &Mutex<Stored>,
        all: &BTreeMap<String, Vec<Object>>,
    ) {
        let has_others = self.cluster.is_some() && !self.state.lock().known.reports.is_empty();
        let ledger = folder.ledger.lock();
        let mut stored = stored.lock();
        let mut paths: BTreeSet<String> = stored.paths().cloned().collect();
        paths.extend(all.keys().chain(ledger.entries().keys()).cloned());
        for path in paths {
            let there = all.get(&path).map(Vec::as_slice).unwrap_or_default();
            let own = ledger.entries().get(&path);
            stored.set(&path, known(own, there));
            let (kind, after) = match plan(own, there) {
                (Step::Nothing, old) if old.is_empty() => continue,
                (Step::Fetch(_), _) if has_others => (Kind::Missing, PEERS),
                (Step::Fetch(_), _) => (Kind::Missing, Duration::ZERO),
                _ => self.backlog(),
            };
            self.media.store.note(site, &path, kind, after);
        }
    }

    fn write_stored(&self) {
        let all: Vec<_> = self.media.store.stored.lock().values().cloned().collect();
        for stored in all {
            write_stored(&stored);
        }
    }
}

fn write_stored(stored: &Mutex<Stored>) {
    if let Err(error) = stored.lock().write() {
        tracing::warn!(%error, "it cannot be kept what the object store has");
    }
}

async fn end_group(trigger: &pressroom_runtime::shutdown::Trigger, group: &Group) {
    trigger.fire("another object store, or the end");
    group.finish(Duration::from_secs(2)).await;
}

/// The file with the key, if nobody else can read it.
fn read_private(place: &MediaStore) -> Result<String, String> {
    let path = place.key_file.display();
    let naming = |error: std::io::Error| format!("{path}: {error}");
    let mode = std::fs::metadata(&place.key_file).map_err(naming)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("others can read its key: chmod 600 {path}"));
    }
    std::fs::read_to_string(&place.key_file).map_err(naming)
}
