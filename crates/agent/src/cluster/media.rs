//! Uploads on every node. What changes in a media folder here is offered to all other nodes at once; what they lack is sent.
//!
//! Each node tells of its own changes, so nobody decides and nobody is needed: an upload goes from the node that has it to all
//! that are up, and to the others when they are back. A node that is new, or an agent that has just begun, is offered everything
//! once. What was deleted is told with its time, and remembered for a week.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use pressroom_media::exchange::{Offer, Stamp, Wanted, goes, is_wanted};
use pressroom_media::tree::{Tree, is_good};
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
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::files;

/// How long a look at the folders waits for something.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks which sites there are.
const SITES: Duration = Duration::from_millis(500);
/// So many files are offered at a time.
const BATCH: usize = 2000;
/// More changes than that for a node that is away: it is offered everything later.
const MOST: usize = 100_000;
/// How long it is remembered that a file was deleted.
const REMEMBERED: i64 = 7 * 86_400 * 1_000_000_000;
/// A node that is silent for so long is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
/// Bytes of a file that are sent at a time.
const PIECE: usize = 256 << 10;
/// The first line of a file that is sent.
const HEAD: usize = 16 << 10;

type Files = BTreeMap<String, (u64, i64)>;
type Deleted = BTreeMap<SiteName, BTreeMap<String, i64>>;

/// What there is to tell a node.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeSet<(SiteName, String)>,
    /// Everything of these sites.
    whole: BTreeSet<SiteName>,
}

/// What a node knows of its media and has to tell of them.
#[derive(Debug)]
pub struct Media {
    pending: Mutex<BTreeMap<NodeName, Pending>>,
    /// The files as they were seen last, by size and time.
    known: Mutex<BTreeMap<SiteName, Files>>,
    deleted: Mutex<Deleted>,
    wake: Notify,
    /// Raised by every look at the folders.
    looks: watch::Sender<u64>,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            pending: Mutex::default(),
            known: Mutex::default(),
            deleted: Mutex::default(),
            wake: Notify::new(),
            looks: watch::Sender::new(0),
        }
    }
}

/// What is sent before a file's bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    path: String,
    stamp: Stamp,
}

fn now() -> i64 {
    i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX / 1_000_000) * 1_000_000
}

impl Media {
    /// A file changed, or may have: it is told to all.
    fn changed(&self, site: &SiteName, tree: &Tree, path: &str) {
        if !is_good(path) {
            return;
        }
        let stamp = tree.stamp(path).ok().flatten();
        let seen = stamp.map(|stamp| (stamp.size, stamp.mtime));
        {
            let mut known = self.known.lock();
            let files = known.entry(site.clone()).or_default();
            let before = match seen {
                Some(seen) => files.insert(path.to_owned(), seen),
                None => files.remove(path),
            };
            // As another node brought it, or as it was.
            if before == seen {
                return;
            }
        }
        {
            let mut deleted = self.deleted.lock();
            let gone = deleted.entry(site.clone()).or_default();
            match seen {
                Some(_) => drop(gone.remove(path)),
                None => drop(gone.insert(path.to_owned(), now())),
            }
        }
        for pending in self.pending.lock().values_mut() {
            if pending.files.len() >= MOST {
                pending.whole.insert(site.clone());
            } else {
                pending.files.insert((site.clone(), path.to_owned()));
            }
        }
    }

    /// Anything below a path may have changed.
    fn changed_below(&self, site: &SiteName, tree: &Tree, front: &str) {
        let Ok(files) = tree.list() else { return };
        let is_below = |path: &String| {
            front.is_empty() || path.strip_prefix(front).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut paths: BTreeSet<String> = files.into_keys().filter(|path| is_below(path)).collect();
        if let Some(known) = self.known.lock().get(site) {
            paths.extend(known.keys().filter(|path| is_below(path)).cloned());
        }
        for path in paths {
            self.changed(site, tree, &path);
        }
    }

    /// Whether other nodes have everything of a site; one of another zone is enough, where there is one.
    fn is_committed(&self, site: &SiteName, others: &[Vec<NodeName>]) -> bool {
        let pending = self.pending.lock();
        let has = |node: &NodeName| {
            pending.get(node).is_some_and(|pending| {
                !pending.whole.contains(site) && pending.files.iter().all(|(of, _)| of != site)
            })
        };
        others.iter().find(|group| !group.is_empty()).is_none_or(|group| group.iter().any(has))
    }
}

impl Agent {
    fn media_tree(&self, site: &SiteName) -> Option<Tree> {
        let user = self.users.site(site).ok()?;
        let root = self.layout.uploads(site);
        root.is_dir().then(|| Tree::new(root, user.map(|user| (user.uid, user.gid))))
    }

