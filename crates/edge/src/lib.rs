//! The HTTP plane of a node: listeners, TLS, routing, page cache, balancing, FastCGI, static files, limits.
//!
//! [`run`] serves on inherited sockets, one runtime per core, from the snapshot that the agent wrote, and asks nobody
//! for anything: it goes on with agent and keeper gone.
//!
//! # Map
//! - Coming in: [`sockets`] inherited listeners · [`core`] a core, its connections · [`connection`] slowness · [`proxy`]
//!   PROXY protocol · [`tls`] certificates · [`client`] who asks · [`host`] which site · [`guard`] a password in front
//! - Deciding: [`view`] snapshots · [`handler`] a request from head to answer · [`route`] what a path means
//! - Answering: [`files`] static files · [`cache`], [`affirm`], [`compress`] the page cache · [`pages`] requests that
//!   need PHP · [`pool`] whose turn it is · [`php`], [`fastcgi`] asking PHP · [`git`] passed on · [`notice`] our own pages · [`body`]
//! - Other nodes: [`mesh`] purges to all edges, requests to another one · [`commit`] uploads that are waited for
//! - Telling: [`access_log`] · [`metrics`] · [`control`] the agent's socket · [`why`] one request explained
//!
//! # What always holds
//! - A request of an unknown host gets no site's content. A path never leaves its site's folders; PHP in uploads never runs.
//! - An instance has at most as many requests as it has workers, over all cores.
//! - Nothing that a client sends is believed about who it is, unless a trusted proxy says it.
//! - A hit takes no lock that another core could hold for long, starts no task, sets no timer.

pub mod access_log;
pub mod affirm;
pub mod author;
pub mod body;
pub mod cache;
pub mod client;
pub mod commit;
pub mod compress;
pub mod connection;
pub mod control;
pub mod core;
pub mod fastcgi;
pub mod files;
pub mod git;
pub mod guard;
pub mod handler;
pub mod host;
pub mod mesh;
pub mod metrics;
pub mod notice;
pub mod pages;
pub mod php;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod sockets;
pub mod tls;
pub mod view;
pub mod watch;
pub mod why;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::{self, Trigger};

use crate::affirm::Affirmations;
use crate::cache::PageCache;
use crate::mesh::Mesh;
use crate::tls::Certificates;
use pressroom_runtime::inherited::Inherited;

/// What an edge needs to start.
#[derive(Debug)]
pub struct Options {
    /// The snapshot (`snapshot/edge.json`).
    pub snapshot: PathBuf,
    /// The agent's socket (`run/edge.sock`).
    pub control: PathBuf,
    /// The edge's own folder (`edge/`).
    pub state: PathBuf,
    /// Listening sockets; see [`pressroom_runtime::inherited`].
    pub sockets: Vec<Inherited>,
    /// How many cores to use; `None`: all.
    pub cores: Option<usize>,
}

/// Why an edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder cannot be used.
    #[error("the edge's folder {path} cannot be used: {error}", path = path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The control socket cannot be listened on.
    #[error("the control socket {path} cannot be listened on: {error}", path = path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No socket to serve on.
    #[error("no listening socket was inherited (LISTEN_FDS with the names `http` or `https`)")]
    NoSockets,
    /// Threads or sockets failed.
    #[error("the edge cannot start: {0}")]
    System(#[from] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What all cores share.
pub struct Shared {
    /// What is served.
    pub view: ArcSwap<view::View>,
    /// Pages.
    pub cache: Arc<PageCache>,
    /// What PHP says.
    pub affirmations: Arc<Affirmations>,
    /// Counters.
    pub metrics: metrics::Metrics,
    /// The access log.
    pub log: access_log::Log,
    /// Where big bodies of unknown length are spooled.
    pub spool: PathBuf,
    /// Certificates.
    pub certificates: Arc<Certificates>,
    /// The way to other edges, in a cluster.
    pub mesh: OnceLock<Arc<Mesh>>,
}

/// Serves until SIGTERM or SIGINT, or until told to drain; then ends in order. Also ends when a core cannot serve any more:
/// a fresh process serves its sockets better than half a one.
pub fn run(options: Options) -> Result<(), Error> {
    raise_open_files();
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let cores = options.cores.unwrap_or_else(all).max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sorted = sockets::sort(options.sockets);
    if sorted.web.is_empty() {
        return Err(Error::NoSockets);
    }
    let shared = share(&options.state, cores)?;
    let mut watch =
        watch::Watch::new(shared.clone(), options.snapshot, &options.state, sorted.affirm);
    let _in_runtime = runtime.enter();
    watch.load();
    let control = control::listen(&options.control)
        .map_err(|error| Error::Control { path: options.control.clone(), error })?;
    let (trigger, listener) = shutdown::pair();
    let trigger = Arc::new(trigger);
    if let Some(socket) = sorted.mesh {
        join_mesh(&shared, socket, &options.state, &trigger)?;
    }
    let dealt = sockets::deal(sorted.web, cores)?;
    let threads = start_cores(&shared, dealt, &trigger)?;
    tracing::info!(cores, generation = shared.view.load().generation, "serving");
    runtime.block_on(async {
        tokio::spawn(control::serve(control, shared.clone(), trigger.clone()));
        tokio::select! {
            () = watch.run() => {}
            signal = shutdown::on_signals(&trigger) => {
                if let Err(error) = signal {
                    tracing::error!(%error, "signals cannot be heard");
                    listener.requested().await;
                }
            }
            () = listener.requested() => {}
        }
        // Affirmations are still heard while requests finish.
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())));
        let _ = joined.await;
        shared.cache.close().await;
    });
    shared.log.close();
    tracing::info!("stopped in order");
    Ok(())
}

