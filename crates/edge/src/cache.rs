//! The page cache of the edge: one for all cores and all sites.
//!
//! # Use
//! ```text
//! let cache = PageCache::new(config)?;                    // one per process
//! let site = cache.site(&name, &rules, release, now);     // on every snapshot; keep the Arc<Site>
//!
//! match site.key(&asked) {                                // pure: the key, or why the request bypasses
//!     Err(bypass) => { cache.count_bypass(); /* PHP as is; learn its Set-Cookie names: */ cache.learn_cookie(&site, name); }
//!     Ok(key) => match cache.lookup(&site, &key, now) {
//!         Lookup::Hit(hit) => hit.answer(method, headers),              // a whole http::Response<Bytes>
//!         Lookup::Stale(hit, lead) => { if let Some(lead) = lead { refresh in the background } hit.answer(..) }
//!         Lookup::Miss(lead) => render(lead),                           // others may be waiting for it
//!         Lookup::Pass(lead) => render(lead),                           // nobody waits: the page was not storable lately
//!         Lookup::Wait(wait) => match wait.until(deadline, cache::now).await {
//!             Waited::Page(hit) => hit.answer(..),
//!             Waited::Lead(lead) | Waited::Pass(lead) => render(lead),
//!             Waited::Late(fallback) => fallback or 503,
//!         },
//!     },
//! }
//!
//! // render(lead): PHP gets lead.key().path_and_query(), lead.key().cookies(), nothing personal (a canonical request).
//! lead.begin(now);                                        // when the request is handed to PHP
//! if let Err(refusal) = lead.judge(status, &headers) { lead.refuse(&refusal, now) }   // as soon as the head is there
//! lead.store(Rendered { .. }, now)                        // after END_REQUEST and Pending::finished
//! lead.refuse(&Refusal::NoAnswer, now)                    // PHP failed; then lead.fallback(now) may be served
//! drop(lead)                                              // gave up: the next who waits leads
//!
//! cache.purge(&site, &purge, "why", now).receipt().await  // applied at once; the receipt when it is journalled
//! cache.close().await                                     // when the process ends in order
//! ```
//!
//! # What always holds
//! - A page is called fresh only if no purge that met it was applied after its render began; purging and storing of a
//!   site happen one after the other (its *book*), so there is no moment in between.
//! - Nothing is stored without PHP's affirmation. An answer that may not be stored is shown to nobody but its asker.
//! - A hit takes no lock. All times are wall-clock milliseconds that the caller hands in.
//! - The bytes of all pages stay below the limit, but for the moment in which a new page is put in.
//!
//! # The rooms
//! `key`, `bypass`, `learned`, `storable`, `freshness`, `names`, `rules`: thoughts, pure. `page`, `answer`,
//! `moment`: what is stored and what it answers. `memory`: the map and who leaves it. `book`: tags and purges. `flight`, `lead`: one
//! render for many. `coder`: variants in the background. `home`, `journal`, `hot`, `state`: what is on disk;
//! `disk` writes it, `waking` brings it back. `stats`, `refusals`: for people.

mod answer;
mod book;
mod bypass;
mod coder;
mod disk;
mod flight;
mod freshness;
mod home;
mod hot;
mod journal;
mod key;
mod lead;
mod learned;
mod memory;
mod moment;
mod names;
mod page;
mod refusals;
mod rules;
mod site;
mod state;
mod stats;
mod storable;
mod trust;
mod waking;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pressroom_model::affirmation::{NodeReceipt, Purge, Receipt};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::snapshot::CacheRules;
use tokio::sync::{mpsc, oneshot};

pub use self::answer::{Borrowed, Hit, bypassed, rendered, stored};
pub use self::bypass::Bypass;
pub use self::freshness::Freshness;
pub use self::key::{Asked, Key};
pub use self::lead::{Lead, Rendered, Wait, Waited};
pub use self::page::{CACHE_STATUS, Page, Representation, X_CACHE};
pub use self::rules::Rules;
pub use self::site::Site;
pub use self::stats::Totals;
pub use self::storable::Refusal;
pub use self::trust::Trust;

