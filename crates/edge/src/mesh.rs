//! Edge to edge: purges reach every node, and what this node cannot answer by itself another one is asked for.
//!
//! - [`purges`] each edge's stream of purges, sent to all others, with their receipts; [`horizon`] who knows which of them
//! - [`passing`] whole requests to another edge: for the author instance, for media that is not here yet, past the cache where PHP
//!   here is busy or none
//! - [`rendering`] pages for the cache, asked of their owner ([`owner`]) first
//! - [`peers`] what is known of the other edges: [`health`], how busy they are; [`choice`] who is asked, [`budget`] how often again
//! - [`company`] which of them are heard, and whether they are enough to trust what is stored here
//! - `reunion` what visitors wait for when a cut is healed
//! - `serve` what other edges ask of us
//!
//! Everything goes over HTTP/2 with mutual TLS ([`pressroom_wire`]), on threads of its own, and needs neither agent nor store.
//!
//! Always: what an edge was asked by another one it does not ask a third. The headers between edges ([`passing::KIND`] and its kin) mean
//! something on these connections alone; a visitor's are thrown away.

pub mod budget;
pub mod choice;
pub mod company;
pub mod health;
pub mod horizon;
pub mod owner;
pub mod passing;
pub mod peers;
pub mod purges;
pub mod rendering;
mod reunion;
mod serve;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use pressroom_model::id::NodeName;
use pressroom_model::snapshot;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_wire::WireError;
use pressroom_wire::http::Client;
use pressroom_wire::identity::{Fingerprint, Identity, Paths};
use pressroom_wire::members::{Member, Members, Register, Service};
use pressroom_wire::tls::Wire;

use crate::Shared;
use crate::core::Core;
use crate::mesh::choice::Place;
use crate::mesh::passing::Kind;
use crate::view::Site;

/// Name of the socket that other edges connect to.
pub const SOCKET: &str = "mesh";