/// Opens the way to other edges. Without it this edge serves what it can by itself.
fn join_mesh(
    shared: &Arc<Shared>,
    socket: std::net::TcpListener,
    state: &Path,
    trigger: &Trigger,
) -> Result<(), Error> {
    let view = shared.view.load();
    let Some(cluster) = view.snapshot.as_ref().and_then(|snapshot| snapshot.cluster.as_ref())
    else {
        return Ok(());
    };
    // Until others are heard, and without a mesh for ever.
    shared.cache.trust.set(Some(clock::now()));
    let mesh = match Mesh::open(cluster, state, trigger.listener()) {
        Ok(mesh) => mesh,
        Err(error) => {
            tracing::error!(%error, "other edges are neither heard nor told");
            return Ok(());
        }
    };
    let core = core::Core::for_edges(
        Arc::clone(shared),
        shared.certificates.config()?,
        trigger.listener(),
    );
    shared.cache.tell_others(&mesh);
    // One edge, one mesh.
    let _ = shared.mesh.set(Arc::clone(&mesh));
    // Its thread ends with the trigger; what it has to say to others after that they hear at the next start.
    drop(mesh.start(core, socket)?);
    Ok(())
}

fn share(state: &Path, cores: usize) -> Result<Arc<Shared>, Error> {
    let unusable = |error| Error::State { path: state.to_owned(), error };
    let spool = state.join("spool");
    std::fs::create_dir_all(&spool).map_err(unusable)?;
    let config =
        cache::Config { limit: 64 << 20, page_limit: 8 << 20, state: Some(state.to_owned()) };
    let pages = PageCache::new(&config).map_err(unusable)?;
    Ok(Arc::new(Shared {
        view: ArcSwap::from_pointee(view::View::default()),
        affirmations: Affirmations::new(pages.clone()),
        cache: pages,
        metrics: metrics::Metrics::new(cores),
        log: access_log::Log::start(cores)?,
        spool,
        certificates: Arc::default(),
        mesh: OnceLock::new(),
    }))
}

type Dealt = Vec<Vec<(client::Scheme, std::net::TcpListener)>>;

fn start_cores(
    shared: &Arc<Shared>,
    dealt: Dealt,
    trigger: &Arc<Trigger>,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let tls = shared.certificates.config()?;
    let mut threads = Vec::new();
    for (number, sockets) in dealt.into_iter().enumerate() {
        let (shared, tls) = (shared.clone(), tls.clone());
        let ends = EndsAll(trigger.clone());
        let serve = move || {
            // Dropped however this thread ends, also by a panic.
            let ends = ends;
            let shutdown = ends.0.listener();
            if let Err(error) = core::run(shared, number, sockets, tls, shutdown) {
                tracing::error!(%error, core = number, "a core cannot serve");
            }
        };
        threads.push(std::thread::Builder::new().name(format!("edge-{number}")).spawn(serve)?);
    }
    Ok(threads)
}

/// Ends the whole edge when its core ends; after an ordered stop that changes nothing.
struct EndsAll(Arc<Trigger>);

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.0.fire("a core stopped serving");
    }
}

/// A connection is an open file; we may have as many as the machine allows us.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
