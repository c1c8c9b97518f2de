//! What the edge serves from: a snapshot, and what is made of it.
//!
//! Always: a snapshot that cannot be read changes nothing. What a site has at run time (its pool, its open folders, its
//! place in the cache) survives a new snapshot in which it is the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pressroom_model::id::{InstanceId, SiteName};
use pressroom_model::snapshot::{self, Backend, Snapshot};

use crate::cache::{self, PageCache};
use crate::client::Trusted;
use crate::files::library::Library;
use crate::host::Hosts;
use crate::pool::Pool;

/// One site, ready to serve.
pub struct Site {
    /// As in the snapshot.
    pub model: snapshot::Site,
    /// Its workers.
    pub pool: Arc<Pool>,
    /// Where changes of code are made, if anywhere.
    pub author: Option<Arc<Author>>,
    /// Its files.
    pub library: Arc<Library>,
    /// Files of its former releases, the last one first.
    pub former: Vec<Arc<Library>>,
    /// Its place in the cache.
    pub cached: Arc<cache::Site>,
}

/// A site's author instance. Behind each of the two sockets the agent takes turns; here nothing is counted.
pub struct Author {
    /// As in the snapshot.
    pub model: snapshot::Author,
    /// Requests that change code.
    pub change: Arc<Pool>,
    /// Requests that those make to their own site.
    pub loopback: Arc<Pool>,
}

/// So many requests may wait at the author's sockets at a time.
const AUTHOR_REQUESTS: u16 = 64;

impl Author {
    fn of(model: &snapshot::Author, site: &SiteName) -> Self {
        let pool = |socket: &PathBuf| {
            let pool = Arc::new(Pool::default());
            let id = InstanceId::of(site, 0);
            let backend =
                Backend { id, socket: socket.clone(), workers: AUTHOR_REQUESTS, draining: false };
            pool.update(&[backend], u32::from(AUTHOR_REQUESTS));
            pool
        };
        let (change, loopback) = (pool(&model.change), pool(&model.loopback));
        Self { model: model.clone(), change, loopback }
    }
}

/// Everything at one generation.
#[derive(Default)]
pub struct View {
    /// The snapshot's number.
    pub generation: u64,
    /// The snapshot, once there is one.
    pub snapshot: Option<Snapshot>,
    /// Sites by host.
    pub hosts: Hosts<Arc<Site>>,
    /// All sites.
    pub sites: Vec<Arc<Site>>,
    /// Proxies that are believed.
    pub trusted: Trusted,
}

impl View {
    /// A site by name.
    pub fn site(&self, name: &str) -> Option<&Arc<Site>> {
        self.sites.iter().find(|s| s.model.name.as_str() == name)
    }
}

/// Makes the view of a snapshot, keeping what the last one had.
pub fn build(snapshot: Snapshot, last: &View, cache: &Arc<PageCache>) -> View {
    let (trusted, bad) = Trusted::new(&snapshot.trusted_proxies);
    if !bad.is_empty() {
        tracing::warn!(?bad, "these are no address blocks; they are not trusted");
    }
    cache.set_limit(snapshot.cache_size.get());
    let mut view = View { generation: snapshot.generation, trusted, ..View::default() };
    for model in &snapshot.sites {
        let site = Arc::new(site(model, last, cache));
        for domain in &model.domains {
            view.hosts.add(domain, site.clone());
        }
        view.sites.push(site);
    }
    cache.retain_sites(|name| snapshot.sites.iter().any(|s| s.name == *name));
    view.snapshot = Some(snapshot);
    view
}

fn site(model: &snapshot::Site, last: &View, cache: &Arc<PageCache>) -> Site {
    let before = last.site(model.name.as_str());
    let pool = before.map_or_else(|| Arc::new(Pool::default()), |s| s.pool.clone());
    pool.update(&model.pool, model.limits.queue);
    let author = model.author.as_ref().map(|author| {
        let known = before.and_then(|site| site.author.as_ref());
        let same = known.filter(|known| known.model == *author).cloned();
        same.unwrap_or_else(|| Arc::new(Author::of(author, &model.name)))
    });
    let same = before.filter(|s| {
        (&s.model.root, &s.model.uploads, &s.model.release)
            == (&model.root, &model.uploads, &model.release)
    });
    let library = same.map_or_else(
        || Arc::new(Library::open(&model.root, &model.uploads)),
        |s| s.library.clone(),
    );
    let known = |root: &PathBuf| {
        let before = before?;
        let at = before.model.former.iter().position(|former| former == root);
        at.and_then(|at| before.former.get(at))
            .or((before.model.root == *root).then_some(&before.library))
    };
    let former = model.former.iter().map(|root| {
        known(root).cloned().unwrap_or_else(|| Arc::new(Library::open(root, &model.uploads)))
    });
    let former = former.collect();
    let cached = cache.site(&model.name, &model.cache, model.release.as_str(), cache::now());
    Site { model: model.clone(), pool, author, library, former, cached }
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{path} cannot be read: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no snapshot.
    #[error("{path} is no snapshot: {error}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

/// Reads a snapshot.
pub fn read(path: &Path) -> Result<(Snapshot, Vec<u8>), Unusable> {
    let bytes =
        std::fs::read(path).map_err(|error| Unusable::Read { path: path.to_owned(), error })?;
    let snapshot = serde_json::from_slice(&bytes)
        .map_err(|error| Unusable::Parse { path: path.to_owned(), error })?;
    Ok((snapshot, bytes))
}