/// The way to other edges.
pub struct Mesh {
    /// This node.
    pub node: NodeName,
    pub(crate) client: Client,
    pub(crate) outbox: Arc<purges::Outbox>,
    pub(crate) inbox: purges::Inbox,
    /// The other edges.
    pub peers: peers::Peers,
    /// Which of them are heard.
    pub company: company::Company,
    reunion: reunion::Reunion,
    wire: Wire,
    /// Where the agent puts it, also when it was renewed.
    identity: Paths,
    zones: RwLock<BTreeMap<NodeName, String>>,
    group: Group,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The nodes of a view, as wire knows them.
fn members(cluster: &snapshot::Cluster) -> Members {
    let member = |peer: &snapshot::Peer| Member {
        address: peer.address,
        port: peer.port,
        zone: peer.zone.clone(),
        keys: peer.keys.iter().filter_map(|key| Fingerprint::written(key)).collect(),
    };
    cluster.peers.iter().map(|peer| (peer.node.clone(), member(peer))).collect()
}

fn identity(cluster: &snapshot::Cluster) -> Paths {
    let [chain, key, authority] = cluster.identity.clone();
    Paths { chain, key, authority }
}

impl Mesh {
    /// For a node of this cluster; `state` is the edge's own folder.
    pub fn open(
        cluster: &snapshot::Cluster,
        state: &Path,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, WireError> {
        let identity = identity(cluster);
        let wire = Wire::new(Identity::read(&identity)?, Register::new(members(cluster)));
        let group = Group::new("mesh", shutdown);
        let client = Client::new(wire.clone(), Service::Edge, group.clone());
        let mesh = Self {
            node: cluster.node.clone(),
            client,
            outbox: Arc::new(purges::Outbox::open(&state.join("purges.json"))),
            inbox: purges::Inbox::open(&state.join("heard.json")),
            peers: peers::Peers::new(cluster.health.clone()),
            company: company::Company::new(),
            reunion: reunion::Reunion::default(),
            wire,
            identity,
            zones: RwLock::new(zones(cluster)),
            group,
        };
        mesh.peers.update(&mesh.others(), &cluster.health);
        Ok(Arc::new(mesh))
    }

    /// Takes over who is in the cluster now.
    pub fn update(&self, cluster: &snapshot::Cluster) {
        self.wire.members.set(members(cluster));
        *self.zones.write() = zones(cluster);
        self.peers.update(&self.others(), &cluster.health);
    }

    /// All other nodes, those of our own zone first.
    pub fn others(&self) -> Vec<NodeName> {
        let zones = self.zones.read();
        let own = zones.get(&self.node);
        let mut others: Vec<_> = zones.iter().filter(|(node, _)| **node != self.node).collect();
        others.sort_by_key(|(_, zone)| Some(*zone) != own);
        others.into_iter().map(|(node, _)| node.clone()).collect()
    }

    /// Counts the other edges that are there, and notes until when what is stored here is trusted.
    fn review(&self, shared: &Shared) -> company::Quorum {
        let (quorum, trusted) = self.company.review(&self.others());
        shared.cache.trust.set(trusted);
        quorum
    }

    /// The places where PHP may be asked for something of a site, the best first. Where a page may be stored, the edge that owns it
    /// comes before all others. What another edge asked of us is for PHP of this node; a page's owner may look for help.
    pub fn places(&self, site: &Site, passed: Option<Kind>, page: Option<&str>) -> Vec<Place> {
        if site.model.remote.is_empty() || !matches!(passed, None | Some(Kind::Render)) {
            return vec![Place::Here];
        }
        let page = page.filter(|_| passed.is_none());
        let zones = self.zones.read();
        let own = zones.get(&self.node);
        let is_near = |node: &NodeName| zones.get(node) == own;
        let there = self.peers.there(&site.model.name, &site.model.remote, is_near);
        let here = peers::here(&site.pool);
        let mut places = choice::places(here, &there);
        if let Some(owner) = page.and_then(|page| self.owner(page, here, &there)) {
            places.retain(|place| *place != Place::There(owner.clone()));
            places.insert(0, Place::Owner(owner));
        }
        if !places.contains(&Place::Here) {
            // It waits for a worker to come, as on a machine that is alone.
            places.push(Place::Here);
        }
        places
    }

    /// Who owns a page, where that is another edge.
    fn owner(&self, page: &str, here: choice::Here, there: &[choice::There]) -> Option<NodeName> {
        let own = (here.workers > 0).then_some(&self.node);
        let others = there.iter().filter(|it| it.is_up).map(|it| &it.node);
        let owner = owner::owner(page, others.chain(own))?;
        (*owner != self.node).then(|| owner.clone())
    }

    /// The purges that an answer must know to be stored here. To be asked for after the site's purge position was noted.
    pub(crate) fn horizon_begun(&self) -> horizon::Horizon {
        let mut horizon = self.inbox.horizon_begun();
        horizon.0.insert(self.node.clone(), self.outbox.place());
        horizon
    }

    /// Starts the thread that serves other edges and sends to them; returns when what was missed has been heard, or cannot be.
    pub fn start(
        self: &Arc<Self>,
        core: Arc<Core>,
        socket: std::net::TcpListener,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let mesh = Arc::clone(self);
        socket.set_nonblocking(true)?;
        let (caught_up, waiting) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("edge-mesh".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(mesh.run(core, socket, caught_up)),
                Err(error) => tracing::error!(%error, "other edges are neither heard nor told"),
            }
        })?;
        // It is never sent to: only its end counts.
        let _: Result<(), _> = waiting.recv();
        Ok(thread)
    }

    async fn run(
        self: Arc<Self>,
        core: Arc<Core>,
        socket: std::net::TcpListener,
        caught_up: std::sync::mpsc::Sender<()>,
    ) {
        let (asking, shared) = (Arc::clone(&self), Arc::clone(&core.shared));
        self.group.spawn("what was missed", move |_| async move {
            purges::catch_up(&asking, &shared).await;
            // Whoever waits knows by its end that there is nothing to wait for any more.
            drop(caught_up);
        });
        let (sending, shared) = (Arc::clone(&self), Arc::clone(&core.shared));
        self.group.spawn("purges", move |stop| purges::send(sending, shared, stop));
        let probing = Arc::clone(&self);
        self.group.spawn("probes", move |stop| peers::probe(probing, stop));
        let (wire, identity) = (self.wire.clone(), self.identity.clone());
        self.group.spawn("identity", move |stop| wire.follow_identity(identity, stop));
        let kept = Arc::clone(&self);
        self.group.spawn("heard", move |stop| async move { kept.inbox.keep(stop).await });
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => serve::serve(&self, core, listener).await,
            Err(error) => tracing::error!(%error, "other edges cannot be heard"),
        }
        self.group.finish(std::time::Duration::from_secs(2)).await;
    }
}

fn zones(cluster: &snapshot::Cluster) -> BTreeMap<NodeName, String> {
    cluster.peers.iter().map(|peer| (peer.node.clone(), peer.zone.clone())).collect()
}