use self::book::Met;
use self::coder::Coder;
use self::disk::{Command, Disk};
use self::flight::{Flights, Part};
use self::home::{Home, wake_all};
use self::lead::Made;
use self::memory::Memory;
use self::refusals::Refusals;
use self::state::Places;
use self::stats::{Count, Stats};
use crate::mesh::Mesh;
use crate::mesh::purges::PATIENCE;

/// Milliseconds since 1970, by the wall clock.
pub type Millis = u64;

/// The wall clock, from the kernel's last tick: some milliseconds coarse, and the cheapest there is.
pub fn now() -> Millis {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

/// How the cache is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes of all pages.
    pub limit: u64,
    /// Most bytes of one body.
    pub page_limit: usize,
    /// The edge's state folder, where pages and purges are kept over a restart; `None`: in memory only.
    pub state: Option<PathBuf>,
}

/// The page cache.
#[derive(Debug)]
pub struct PageCache {
    memory: Arc<Memory>,
    flights: Flights,
    sites: RwLock<BTreeMap<SiteName, Arc<Site>>>,
    coder: Coder,
    stats: Stats,
    refusals: Mutex<Refusals>,
    next_id: AtomicU64,
    page_limit: usize,
    home: Option<Arc<Home>>,
    mesh: OnceLock<Arc<Mesh>>,
    /// Until when no other edge can have purged a page unheard.
    pub(crate) trust: Arc<Trust>,
}

/// What the cache has for a request.
#[derive(Debug)]
pub enum Lookup {
    /// A fresh page.
    Hit(Hit),
    /// A stale page to be served; with a lead: refresh it in the background.
    Stale(Hit, Option<Lead>),
    /// Nothing to be served: render, for all who ask.
    Miss(Lead),
    /// Somebody renders it.
    Wait(Wait),
    /// Lately it was not storable: render for this request alone (and store it if it is storable now).
    Pass(Lead),
}

/// A purge that was applied.
#[derive(Debug)]
#[must_use = "the journal may not have it yet"]
pub struct Purged {
    /// Its number in the site's stream.
    pub position: u64,
    /// How many stored pages it made stale.
    pub pages: u64,
    written: Option<oneshot::Receiver<()>>,
    elsewhere: Option<Elsewhere>,
}

/// A purge at the edges of other nodes.
#[derive(Debug)]
struct Elsewhere {
    /// Those that were heard lately, whose word is worth waiting for.
    nodes: Vec<NodeName>,
    away: Vec<NodeName>,
    receipts: mpsc::UnboundedReceiver<NodeReceipt>,
}

impl Elsewhere {
    /// What the others confirm in time; the rest owe it.
    async fn receipts(mut self) -> Vec<NodeReceipt> {
        let mut all: Vec<NodeReceipt> = Vec::new();
        // One that was away may be back, and stands for none of these.
        let mut awaited: BTreeSet<_> = self.nodes.iter().cloned().collect();
        let waiting = async {
            while !awaited.is_empty()
                && let Some(receipt) = self.receipts.recv().await
            {
                awaited.remove(&receipt.node);
                all.push(receipt);
            }
        };
        // Who is late is told of as that.
        let _ = tokio::time::timeout(PATIENCE, waiting).await;
        let ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        for node in self.nodes.into_iter().chain(self.away) {
            if all.iter().all(|receipt| receipt.node != node) {
                all.push(NodeReceipt { node, ok: false, ms, pages: 0 });
            }
        }
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }
}

/// How long a receipt waits for the disk.
const DISK_TIME: Duration = Duration::from_secs(2);

impl Purged {
    /// The receipt, once the journal has it. A journal that fails takes the pages on disk with it, so that is as good;
    /// a disk that hangs makes it `ok: false`.
    pub async fn receipt(self) -> Receipt {
        let ok = match self.written {
            Some(written) => tokio::time::timeout(DISK_TIME, written).await.is_ok(),
            None => true,
        };
        let nodes = match self.elsewhere {
            Some(elsewhere) => elsewhere.receipts().await,
            None => Vec::new(),
        };
        Receipt { ok, position: self.position, pages: self.pages, nodes }
    }
}

/// What is known of a key.
#[derive(Debug, Clone, Default)]
pub struct Why {
    /// The stored page, if there is one.
    pub page: Option<WhyPage>,
    /// Why the last answer was not stored, and when that was.
    pub refused: Option<(String, Millis)>,
}

