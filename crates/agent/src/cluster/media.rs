//! Uploads on every node. What changes in a media folder here is offered to all other nodes at once; what they lack is sent.
//!
//! Each node tells of its own changes, so nobody decides and nobody is needed: an upload goes from the node that has it to all
//! that are up, and to the others when they are back. A node that is new, or an agent that has just begun, is offered everything
//! once. What a folder has and what was deleted in it is kept on disk, so that it is known what went while the agent was down; that
//! a file was deleted is forgotten when every node has heard it, a week later at the earliest. Of two versions that were made on
//! nodes that did not hear of each other the newer one stays; the other is kept where nothing serves it, and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use pressroom_media::exchange::{Offer, Version, Wanted};
use pressroom_media::folder::{Folder, Heard, Received};
use pressroom_media::journal::Journal;
use pressroom_media::ledger::{Entry, Ledger};
use pressroom_media::tree::Tree;
use pressroom_media::watch::{Seen, Watch};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::http::{AnyBody, any_body};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, watch};

use super::Cluster;
use super::code::Pieces;
use super::door::{short, whole};
use super::media_store::Copies;
use crate::agent::Agent;
use crate::apply::off_the_loop;

/// How long a look at the folders waits for something.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks which sites there are.
const SITES: Duration = Duration::from_millis(500);
/// So many files are offered at a time.
const BATCH: usize = 2000;
/// More changes than that for a node that is away: it is offered everything later.
const MOST: usize = 100_000;
/// How long it is remembered that a file was deleted, at least.
const REMEMBERED: i64 = 7 * 86_400 * 1_000_000_000;
/// A node that is silent for so long is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
/// The longest pause after failures, in pauses.
const LONGEST: u32 = 100;
/// Between two looks whether a deletion can be forgotten.
const FORGETTING: Duration = Duration::from_secs(60);
/// What a node says that has no room.
const FULL: StatusCode = StatusCode::INSUFFICIENT_STORAGE;
/// Bytes of a file that are sent at a time.
const PIECE: usize = 256 << 10;
/// The first line of a file that is sent.
const HEAD: usize = 16 << 10;

/// What there is to tell a node.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeSet<(SiteName, String)>,
    /// Everything of these sites.
    whole: BTreeSet<SiteName>,
    /// What is being told.
    telling: Option<(SiteName, Option<Vec<String>>)>,
}

impl Pending {
    /// Takes what is told next; it stays with us until [`Self::told`].
    fn take(&mut self) -> Option<(SiteName, Option<Vec<String>>)> {
        self.telling = if let Some(site) = self.whole.pop_first() {
            self.files.retain(|(of, _)| *of != site);
            Some((site, None))
        } else if let Some((site, _)) = self.files.first().cloned() {
            let own = self.files.iter().filter(|(of, _)| *of == site).take(BATCH);
            let paths: Vec<String> = own.map(|(_, path)| path.clone()).collect();
            for path in &paths {
                self.files.remove(&(site.clone(), path.clone()));
            }
            Some((site, Some(paths)))
        } else {
            None
        };
        self.telling.clone()
    }

    /// What was taken was told, or is to be told again.
    fn told(&mut self, is_told: bool) {
        match self.telling.take().filter(|_| !is_told) {
            Some((site, None)) => drop(self.whole.insert(site)),
            Some((site, Some(paths))) => {
                self.files.extend(paths.into_iter().map(|path| (site.clone(), path)));
            }
            None => {}
        }
    }

    fn has_nothing_of(&self, site: &SiteName) -> bool {
        !self.whole.contains(site)
            && self.telling.as_ref().is_none_or(|(of, _)| of != site)
            && self.files.iter().all(|(of, _)| of != site)
    }
}

/// What a node knows of its media and has to tell of them.
#[derive(Debug)]
pub struct Media {
    pending: Mutex<BTreeMap<NodeName, Pending>>,
    /// What is known of the folders that were looked at.
    ledgers: Mutex<BTreeMap<SiteName, Arc<Mutex<Ledger>>>>,
    /// Until when a node has heard everything, nanoseconds since 1970.
    heard: Mutex<BTreeMap<NodeName, i64>>,
    /// What was said last of a site that could not be kept equal.
    complaints: Mutex<BTreeMap<SiteName, String>>,
    wake: Notify,
    /// Raised by every look at the folders.
    looks: watch::Sender<u64>,
    /// What is known of the object store.
    pub(crate) store: Copies,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            ledgers: Mutex::default(),
            heard: Mutex::default(),
            complaints: Mutex::default(),
            wake: Notify::new(),
            looks: watch::Sender::new(0),
            store: Copies::default(),
        }
    }
}

