//! Edge to edge: purges reach every node, and what this node cannot answer by itself another one is asked for.
//!
//! - [`purges`] each edge's stream of purges, sent to all others, with their receipts
//! - [`passing`] whole requests to another edge: for the author instance, for media that is not here yet, for a site without PHP
//! - `serve` what other edges ask of us
//!
//! Everything goes over HTTP/2 with mutual TLS ([`pressroom_wire`]), on threads of its own, and needs neither agent nor store.
//!
//! Always: what an edge was asked by another one it does not ask a third. The headers between edges ([`passing::KIND`] and its kin) mean
//! something on these connections alone; a visitor's are thrown away.

pub mod passing;
pub mod purges;
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

use crate::core::Core;

/// Name of the socket that other edges connect to.
pub const SOCKET: &str = "mesh";

/// The way to other edges.
pub struct Mesh {
    /// This node.
    pub node: NodeName,
    pub(crate) client: Client,
    pub(crate) outbox: Arc<purges::Outbox>,
    pub(crate) inbox: purges::Inbox,
    wire: Wire,
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

fn identity(cluster: &snapshot::Cluster) -> Result<Identity, WireError> {
    let [chain, key, authority] = cluster.identity.clone();
    Identity::read(&Paths { chain, key, authority })
}

impl Mesh {
    /// For a node of this cluster; `state` is the edge's own folder.
    pub fn open(
        cluster: &snapshot::Cluster,
        state: &Path,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, WireError> {
        let wire = Wire::new(identity(cluster)?, Register::new(members(cluster)));
        let group = Group::new("mesh", shutdown);
        let client = Client::new(wire.clone(), Service::Edge, group.clone());
        Ok(Arc::new(Self {
            node: cluster.node.clone(),
            client,
            outbox: Arc::new(purges::Outbox::open(&state.join("purges.json"))),
            inbox: purges::Inbox::open(&state.join("heard.json")),
            wire,
            zones: RwLock::new(zones(cluster)),
            group,
        }))
    }

    /// Takes over who is in the cluster now.
    pub fn update(&self, cluster: &snapshot::Cluster) {
        self.wire.members.set(members(cluster));
        *self.zones.write() = zones(cluster);
        match identity(cluster) {
            Ok(identity) => self.wire.set_identity(identity),
            Err(error) => tracing::error!(%error, "the identity stays as it was"),
        }
    }

    /// All other nodes, those of our own zone first.
    pub fn others(&self) -> Vec<NodeName> {
        let zones = self.zones.read();
        let own = zones.get(&self.node);
        let mut others: Vec<_> = zones.iter().filter(|(node, _)| **node != self.node).collect();
        others.sort_by_key(|(_, zone)| Some(*zone) != own);
        others.into_iter().map(|(node, _)| node.clone()).collect()
    }

    /// Starts the thread that serves other edges and sends to them.
    pub fn start(
        self: &Arc<Self>,
        core: Arc<Core>,
        socket: std::net::TcpListener,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        let mesh = Arc::clone(self);
        socket.set_nonblocking(true)?;
        std::thread::Builder::new().name("edge-mesh".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(mesh.run(core, socket)),
                Err(error) => tracing::error!(%error, "other edges are neither heard nor told"),
            }
        })
    }

    async fn run(self: Arc<Self>, core: Arc<Core>, socket: std::net::TcpListener) {
        let sending = Arc::clone(&self);
        self.group.spawn("purges", move |stop| purges::send(sending, stop));
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