/// What is known of a stored page.
#[derive(Debug, Clone)]
pub struct WhyPage {
    /// How it may be used.
    pub freshness: Freshness,
    /// Whole seconds since its render began.
    pub age: u64,
    /// Whole seconds for which it is fresh.
    pub ttl: u64,
    /// How many tags and addresses it is found by.
    pub tags: usize,
    /// When it was purged, if it was.
    pub purged_at: Option<Millis>,
    /// Bytes in all codings.
    pub bytes: usize,
}

impl PageCache {
    /// A cache, with what an earlier process left in the state folder.
    pub fn new(config: &Config) -> std::io::Result<Arc<Self>> {
        let memory = Arc::new(Memory::new(config.limit));
        let (waking, sites) = std::sync::mpsc::sync_channel(1024);
        let home = match &config.state {
            Some(state) => {
                let (places, believed) = Places::begin_session(state)?;
                let disk = Disk::start(places.clone(), Arc::clone(&memory))?;
                Some(Arc::new(Home { disk, places, believed, waking }))
            }
            None => None,
        };
        let (coder, coding) = Coder::new();
        let cache = Arc::new(Self {
            memory,
            flights: Flights::new(),
            sites: RwLock::default(),
            coder,
            stats: Stats::default(),
            refusals: Mutex::default(),
            next_id: AtomicU64::new(1),
            page_limit: config.page_limit,
            home,
            mesh: OnceLock::new(),
            trust: Arc::new(Trust::without_end()),
        });
        let coded = Arc::downgrade(&cache);
        coding.start(Arc::clone(&cache.memory), move |page| {
            if let Some(cache) = coded.upgrade() {
                cache.coded(page);
            }
        })?;
        if cache.home.is_some() {
            let cache = Arc::downgrade(&cache);
            std::thread::Builder::new()
                .name("page-waker".into())
                .spawn(move || wake_all(&sites, &cache))?;
        }
        Ok(cache)
    }

    /// Writes what is worth it, in order, before the process ends. Without it only the machine must go on.
    pub async fn close(&self) {
        if let Some(home) = &self.home {
            let (done, told) = oneshot::channel();
            if home.disk.ask(Command::Finish(done)) {
                // A thread that died has said so in the log.
                let _ = told.await;
            }
        }
    }

    /// Most bytes of one body.
    pub fn page_limit(&self) -> usize {
        self.page_limit.min(usize::try_from(self.memory.limit() / 4).unwrap_or(usize::MAX))
    }

    /// Sets the limit of bytes of all pages.
    pub fn set_limit(&self, bytes: u64) {
        self.memory.set_limit(bytes);
        self.evict();
    }

    /// The site of a name, with these rules from now on. A release other than the last one purges its pages. The first
    /// time it reads what is on disk of the site (not the pages themselves).
    pub fn site(
        &self,
        name: &SiteName,
        rules: &CacheRules,
        release: &str,
        now: Millis,
    ) -> Arc<Site> {
        let rules = Rules::new(rules);
        if let Some(site) = self.known_site(name) {
            site.set_rules(rules);
            if site.is_switch(release) {
                // Other edges do the same when they switch.
                let _ = self.purge_here(&site, &all(), "another release", now);
            }
            return site;
        }
        let mut sites = self.sites.write();
        if let Some(site) = sites.get(name) {
            return Arc::clone(site);
        }
        let site = Arc::new(Site::new(name.clone(), rules, Arc::clone(&self.trust)));
        site.is_switch(release);
        if let Some(home) = &self.home {
            home.open(&site);
        }
        sites.insert(name.clone(), Arc::clone(&site));
        site
    }

    /// The site of a name, if it is known.
    pub fn known_site(&self, name: &SiteName) -> Option<Arc<Site>> {
        self.sites.read().get(name).cloned()
    }

    /// Forgets sites that are no more, with their pages.
    pub fn retain_sites(&self, keep: impl Fn(&SiteName) -> bool) {
        let mut gone = Vec::new();
        self.sites.write().retain(|name, site| {
            let kept = keep(name);
            if !kept {
                gone.push(Arc::clone(site));
            }
            kept
        });
        for site in gone {
            site.asleep.clear();
            if let Some(home) = &self.home {
                home.disk.insist(Command::Close(site));
            }
        }
        for page in self.memory.find(|page| !keep(page.site.name())) {
            self.remove(&page);
        }
    }