/// What is sent before a file's bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    path: String,
    version: Version,
}

pub(super) fn now() -> i64 {
    i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000
}

impl Media {
    /// A file changed, or may have: it is told to all.
    fn changed(&self, site: &SiteName, folder: &Folder, path: &str) {
        match folder.see(path, now()) {
            Ok(true) => self.tell(site, path),
            Ok(false) => {}
            Err(error) => tracing::debug!(%site, path, %error, "a file cannot be looked at"),
        }
    }

    fn tell(&self, site: &SiteName, path: &str) {
        self.store.changed(site, path);
        for pending in self.pending.lock().values_mut() {
            if pending.files.len() >= MOST {
                pending.whole.insert(site.clone());
            } else {
                pending.files.insert((site.clone(), path.to_owned()));
            }
        }
    }

    fn tell_whole(&self, site: &SiteName) {
        for pending in self.pending.lock().values_mut() {
            pending.whole.insert(site.clone());
        }
        self.wake.notify_waiters();
    }

    /// Anything below a path may have changed.
    fn changed_below(&self, site: &SiteName, folder: &Folder, front: &str) {
        let Ok(listing) = folder.tree.list() else { return };
        let is_below = |path: &String| {
            front.is_empty() || path.strip_prefix(front).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut paths: BTreeSet<String> =
            listing.files.into_keys().filter(|path| is_below(path)).collect();
        for (path, entry) in folder.ledger.lock().entries() {
            if matches!(entry, Entry::File(_)) && is_below(path) {
                paths.insert(path.clone());
            }
        }
        for path in paths {
            self.changed(site, folder, &path);
        }
    }

    /// Forgets deletions that all of these nodes and the object store, where there is to be one, have heard, and that are old.
    fn forget(&self, others: &[NodeName], has_store: bool) {
        let heard = self.heard.lock();
        let until = others.iter().map(|node| heard.get(node).copied().unwrap_or(i64::MIN));
        let until = until.chain([now() - REMEMBERED]).min().unwrap_or(i64::MIN);
        drop(heard);
        let ledgers: Vec<_> = self.ledgers.lock().clone().into_iter().collect();
        for (site, ledger) in ledgers {
            let store = if has_store { self.store.heard_until(&site) } else { i64::MAX };
            ledger.lock().forget(until.min(store));
        }
    }

    /// Whether other nodes have everything of a site; one of another zone is enough, where there is one.
    fn is_committed(&self, site: &SiteName, others: &[Vec<NodeName>]) -> bool {
        let pending = self.pending.lock();
        let has = |node: &NodeName| pending.get(node).is_some_and(|of| of.has_nothing_of(site));
        others.iter().find(|group| !group.is_empty()).is_none_or(|group| group.iter().any(has))
    }
}

impl Agent {
    fn media_tree(&self, site: &SiteName) -> Option<Tree> {
        let user = self.users.site(site).ok()?;
        let root = self.layout.uploads(site);
        root.is_dir().then(|| Tree::new(root, user.map(|user| (user.uid, user.gid))))
    }

    /// A site's media, once they were looked at.
    pub(super) fn media_folder(&self, site: &SiteName) -> Option<Folder> {
        let ledger = self.media.ledgers.lock().get(site).cloned()?;
        Some(self.folder_with(self.media_tree(site)?, site, ledger))
    }

    fn folder_with(&self, tree: Tree, site: &SiteName, ledger: Arc<Mutex<Ledger>>) -> Folder {
        let kept = self.layout.cluster().join("media").join(format!("{site}.kept"));
        Folder { tree, ledger, kept }
    }

    /// Tells others and the operator what came of something heard.
    pub(super) fn mind_heard(&self, site: &SiteName, heard: &Heard) {
        for path in &heard.changed {
            self.media.tell(site, path);
        }
        if !heard.changed.is_empty() {
            self.media.wake.notify_waiters();
        }
        for (path, at) in &heard.kept {
            let at = at.display();
            self.notice(format!(
                "`{site}`: `{path}` was changed or deleted on two nodes that had not heard of each other; the newer state stays, \
                 the other version is kept at {at}"
            ));
        }
    }