    fn media_sites(&self) -> Vec<SiteName> {
        let config = self.config();
        config.into_iter().flat_map(|config| config.sites).map(|site| site.name).collect()
    }

    /// Keeps the media equal for as long as the agent runs.
    pub(crate) async fn keep_media(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let path = self.layout.cluster().join("media-deleted.json");
        let kept = std::fs::read(&path).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<Deleted>(&bytes).ok());
        *cluster.media.deleted.lock() = kept.unwrap_or_default();
        let group = Group::new("media", shutdown.clone());
        let (watching, of) = (Arc::clone(&self), Arc::clone(&cluster));
        group.spawn("watch", move |stop| async move {
            let watched = tokio::task::spawn_blocking(move || watching.watch_media(&of, &stop));
            match watched.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "media folders cannot be watched"),
                Err(error) => tracing::error!(%error, "the watch of media folders has ended"),
            }
        });
        let mut running: BTreeMap<NodeName, Group> = BTreeMap::new();
        let mut written = None;
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
                cluster.media.pending.lock().remove(&node);
            }
            for node in others {
                if running.contains_key(&node) {
                    continue;
                }
                let whole = self.media_sites().into_iter().collect();
                let pending = Pending { files: BTreeSet::new(), whole };
                cluster.media.pending.lock().insert(node.clone(), pending);
                let group = Group::new("media to a node", shutdown.clone());
                let (agent, of, to) = (Arc::clone(&self), Arc::clone(&cluster), node.clone());
                group.spawn(node.as_str(), move |stop| agent.tell_media(of, to, stop));
                running.insert(node, group);
            }
            written = self.keep_deleted(&cluster, &path, written);
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
        for group in running.into_values().chain([group]) {
            group.finish(PAUSE).await;
        }
    }

    /// Keeps on disk what was deleted, where that is news.
    fn keep_deleted(
        &self,
        cluster: &Cluster,
        path: &std::path::Path,
        written: Option<Deleted>,
    ) -> Option<Deleted> {
        let deleted = {
            let mut deleted = cluster.media.deleted.lock();
            let oldest = now() - REMEMBERED;
            deleted.values_mut().for_each(|gone| gone.retain(|_, at| *at > oldest));
            deleted.clone()
        };
        if written.as_ref() == Some(&deleted) {
            return written;
        }
        let text = serde_json::to_vec(&deleted).expect("plain data");
        match files::write(path, &text, 0o600, None) {
            Ok(_) => Some(deleted),
            Err(error) => {
                tracing::warn!(%error, "it cannot be kept which media were deleted");
                None
            }
        }
    }

    /// Sees what changes, until shutdown. Blocks.
    fn watch_media(&self, cluster: &Cluster, stop: &Shutdown) -> std::io::Result<()> {
        let media = &cluster.media;
        let mut watch: Watch<SiteName> = Watch::new()?;
        let (mut sites, mut due) = (Vec::new(), clock::now());
        while !stop.is_requested() {
            if clock::now() >= due {
                (sites, due) = (self.media_sites(), clock::now() + SITES);
            }
            watch.retain(|site| sites.contains(site));
            for site in &sites {
                let Some(tree) = self.media_tree(site).filter(|_| !watch.watches(site)) else {
                    continue;
                };
                if let Err(error) = watch.add(site, tree.root()) {
                    tracing::warn!(%site, %error, "its media cannot be watched; they are looked at again");
                    continue;
                }
                let files = tree.list()?;
                let files = files.into_iter().map(|(path, it)| (path, (it.size, it.mtime)));
                media.known.lock().insert(site.clone(), files.collect());
                for pending in media.pending.lock().values_mut() {
                    pending.whole.insert(site.clone());
                }
                media.wake.notify_waiters();
            }
            let seen = watch.next(LOOK)?;
            let is_news = !seen.is_empty();
            for one in seen {
                match one {
                    Seen::File(site, path) => {
                        if let Some(tree) = self.media_tree(&site) {
                            media.changed(&site, &tree, &path);
                        }
                    }
                    Seen::Below(site, path) => {
                        if let Some(tree) = self.media_tree(&site) {
                            media.changed_below(&site, &tree, &path);
                        }
                    }
                    Seen::Everything => {
                        for site in &sites {
                            if let Some(tree) = self.media_tree(site) {
                                media.changed_below(site, &tree, "");
                            }
                        }
                    }
                }
            }
            media.looks.send_modify(|looks| *looks += 1);
            if is_news {
                media.wake.notify_waiters();
            }
        }
        Ok(())
    }

    /// Tells one node of what changed, until shutdown.
    async fn tell_media(self: Arc<Self>, cluster: Arc<Cluster>, to: NodeName, stop: Shutdown) {
        while !stop.is_requested() {
            let woken = cluster.media.wake.notified();
            let mut woken = std::pin::pin!(woken);
            woken.as_mut().enable();
            let told = tokio::select! {
                () = stop.requested() => return,
                told = self.tell_media_once(&cluster, &to) => told,
            };
            match told {
                Ok(true) => {}
                Ok(false) => {
                    tokio::select! { () = stop.requested() => {}, () = woken => {}, () = tokio::time::sleep(PAUSE * 10) => {} }
                }
                Err(error) => {
                    tracing::debug!(node = %to, error, "media wait for a node");
                    tokio::select! { () = stop.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
                }
            }
        }
    }

    /// Tells what there is to tell of one site; whether there was anything.
    async fn tell_media_once(&self, cluster: &Cluster, to: &NodeName) -> Result<bool, String> {
        let taken = {
            let mut pending = cluster.media.pending.lock();
            let Some(pending) = pending.get_mut(to) else { return Ok(false) };
            if let Some(site) = pending.whole.first().cloned() {
                pending.files.retain(|(of, _)| *of != site);
                Some((site, None))
            } else if let Some((site, _)) = pending.files.first().cloned() {
                let own = pending.files.iter().filter(|(of, _)| *of == site).take(BATCH);
                let paths: Vec<String> = own.map(|(_, path)| path.clone()).collect();
                Some((site, Some(paths)))
            } else {
                None
            }
        };
        let Some((site, paths)) = taken else { return Ok(false) };
        let told = self.offer_media(cluster, to, &site, paths.as_deref()).await;
        let mut pending = cluster.media.pending.lock();
        if let Some(pending) = pending.get_mut(to) {
            match (&told, paths) {
                (Ok(()), Some(paths)) => {
                    for path in paths {
                        pending.files.remove(&(site.clone(), path));
                    }
                }
                (Ok(()), None) => drop(pending.whole.remove(&site)),
                (Err(_), _) => {}
            }
        }
        drop(pending);
        // Whoever waits for a commit looks again.
        cluster.media.looks.send_modify(|looks| *looks += 1);
        told.map(|()| true)
    }

    async fn offer_media(
        &self,
        cluster: &Cluster,
        to: &NodeName,
        site: &SiteName,
        paths: Option<&[String]>,
    ) -> Result<(), String> {
        let Some(tree) = self.media_tree(site) else { return Ok(()) };
        let gone = cluster.media.deleted.lock().get(site).cloned().unwrap_or_default();
        let paths = paths.map(<[String]>::to_vec);
        let offered = tree.clone();
        let offer = off_the_loop(move || {
            let files = match &paths {
                None => offered.list()?,
                Some(paths) => {
                    let mut files = BTreeMap::new();
                    for path in paths {
                        if let Some(stamp) = offered.stamp(path)? {
                            files.insert(path.clone(), stamp);
                        }
                    }
                    files
                }
            };
            let is_told = |path: &String| paths.as_ref().is_none_or(|paths| paths.contains(path));
            let deleted = gone.into_iter().filter(|(path, _)| is_told(path)).collect();
            Ok::<_, std::io::Error>(Offer { files, deleted })
        });
        let offer = offer.await.map_err(|error| error.to_string())?;
        let all: Vec<(String, Stamp)> = offer.files.into_iter().collect();
        let mut deleted = Some(offer.deleted);
        let mut batches: Vec<&[(String, Stamp)]> = all.chunks(BATCH).collect();
        if batches.is_empty() {
            batches.push(&[]);
        }
        for batch in batches {
            let files = batch.iter().cloned().collect();
            let offer = Offer { files, deleted: deleted.take().unwrap_or_default() };
            let text = serde_json::to_vec(&offer).expect("plain data");
            let request = Request::post(format!("/media/{site}/offer"))
                .body(any_body(Full::new(Bytes::from(text))))
                .expect("a good path");
            let wanted = call(cluster, to, request).await?;
            let wanted: Wanted =
                serde_json::from_slice(&wanted).map_err(|error| error.to_string())?;
            for path in wanted.files {
                self.send_media(cluster, to, site, &tree, &path).await?;
            }
        }
        Ok(())
    }

    async fn send_media(
        &self,
        cluster: &Cluster,
        to: &NodeName,
        site: &SiteName,
        tree: &Tree,
        path: &str,
    ) -> Result<(), String> {
        // It may have gone meanwhile, which is told next.
        let Ok((mut file, stamp)) = tree.read(path) else { return Ok(()) };
        let head = Head { path: path.to_owned(), stamp };
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
        let (Some(cluster), Some(tree)) = (&self.cluster, self.media_tree(site)) else {
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
        let own_deleted = cluster.media.deleted.lock().get(site).cloned().unwrap_or_default();
        let (offered, gone) = (offer.files, offer.deleted);
        let told = gone.clone();
        let looked = off_the_loop(move || {
            let mut wanted = Wanted::default();
            for (path, stamp) in offered.iter().filter(|(path, _)| is_good(path)) {
                let own = tree.stamp(path)?;
                if is_wanted(*stamp, own, own_deleted.get(path).copied()) {
                    wanted.files.push(path.clone());
                }
            }
            let mut went = Vec::new();
            for (path, at) in gone.iter().filter(|(path, _)| is_good(path)) {
                if tree.stamp(path)?.is_some_and(|own| goes(own, *at)) {
                    tree.delete(path)?;
                    went.push(path.clone());
                }
            }
            Ok::<_, std::io::Error>((wanted, went))
        });
        match looked.await {
            Ok((wanted, went)) => {
                let mut known = cluster.media.known.lock();
                let files = known.entry(site.clone()).or_default();
                for path in went {
                    files.remove(&path);
                }
                drop(known);
                let mut deleted = cluster.media.deleted.lock();
                let gone = deleted.entry(site.clone()).or_default();
                for (path, at) in told {
                    let is_back = wanted.files.contains(&path);
                    let own = gone.entry(path).or_insert(at);
                    if !is_back {
                        *own = (*own).max(at);
                    }
                }
                short(StatusCode::OK, serde_json::to_vec(&wanted).expect("plain data"))
            }
            Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Takes a file that another node sends.
    pub(super) async fn answer_put(
        &self,
        site: &SiteName,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let (Some(cluster), Some(tree)) = (&self.cluster, self.media_tree(site)) else {
            return short(StatusCode::CONFLICT, "the site is not prepared here yet");
        };
        match take(tree, cluster, site, request.into_body()).await {
            Ok(true) => short(StatusCode::OK, ""),
            // It was written while it was sent; its next offer brings it.
            Ok(false) => short(StatusCode::OK, "changed meanwhile"),
            Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Waits until another node has what was uploaded to a site so far, in another zone where there is one; whether it has.
    pub async fn commit_media(&self, site: &SiteName, patience: Duration) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let others = self.commit_groups(cluster);
        let mut looks = cluster.media.looks.subscribe();
        let first = *looks.borrow_and_update();
        let settled = async {
            // Two looks after now have seen everything that was written before.
            while *looks.borrow_and_update() < first + 2
                || !cluster.media.is_committed(site, &others)
            {
                if looks.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, settled).await.is_ok()
    }

    /// The nodes that are up: those of other zones first, then those of ours.
    fn commit_groups(&self, cluster: &Cluster) -> Vec<Vec<NodeName>> {
        let own = cluster.membership();
        let state = self.state.lock();
        let up = state.known.reports.keys().filter(|name| **name != own.node);
        let (near, far): (Vec<_>, Vec<_>) = up.cloned().partition(|name| {
            state.known.nodes.get(name).is_some_and(|node| node.zone == own.zone)
        });
        vec![far, near]
    }
}

async fn call(
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

async fn take(
    tree: Tree,
    cluster: &Cluster,
    site: &SiteName,
    mut body: Incoming,
) -> std::io::Result<bool> {
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
    let (path, stamp) = (head.path.clone(), head.stamp);
    let putting = tokio::task::spawn_blocking(move || {
        tree.put(&path, stamp, Arriving { pieces, piece: rest })
    });
    while let Some(piece) = next(&mut body).await? {
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let is_there = putting.await.map_err(std::io::Error::other)??.is_some();
    if is_there {
        let mut known = cluster.media.known.lock();
        let files = known.entry(site.clone()).or_default();
        files.insert(head.path.clone(), (stamp.size, stamp.mtime));
        drop(known);
        let mut deleted = cluster.media.deleted.lock();
        if let Some(gone) = deleted.get_mut(site) {
            gone.remove(&head.path);
        }
    }
    Ok(is_there)
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