    /// What there is for a request.
    pub fn lookup(self: &Arc<Self>, site: &Arc<Site>, key: &Key, now: Millis) -> Lookup {
        let Some(page) = self.memory.get(key).or_else(|| self.awake(site, key, now)) else {
            return self.miss(site, key, None, now);
        };
        let freshness = page.freshness(now);
        let hit = Hit::new(page, freshness, now);
        hit.count();
        match freshness {
            Freshness::Fresh(_) => {
                self.coder.ask(&hit.page);
                self.stats.count(Count::Hit);
                Lookup::Hit(hit)
            }
            Freshness::StaleWhileRevalidate(_) => {
                self.stats.count(Count::Stale);
                let lead = self.refresh(site, key, &hit.page, now);
                Lookup::Stale(hit, lead)
            }
            Freshness::StaleIfError(_) => self.miss(site, key, Some(hit), now),
            Freshness::Expired => self.miss(site, key, None, now),
        }
    }

    /// What there is for another edge's request: a fresh page, or a render of one; never a stale page that somebody refreshes.
    /// [`Lookup::Stale`] has no lead: the last renders failed. `alone`: nobody else's render is waited for.
    pub fn lookup_fresh(
        self: &Arc<Self>,
        site: &Arc<Site>,
        key: &Key,
        alone: bool,
        now: Millis,
    ) -> Lookup {
        let page = self.memory.get(key).or_else(|| self.awake(site, key, now));
        let hit = page.map(|page| Hit::new(Arc::clone(&page), page.freshness(now), now));
        if let Some(hit) = hit.clone().filter(Hit::is_fresh) {
            return Lookup::Hit(hit);
        }
        let hit = hit.filter(|hit| hit.freshness != Freshness::Expired);
        if alone {
            let page = hit.map(|hit| hit.page);
            return Lookup::Pass(self.lead(site, key, None, page, now));
        }
        self.miss(site, key, hit, now)
    }

    /// The page of a key that an earlier process left, if there is one.
    fn awake(&self, site: &Arc<Site>, key: &Key, now: Millis) -> Option<Arc<Page>> {
        if !site.is_waking() {
            return None;
        }
        site.asleep.wake(self, site, key, now);
        self.memory.get(key)
    }