    /// Says once, until it is over, that media of a site cannot be taken here.
    pub(super) fn complain(&self, site: &SiteName, error: Option<&std::io::Error>) {
        let text = error.map(ToString::to_string);
        let before = match &text {
            Some(text) => self.media.complaints.lock().insert(site.clone(), text.clone()),
            None => self.media.complaints.lock().remove(site),
        };
        match text {
            Some(text) if before.as_ref() != Some(&text) => self.notice(format!(
                "`{site}`: media of another node or of the object store cannot be taken: {text}; what is here is served on, and it is tried again"
            )),
            None if before.is_some() => self.notice(format!("`{site}`: media are taken again")),
            _ => {}
        }
    }

    pub(super) fn media_sites(&self) -> Vec<SiteName> {
        let config = self.config();
        config.into_iter().flat_map(|config| config.sites).map(|site| site.name).collect()
    }

    /// Keeps the media equal for as long as the agent runs.
    pub(crate) async fn keep_media(self: Arc<Self>, shutdown: Shutdown) {
        // One machine without a store has nobody to tell.
        while self.cluster.is_none() && self.media_store().is_none() {
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(SITES) => {} }
        }
        let group = Group::new("media", shutdown.clone());
        let agent = Arc::clone(&self);
        group.spawn("store", move |stop| agent.keep_media_store(stop));
        let watching = Arc::clone(&self);
        group.spawn("watch", move |stop| async move {
            let watched = tokio::task::spawn_blocking(move || watching.watch_media(&stop));
            match watched.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "media folders cannot be watched"),
                Err(error) => tracing::error!(%error, "the watch of media folders has ended"),
            }
        });
        match self.cluster.clone() {
            Some(cluster) => self.tell_nodes(&cluster, &shutdown).await,
            None => self.forget_alone(&shutdown).await,
        }
        group.finish(PAUSE).await;
    }

    async fn forget_alone(&self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            self.media.forget(&[], self.media_store().is_some());
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(FORGETTING) => {} }
        }
    }

    /// Tells every node what there is to tell, and forgets what all have heard.
    async fn tell_nodes(self: &Arc<Self>, cluster: &Arc<Cluster>, shutdown: &Shutdown) {
        let mut running: BTreeMap<NodeName, Group> = BTreeMap::new();
        let mut forgetting = clock::now() + FORGETTING;
        while !shutdown.is_requested() {
            let own = cluster.node();
            let others: Vec<NodeName> =
                cluster.wire.members.now().keys().filter(|name| **name != own).cloned().collect();
            let gone: Vec<NodeName> =
                running.keys().filter(|node| !others.contains(node)).cloned().collect();
            for node in gone {
                if let Some(group) = running.remove(&node) {
                    group.finish(Duration::ZERO).await;
                }
                self.media.pending.lock().remove(&node);
                self.media.heard.lock().remove(&node);
            }
            if clock::now() >= forgetting {
                self.media.forget(&others, self.media_store().is_some());
                forgetting = clock::now() + FORGETTING;
            }
            for node in others {
                if running.contains_key(&node) {
                    continue;
                }
                let whole = self.media_sites().into_iter().collect();
                let pending = Pending { whole, ..Pending::default() };
                self.media.pending.lock().insert(node.clone(), pending);
                let group = Group::new("media to a node", shutdown.clone());
                let (agent, of, to) = (Arc::clone(self), Arc::clone(cluster), node.clone());
                group.spawn(node.as_str(), move |stop| agent.tell_media(of, to, stop));
                running.insert(node, group);
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
        for group in running.into_values() {
            group.finish(PAUSE).await;
        }
    }

    /// Looks at a folder that is watched from now on: what changed since it was looked at last is told to all.
    fn begin_media(&self, site: &SiteName, tree: Tree) -> std::io::Result<Journal> {
        let place = self.layout.cluster().join("media");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let (mut journal, ledger) = Journal::read(place.join(format!("{site}.journal")))?;
        let ledger = Arc::new(Mutex::new(ledger));
        let went = self.folder_with(tree, site, Arc::clone(&ledger)).look(now())?;
        if went > 0 {
            tracing::info!(%site, files = went, "media were deleted while nobody looked");
        }
        self.media.store.begin_site(site);
        self.keep_ledger(site, &mut journal, &ledger);
        self.media.ledgers.lock().insert(site.clone(), ledger);
        self.media.tell_whole(site);
        Ok(journal)
    }

    /// Notes for the object store what is new in a ledger, and puts it on disk; what it cannot it tries again.
    fn keep_ledger(&self, site: &SiteName, journal: &mut Journal, ledger: &Mutex<Ledger>) {
        // Under one lock: what is written is not new any more.
        let mut ledger = ledger.lock();
        self.mind_store(site, &ledger);
        if let Err(error) = journal.write(&mut ledger) {
            let path = journal.path().display();
            tracing::warn!(%path, %error, "it cannot be kept which media there are");
        }
    }

    /// Sees what changes, until shutdown. Blocks.
    fn watch_media(&self, stop: &Shutdown) -> std::io::Result<()> {
        let media = &self.media;
        let mut watch: Watch<SiteName> = Watch::new()?;
        let mut journals: BTreeMap<SiteName, Journal> = BTreeMap::new();
        let (mut sites, mut due) = (Vec::new(), clock::now());
        while !stop.is_requested() {
            if clock::now() >= due {
                (sites, due) = (self.media_sites(), clock::now() + SITES);
                self.begin_all_media(&sites, &mut watch, &mut journals);
            }
            let seen = watch.next(LOOK)?;
            let is_news = !seen.is_empty();
            for one in seen {
                self.see_media(&sites, one);
            }
            for (site, journal) in &mut journals {
                let ledger = media.ledgers.lock().get(site).cloned();
                if let Some(ledger) = ledger {
                    self.keep_ledger(site, journal, &ledger);
                }
            }
            media.looks.send_modify(|looks| *looks += 1);
            if is_news {
                media.wake.notify_waiters();
            }
        }
        Ok(())
    }

    /// Begins with sites that are new, and anew with those whose folder is another one now.
    fn begin_all_media(
        &self,
        sites: &[SiteName],
        watch: &mut Watch<SiteName>,
        journals: &mut BTreeMap<SiteName, Journal>,
    ) {
        let is_same = |site: &SiteName| {
            let folder = self.media_folder(site);
            folder.is_some_and(|folder| folder.is_known().unwrap_or(false))
        };
        watch.retain(|site| sites.contains(site) && is_same(site));
        journals.retain(|site, _| sites.contains(site));
        self.media.ledgers.lock().retain(|site, _| sites.contains(site));
        self.media.store.keep_sites(&self.stored_sites());
        for site in sites {
            let Some(tree) = self.media_tree(site).filter(|_| !watch.watches(site)) else {
                continue;
            };
            self.media.ledgers.lock().remove(site);
            let begun = watch.add(site, tree.root());
            match begun.and_then(|()| self.begin_media(site, tree)) {
                Ok(journal) => drop(journals.insert(site.clone(), journal)),
                Err(error) => {
                    watch.retain(|it| it != site);
                    self.complain(site, Some(&error));
                }
            }
        }
    }

    fn see_media(&self, sites: &[SiteName], seen: Seen<SiteName>) {
        let media = &self.media;
        let with = |site: &SiteName| {
            // What is seen of another folder than was looked at says nothing of this one.
            self.media_folder(site).filter(|folder| folder.is_known().unwrap_or(false))
        };
        match seen {
            Seen::File(site, path) => {
                if let Some(folder) = with(&site) {
                    media.changed(&site, &folder, &path);
                }
            }
            Seen::Below(site, path) => {
                if let Some(folder) = with(&site) {
                    media.changed_below(&site, &folder, &path);
                }
            }
            Seen::Everything => {
                for site in sites {
                    if let Some(folder) = with(site) {
                        media.changed_below(site, &folder, "");
                    }
                }
            }
        }
    }

    /// Tells one node of what changed, until shutdown.
    async fn tell_media(self: Arc<Self>, cluster: Arc<Cluster>, to: NodeName, stop: Shutdown) {
        let mut failures: u32 = 0;
        while !stop.is_requested() {
            let began = now();
            let woken = self.media.wake.notified();
            let mut woken = std::pin::pin!(woken);
            woken.as_mut().enable();
            let told = tokio::select! {
                () = stop.requested() => return,
                told = self.tell_media_once(&cluster, &to) => told,
            };
            match told {
                Ok(true) => failures = 0,
                Ok(false) => {
                    self.media.heard.lock().insert(to.clone(), began);
                    tokio::select! { () = stop.requested() => {}, () = woken => {}, () = tokio::time::sleep(PAUSE * 10) => {} }
                }
                Err(error) => {
                    tracing::debug!(node = %to, error, "media wait for a node");
                    // Only a node that answers, and takes nothing, is asked more and more seldom.
                    failures =
                        if error.starts_with('5') { (failures * 2 + 1).min(LONGEST) } else { 0 };
                    let pause = PAUSE * (failures + 1).min(LONGEST);
                    tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(pause) => {} }
                }
            }
        }
    }

    /// Tells what there is to tell of one site; whether there was anything.
    async fn tell_media_once(&self, cluster: &Cluster, to: &NodeName) -> Result<bool, String> {
        let taken = self.media.pending.lock().get_mut(to).and_then(Pending::take);
        let Some((site, paths)) = taken else { return Ok(false) };
        let told = self.offer_media(cluster, to, &site, paths.as_deref()).await;
        if let Some(pending) = self.media.pending.lock().get_mut(to) {
            pending.told(told.is_ok());
        }
        // Whoever waits for a commit looks again.
        self.media.looks.send_modify(|looks| *looks += 1);
        told.map(|()| true)
    }

    async fn offer_media(
        &self,
        cluster: &Cluster,
        to: &NodeName,
        site: &SiteName,
        paths: Option<&[String]>,
    ) -> Result<(), String> {
        // A folder that was not looked at yet is told when it was.
        let Some(folder) = self.media_folder(site) else { return Ok(()) };
        let (ledger, paths) = (Arc::clone(&folder.ledger), paths.map(<[String]>::to_vec));
        let offers = off_the_loop(move || {
            Ok::<_, std::io::Error>(ledger.lock().offers(paths.as_deref(), BATCH))
        });
        let mut refused = Ok(());
        for offer in offers.await.map_err(|error| error.to_string())? {
            let text = serde_json::to_vec(&offer).expect("plain data");
            let request = Request::post(format!("/media/{site}/offer"))
                .body(any_body(Full::new(Bytes::from(text))))
                .expect("a good path");
            let wanted = call(cluster, to, request).await?;
            let wanted: Wanted =
                serde_json::from_slice(&wanted).map_err(|error| error.to_string())?;
            for path in wanted.files {
                match self.send_media(cluster, to, site, &folder, &path).await {
                    // Others may have room still, or another place.
                    Err(error) if error.starts_with("5") => refused = Err(error),
                    sent => sent?,
                }
            }
        }
        refused
    }

    async fn send_media(
        &self,
        cluster: &Cluster,
        to: &NodeName,
        site: &SiteName,
        folder: &Folder,
        path: &str,
    ) -> Result<(), String> {
        // It may have gone or changed meanwhile, which is told next.
        let Ok((mut file, stamp)) = folder.tree.read(path) else { return Ok(()) };
        let version = folder.ledger.lock().file(path).cloned();
        let Some(version) = version.filter(|version| version.stamp() == stamp) else {
            return Ok(());
        };
        let head = Head { path: path.to_owned(), version };
        let mut line = serde_json::to_vec(&head).expect("plain data");
        line.push(b'\n');
        let (sender, pieces) = mpsc::channel::<std::io::Result<Frame<Bytes>>>(4);
        tokio::task::spawn_blocking(move || {
            let send =
                |bytes: Vec<u8>| sender.blocking_send(Ok(Frame::data(Bytes::from(bytes)))).is_ok();
            if !send(line) {
                return;
            }
            loop {
                let mut piece = vec![0; PIECE];
                match std::io::Read::read(&mut file, &mut piece) {
                    Ok(0) => return,
                    Ok(length) => {
                        piece.truncate(length);
                        if !send(piece) {
                            return;
                        }
                    }
                    Err(error) => return drop(sender.blocking_send(Err(error))),
                }
            }
        });
        let request = Request::post(format!("/media/{site}/put"))
            .body(any_body(StreamBody::new(Pieces(pieces))))
            .expect("a good path");
        call(cluster, to, request).await.map(drop)
    }

    /// What this node lacks of what another one offers; what was deleted there goes here.
    pub(super) async fn answer_offer(
        &self,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Some(folder) = self.media_folder(site) else {
            return short(StatusCode::CONFLICT, "the site is not prepared here yet");
        };
        let offer = match whole(request).await {
            Ok(bytes) => serde_json::from_slice::<Offer>(&bytes).map_err(|e| e.to_string()),
            Err(error) => Err(error),
        };
        let offer = match offer {
            Ok(offer) => offer,
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        let looked = off_the_loop(move || {
            let mut heard = Heard::default();
            let done = folder.hear(&offer, now(), &mut heard);
            Ok::<_, std::io::Error>((heard, done))
        });
        let (heard, done) = match looked.await {
            Ok((heard, done)) => (heard, done),
            Err(error) => (Heard::default(), Err(error)),
        };
        self.mind_heard(site, &heard);
        match done {
            Ok(()) => short(StatusCode::OK, serde_json::to_vec(&heard.wanted).expect("plain data")),
            Err(error) => self.refuse_media(site, &error),
        }
    }

    fn refuse_media(&self, site: &SiteName, error: &std::io::Error) -> Response<AnyBody> {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull, WouldBlock};
        if error.kind() != WouldBlock {
            self.complain(site, Some(error));
        }
        let status = match error.kind() {
            StorageFull | QuotaExceeded => FULL,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        short(status, error.to_string())
    }

    /// Takes a file that another node sends.
    pub(super) async fn answer_put(
        &self,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let Some(folder) = self.media_folder(site) else {
            return short(StatusCode::CONFLICT, "the site is not prepared here yet");
        };
        match take(folder, request.into_body()).await {
            Ok(Received::There(heard)) => {
                self.mind_heard(site, &heard);
                self.complain(site, None);
                short(StatusCode::OK, "")
            }
            // It was written while it was sent; its next offer brings it.
            Ok(Received::Not(heard)) => {
                self.mind_heard(site, &heard);
                short(StatusCode::OK, "changed meanwhile")
            }
            Err(error) => self.refuse_media(site, &error),
        }
    }

    /// Waits until another node has what was uploaded to a site so far, in another zone where there is one; whether it has.
    pub async fn commit_media(&self, site: &SiteName, patience: Duration) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let others = self.commit_groups(cluster);
        let mut looks = self.media.looks.subscribe();
        let first = *looks.borrow_and_update();
        let settled = async {
            // Two looks after now have seen everything that was written before.
            while *looks.borrow_and_update() < first + 2 || !self.media.is_committed(site, &others)
            {
                if looks.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, settled).await.is_ok()
    }

    /// The other nodes that are up: whoever is not would only be waited for.
    pub(super) fn others_up(&self, cluster: &Cluster) -> Vec<NodeName> {
        let own = cluster.node();
        let state = self.state.lock();
        state.known.reports.keys().filter(|name| **name != own).cloned().collect()
    }

    /// The same: those of other zones first, then those of ours.
    fn commit_groups(&self, cluster: &Cluster) -> Vec<Vec<NodeName>> {
        let zone = cluster.membership().zone;
        let up = self.others_up(cluster);
        let state = self.state.lock();
        let (near, far): (Vec<_>, Vec<_>) = up
            .into_iter()
            .partition(|name| state.known.nodes.get(name).is_some_and(|node| node.zone == zone));
        vec![far, near]
    }
}

pub(super) async fn call(
    cluster: &Cluster,
    to: &NodeName,
    request: Request<AnyBody>,
) -> Result<Bytes, String> {
    // A large file may take long, but its head does not.
    let answer = tokio::time::timeout(PATIENCE * 30, cluster.client.call(to, request)).await;
    let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), 16 << 20).collect();
    let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| "silence".to_owned())?;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    match status {
        StatusCode::OK => Ok(body),
        _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

/// Bytes of a body for somebody who reads and blocks.
struct Arriving {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl std::io::Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(into.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

async fn take(folder: Folder, mut body: Incoming) -> std::io::Result<Received> {
    let mut front = Vec::new();
    let end = loop {
        if let Some(end) = front.iter().position(|byte| *byte == b'\n') {
            break end;
        }
        if front.len() > HEAD {
            return Err(std::io::Error::other("its first line is too long"));
        }
        match next(&mut body).await? {
            Some(piece) => front.extend_from_slice(&piece),
            None => return Err(std::io::Error::other("it broke off in its first line")),
        }
    };
    let head: Head = serde_json::from_slice(&front[..end])?;
    let rest = Bytes::copy_from_slice(&front[end + 1..]);
    let (sender, pieces) = mpsc::channel(8);
    let putting = tokio::task::spawn_blocking(move || {
        let bytes = Arriving { pieces, piece: rest };
        folder.receive(&head.path, &head.version, bytes, now())
    });
    while let Some(piece) = next(&mut body).await? {
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    putting.await.map_err(std::io::Error::other)?
}

async fn next(body: &mut Incoming) -> std::io::Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        match frame.map_err(std::io::Error::other)? {
            None => return Ok(None),
            Some(Err(error)) => return Err(std::io::Error::other(error)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
