//! Keeps the view up to date: the snapshot's file, the certificates' files, the affirmation sockets.
//!
//! Always: a bad snapshot is logged once and changes nothing. The last good one is kept in the edge's own folder, so an
//! edge that starts while the agent is away, or beside a broken file, still serves.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inotify::{Inotify, WatchMask};
use pressroom_model::id::SiteName;
use pressroom_model::snapshot::Snapshot;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::Shared;
use crate::view;

/// What a file looked like.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Watches.
pub struct Watch {
    shared: Arc<Shared>,
    path: PathBuf,
    kept: PathBuf,
    stamp: Stamp,
    sockets: HashMap<String, UnixListener>,
    listening: HashMap<String, Listening>,
}

/// Whom we hear on a socket.
struct Listening {
    site: SiteName,
    uid: u32,
    task: JoinHandle<()>,
}

impl Watch {
    /// For a snapshot's file; `state` is the edge's folder.
    pub fn new(
        shared: Arc<Shared>,
        path: PathBuf,
        state: &Path,
        sockets: Vec<(String, UnixListener)>,
    ) -> Self {
        let kept = state.join("snapshot.json");
        Self {
            shared,
            path,
            kept,
            stamp: None,
            sockets: sockets.into_iter().collect(),
            listening: HashMap::new(),
        }
    }

    /// The first load: the agent's file, or the kept one.
    pub fn load(&mut self) {
        self.stamp = stamp(&self.path);
        match view::read(&self.path) {
            Ok((snapshot, bytes)) => self.take(snapshot, Some(&bytes)),
            Err(error) => match view::read(&self.kept) {
                Ok((snapshot, _)) => {
                    tracing::error!(%error, "serving from the last good snapshot");
                    self.take(snapshot, None);
                }
                Err(_) => {
                    tracing::error!(%error, "there is no snapshot yet; every request is answered 503");
                }
            },
        }
    }

    /// Watches for ever.
    pub async fn run(&mut self) {
        let events = self.path.parent().and_then(watch);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            let told = async {
                match &events {
                    Some(changed) => changed.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = told => {}
                _ = ticks.tick() => {
                    let view = self.shared.view.load_full();
                    if let Some(snapshot) = &view.snapshot {
                        self.shared.certificates.refresh(snapshot);
                    }
                }
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let now = stamp(&self.path);
        if now == self.stamp || now.is_none() {
            return;
        }
        self.stamp = now;
        match view::read(&self.path) {
            Ok((snapshot, bytes)) => self.take(snapshot, Some(&bytes)),
            Err(error) => {
                tracing::error!(%error, "the new snapshot cannot be used; serving the last good one");
            }
        }
    }

    fn take(&mut self, snapshot: Snapshot, bytes: Option<&[u8]>) {
        let last = self.shared.view.load_full();
        let log_before = last.snapshot.as_ref().and_then(|s| s.access_log.clone());
        self.shared.certificates.refresh(&snapshot);
        let view = view::build(snapshot, &last, &self.shared.cache);
        let log = view.snapshot.as_ref().and_then(|s| s.access_log.clone());
        if log != log_before {
            self.shared.log.configure(log.as_ref());
        }
        tracing::info!(
            generation = view.generation,
            sites = view.sites.len(),
            "serving a snapshot"
        );
        self.listen(&view);
        let cluster = view.snapshot.as_ref().and_then(|snapshot| snapshot.cluster.as_ref());
        if let (Some(mesh), Some(cluster)) = (self.shared.mesh.get(), cluster) {
            mesh.update(cluster);
        }
        self.shared.view.store(Arc::new(view));
        if let Some(bytes) = bytes
            && let Err(error) = keep(&self.kept, bytes)
        {
            tracing::warn!(%error, "the snapshot could not be kept for the next start");
        }
    }

    /// Hears PHP of every site on the socket that it was given. A socket may have been another site's before.
    fn listen(&mut self, view: &view::View) {
        self.listening.retain(|name, listening| {
            let is_whose = |site: &&Arc<view::Site>| {
                site.model.affirm_listener == *name
                    && site.model.name == listening.site
                    && site.model.affirm_uid == listening.uid
            };
            let is_wanted =
                view.sites.iter().any(|site| is_whose(&site)) && !listening.task.is_finished();
            if !is_wanted {
                listening.task.abort();
            }
            is_wanted
        });
        for site in &view.sites {
            let name = &site.model.affirm_listener;
            if self.listening.contains_key(name) {
                continue;
            }
            let Some(socket) = self.sockets.get(name) else {
                tracing::warn!(site = %site.model.name, name, "no affirmation socket was inherited: its pages cannot be stored");
                continue;
            };
            match socket.try_clone() {
                Ok(socket) => {
                    let listening = self.hear(site, socket);
                    self.listening.insert(name.clone(), listening);
                }
                Err(error) => tracing::error!(%error, name, "an affirmation socket cannot be used"),
            }
        }
    }

    fn hear(&self, site: &view::Site, socket: UnixListener) -> Listening {
        let (affirmations, cached) = (self.shared.affirmations.clone(), site.cached.clone());
        let uid = site.model.affirm_uid;
        let task = tokio::spawn(async move {
            if let Err(error) = affirmations.serve(cached, uid, socket).await {
                tracing::error!(%error, "an affirmation socket cannot be served");
            }
        });
        Listening { site: site.model.name.clone(), uid, task }
    }
}

/// Tells of every change in a folder, whatever it was. The thread waits in the kernel, and ends with the process.
fn watch(folder: &Path) -> Option<Arc<Notify>> {
    let mut inotify = Inotify::init().ok()?;
    inotify.watches().add(folder, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE).ok()?;
    let changed = Arc::new(Notify::new());
    let tell = changed.clone();
    let wait = move || {
        let mut buffer = [0; 4096];
        while inotify.read_events_blocking(&mut buffer).is_ok() {
            tell.notify_one();
        }
    };
    std::thread::Builder::new().name("snapshot-watch".into()).spawn(wait).ok()?;
    Some(changed)
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}