    /// Puts a page of an earlier process in, unless there is a newer one.
    fn woken(&self, page: Page, purged_at: Option<Millis>, now: Millis) {
        if let Some(at) = purged_at {
            page.purge(at);
        }
        if self.memory.get(&page.key).is_none() {
            let page = self.enter(Arc::new(page), now);
            if let Some(home) = &self.home {
                home.disk.ask(Command::Woke(page));
            }
        }
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn refresh(
        self: &Arc<Self>,
        site: &Arc<Site>,
        key: &Key,
        page: &Arc<Page>,
        now: Millis,
    ) -> Option<Lead> {
        match self.flights.join(key.hash(), now) {
            Part::Lead(flight) => {
                Some(self.lead(site, key, Some(flight), Some(Arc::clone(page)), now))
            }
            Part::Follow(flight) => {
                self.flights.leave(key.hash(), &flight);
                None
            }
            Part::Pass | Part::Rest => None,
        }
    }

    fn miss(
        self: &Arc<Self>,
        site: &Arc<Site>,
        key: &Key,
        stale: Option<Hit>,
        now: Millis,
    ) -> Lookup {
        let page = stale.as_ref().map(|hit| Arc::clone(&hit.page));
        match self.flights.join(key.hash(), now) {
            Part::Lead(flight) => {
                self.stats.count(Count::Miss);
                Lookup::Miss(self.lead(site, key, Some(flight), page, now))
            }
            Part::Follow(flight) => {
                self.stats.count(Count::Miss);
                let (cache, site, key) = (Arc::clone(self), Arc::clone(site), key.clone());
                Lookup::Wait(Wait { cache, site, key, flight, stale: page })
            }
            Part::Rest if let Some(hit) = stale => {
                self.stats.count(Count::Stale);
                Lookup::Stale(hit, None)
            }
            Part::Rest | Part::Pass => {
                self.stats.count(Count::Miss);
                Lookup::Pass(self.lead(site, key, None, page, now))
            }
        }
    }

    fn lead(
        self: &Arc<Self>,
        site: &Arc<Site>,
        key: &Key,
        flight: Option<Arc<flight::Flight>>,
        stale: Option<Arc<Page>>,
        now: Millis,
    ) -> Lead {
        let (cache, site, position) = (Arc::clone(self), Arc::clone(site), site.position());
        Lead { cache, site, key: key.clone(), flight, stale, position, began: now }
    }

    /// Puts a page in: stale at once if it was purged since its render began.
    fn put(&self, lead: &Lead, made: Made, now: Millis) -> Arc<Page> {
        let page = Arc::new(Page::new(page::Parts {
            tags: made.tags,
            key: lead.key.clone(),
            site: Arc::clone(&lead.site),
            status: made.status,
            headers: made.headers,
            body: made.body,
            rendered_at: lead.began,
            ttl: made.ttl,
            position: lead.position,
            id: self.new_id(),
        }));
        let page = self.enter(page, now);
        self.stats.count(Count::Stored);
        if page.varies() {
            self.coder.ask(&page);
        } else if let Some(home) = &self.home {
            home.disk.ask(Command::Keep(Arc::clone(&page)));
        }
        page
    }

    /// A page has its variants, and has grown by them.
    fn coded(&self, page: &Arc<Page>) {
        self.evict();
        if let Some(home) = &self.home {
            home.disk.ask(Command::Keep(Arc::clone(page)));
        }
    }

    fn enter(&self, page: Arc<Page>, now: Millis) -> Arc<Page> {
        let site = Arc::clone(&page.site);
        let hash = page.key.hash();
        {
            let mut book = site.book.lock();
            if let Some(newer) = self.memory.get(&page.key).filter(|there| is_newer(there, &page)) {
                return newer;
            }
            if book.purged_since(page.position, &page.tags) {
                page.purge(now);
            }
            let replaced = self.memory.insert(Arc::clone(&page));
            if let Some(old) = replaced {
                book.strike(hash, &old.tags, &page.tags);
                page.hits.store(old.hits.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
                page.used.store(old.used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            book.enter(hash, &page.tags);
        }
        self.evict();
        page
    }

    fn evict(&self) {
        for page in self.memory.evict() {
            self.stats.count(Count::Evicted);
            self.strike(&page);
        }
    }

    fn remove(&self, page: &Page) {
        if let Some(page) = self.memory.remove(page.key.hash(), page.id) {
            self.strike(&page);
        }
    }

    fn strike(&self, page: &Page) {
        let hash = page.key.hash();
        let mut book = page.site.book.lock();
        let there = self.memory.by_hash(hash);
        book.strike(hash, &page.tags, there.as_ref().map_or(&[], |there| &there.tags));
    }

    /// Takes the page of a key out: its address is no longer for everybody.
    fn forget(&self, key: &Key) {
        if let Some(page) = self.memory.get(key) {
            self.remove(&page);
            if let Some(home) = &self.home {
                home.disk.ask(Command::Forget(page));
            }
        }
    }

    fn note_refusal(&self, key: &Key, refusal: &Refusal, now: Millis) {
        self.stats.count(Count::Refused);
        tracing::debug!(path = key.path_and_query(), %refusal, "not stored");
        self.refusals.lock().note(key.hash(), refusal, now);
    }

    /// Tells the edges of other nodes of every purge from now on.
    pub fn tell_others(&self, mesh: &Arc<Mesh>) {
        // An edge has one mesh.
        let _ = self.mesh.set(Arc::clone(mesh));
    }

    /// Applies a purge, here and at the edges of other nodes: every later answer honours it.
    pub fn purge(&self, site: &Arc<Site>, purge: &Purge, because: &str, now: Millis) -> Purged {
        let here = || self.purge_here(site, purge, because, now);
        let Some(mesh) = self.mesh.get() else { return here() };
        let (purged, receipts) = mesh.outbox.push(site.name(), purge, here);
        // Afterwards: one that is not heard yet is told of this purge before it is told that it is.
        let (nodes, away) =
            mesh.others().into_iter().partition(|node| mesh.company.is_awaited(node));
        Purged { elsewhere: Some(Elsewhere { nodes, away, receipts }), ..purged }
    }

    /// Applies a purge here alone.
    pub fn purge_here(
        &self,
        site: &Arc<Site>,
        purge: &Purge,
        because: &str,
        now: Millis,
    ) -> Purged {
        let met = Met::of(purge, &site.rules());
        let mut book = site.book.lock();
        let position = site.advance(&book);
        let keys = book.purge(position, &met);
        self.flights.rouse(keys.as_deref());
        let pages = match keys {
            None => {
                site.raise_floor(position, now);
                self.memory.find(|page| page.site.name() == site.name() && page.purge(now)).len()
            }
            Some(keys) => {
                let met = keys.iter().filter_map(|key| self.memory.by_hash(*key));
                met.filter(|page| page.purged_at().is_none() && page.purge(now)).count()
            }
        };
        // Still with the book in hand: the journal has purges in the order of their numbers.
        let written = self.home.as_ref().map(|home| home.journal(site, position, purge, now));
        drop(book);
        self.stats.count(Count::Purge);
        tracing::debug!(site = %site.name(), position, pages, because, "purged");
        Purged { position, pages: pages as u64, written, elsewhere: None }
    }

    /// Notes a cookie name that the site sets: later requests with it bypass.
    pub fn learn_cookie(&self, site: &Arc<Site>, name: &str) {
        if !site.rules().vary_cookies.contains(name) && site.learned.learn(name) {
            if let Some(home) = &self.home {
                home.disk.ask(Command::Cookies(Arc::clone(site)));
            }
            tracing::info!(site = %site.name(), name = &*bypass::shown(name), "the site sets a cookie: requests with it bypass");
        }
    }

    /// The names of cookies that each site ever set, for other edges.
    pub fn cookies(&self) -> BTreeMap<SiteName, String> {
        let sites = self.sites.read();
        let lines = |(name, site): (&SiteName, &Arc<Site>)| (name.clone(), site.learned.to_lines());
        sites.iter().map(lines).filter(|(_, lines)| !lines.is_empty()).collect()
    }

    /// Notes those that a site set at another edge.
    pub fn learn_cookies(&self, site: &Arc<Site>, lines: &str) {
        let before = site.learned.to_lines();
        site.learned.read_lines(lines);
        if site.learned.to_lines() != before
            && let Some(home) = &self.home
        {
            home.disk.ask(Command::Cookies(Arc::clone(site)));
        }
    }

    /// Counts a request that went past the cache.
    pub fn count_bypass(&self) {
        self.stats.count(Count::Bypass);
    }

    /// All counts.
    pub fn totals(&self) -> Totals {
        self.stats.totals(self.memory.bytes(), self.memory.pages())
    }

    /// Path and query of the pages of a site that were asked for most, the busiest first: those without variants.
    pub fn busiest(&self, site: &SiteName, most: usize) -> Vec<String> {
        let mut pages =
            self.memory.find(|page| page.site.name() == site && page.key.cookies().is_empty());
        pages.sort_by_key(|page| std::cmp::Reverse(page.hits.load(Ordering::Relaxed)));
        pages.iter().take(most).map(|page| page.key.path_and_query().to_owned()).collect()
    }

    /// What is known of a key.
    pub fn why(&self, key: &Key, now: Millis) -> Why {
        let page = self.memory.get(key).map(|page| WhyPage {
            freshness: page.freshness(now),
            age: now.saturating_sub(page.rendered_at) / 1000,
            ttl: page.ttl / 1000,
            tags: page.tags.len(),
            purged_at: page.purged_at(),
            bytes: page.size.load(Ordering::Relaxed),
        });
        let refused =
            self.refusals.lock().get(key.hash()).map(|(refusal, at)| (refusal.to_string(), at));
        Why { page, refused }
    }
}

/// A purge of the whole site.
pub fn all() -> Purge {
    Purge { all: true, ..Purge::default() }
}

/// Whether the page that is there was rendered later than the one that comes.
fn is_newer(there: &Page, comes: &Page) -> bool {
    there.position > comes.position && there.purged_at().is_none()
}

#[cfg(test)]
mod tests;
