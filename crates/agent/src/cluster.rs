//! This machine as a node of a cluster: the agent's part of being one among others.
//!
//! - [`membership`] what is on this node's disk of the cluster; [`founding`] the first node; [`joining`] all others
//! - [`follow`] everything that the store knows, taken over as it changes
//! - [`hearsay`] the same from other nodes, where the way to the store is bad
//! - [`lead`] at most one node decides for all; its writes are fenced
//! - [`presence`] what this node says of itself, under a lease
//! - [`secrets`] the same secrets on all nodes; [`sealing`] how the store keeps them, [`rotating`] with which key
//! - [`code`] releases from other nodes
//! - [`media`] uploads on every node; [`commits`] who waits for that; [`media_store`] an object store that gets them too,
//!   [`media_news`] which the others hear of
//! - [`door`] what other nodes may ask
//! - [`backups`] copies of the state; [`restoring`] the way back to one
//! - [`renewing`] certificates, long before they end; [`removed`] a node that is none any more
//! - [`voters`] who votes in the store; [`access`] who may ask it; [`external`] an etcd that operators keep
//! - [`placement`] on which nodes sites run
//! - [`standing`] the nodes as people are shown them; [`nodes`] what operators change of them
//!
//! Always: a node that cannot reach the store goes on with what it knew, and changes nothing for others. Whatever is stored
//! that counts for all is stored by the leader, under its fence; a node's own report is all that it writes itself.

pub mod access;
pub mod backups;
pub mod code;
pub mod commits;
pub mod door;
pub mod external;
pub mod follow;
pub mod founding;
pub(crate) mod hearsay;
pub mod joining;
pub mod keys;
pub mod lead;
pub mod media;
pub(crate) mod media_news;
pub mod media_store;
pub mod membership;
pub mod nodes;
pub mod placement;
pub mod presence;
pub mod removed;
pub mod renewing;
pub mod restoring;
pub mod rotating;
pub mod sealing;
pub mod secrets;
pub mod standing;
pub mod voters;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use pressroom_model::cluster::{Node, Report, Role, Sealing};
use pressroom_model::config::Config;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Placement;
use pressroom_plan::rest;
use pressroom_store::transaction::Compare;
use pressroom_wire::WireError;
use pressroom_wire::http::Client;
use pressroom_wire::identity::Fingerprint;
use pressroom_wire::members::{Member, Members, Register, Service};
use pressroom_wire::tls::Wire;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use membership::Membership;

/// What the agent has at hand as a node.
pub struct Cluster {
    membership: RwLock<Membership>,
    /// The way to other nodes.
    pub wire: Wire,
    /// Calls of other nodes' agents.
    pub client: Client,
    /// The fence of our office, while we have it.
    office: Mutex<Option<Compare>>,
    /// How often we lost it to whoever comes next.
    lost: watch::Sender<u64>,
    /// Where etcd answers, as it was heard last.
    pub endpoints: watch::Sender<Vec<String>>,
    /// What was heard of the store last. May be locked while `taking` is.
    heard: Mutex<hearsay::Heard>,
    /// Held while something is taken over, so that it is in the order of revisions.
    taking: Mutex<()>,
    /// The store was restored elsewhere: what is still heard of the former one counts no more.
    is_elsewhere: std::sync::atomic::AtomicBool,
    /// Held while the state is copied.
    copying: tokio::sync::Mutex<()>,
    /// Held while secrets are sealed, or the key for that is changed.
    sealing: tokio::sync::Mutex<()>,
    /// Secrets as they were when store and disk agreed last, by name: digest of the text.
    agreed: Mutex<BTreeMap<String, String>>,
}

/// Who does not report for so long leaves its work to nodes that rest.
const GONE: Duration = Duration::from_secs(10);

/// What is known of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Every node that was admitted.
    pub nodes: BTreeMap<NodeName, Node>,
    /// What those that are up say of themselves, with the time of ours when it was heard, milliseconds since 1970.
    #[serde(skip)]
    pub reports: BTreeMap<NodeName, (Report, u64)>,
    /// Since when those that are admitted do not report. Nobody is gone before the store was heard.
    #[serde(skip)]
    pub gone: BTreeMap<NodeName, Instant>,
    /// Who leads.
    #[serde(skip)]
    pub leader: Option<NodeName>,
    /// Who has the database.
    pub data: Option<NodeName>,
    /// On which nodes sites run.
    #[serde(default)]
    pub placements: BTreeMap<SiteName, Placement>,
    /// Who votes in etcd, or is to, with etcd's number of each.
    #[serde(default)]
    pub voters: BTreeMap<NodeName, u64>,
    /// Who of them only follows yet.
    #[serde(default)]
    pub followers: BTreeSet<NodeName>,
    /// With which key secrets are sealed.
    #[serde(default)]
    pub sealing: Option<Sealing>,
    /// The store answered lately.
    #[serde(skip)]
    pub is_heard: bool,
}

impl Known {
    /// Whether a node rests in a role: see [`rest`]. Who is gone for a moment only, as for a new agent, counts as working.
    pub(crate) fn rests(&self, name: &NodeName, role: Role) -> bool {
        let nodes = self.nodes.iter().filter(|(_, node)| node.roles.contains(&role));
        let nodes: Vec<rest::Node> = nodes
            .map(|(name, node)| rest::Node {
                name: name.clone(),
                is_drained: node.is_drained,
                works: self.gone.get(name).is_none_or(|since| since.elapsed() < GONE),
            })
            .collect();
        rest::rests(name, &nodes)
    }
}

impl Cluster {
    /// A node with this membership; calls of others are tasks of `tasks`.
    pub fn open(
        layout: &crate::layout::Layout,
        membership: Membership,
        tasks: pressroom_runtime::tasks::Group,
    ) -> Result<Arc<Self>, WireError> {
        let identity = membership::identity(layout)?;
        let wire = Wire::new(identity, Register::new(members(&membership.nodes)));
        if let Some(refused) = access::Refused::known(layout) {
            wire.members.set_removed(refused.fingerprints());
        }
        let client = Client::new(wire.clone(), Service::Agent, tasks);
        let endpoints = membership.endpoints();
        Ok(Arc::new(Self {
            membership: RwLock::new(membership),
            wire,
            client,
            office: Mutex::default(),
            lost: watch::Sender::new(0),
            endpoints: watch::Sender::new(endpoints),
            heard: Mutex::default(),
            taking: Mutex::default(),
            is_elsewhere: std::sync::atomic::AtomicBool::default(),
            copying: tokio::sync::Mutex::default(),
            sealing: tokio::sync::Mutex::default(),
            agreed: Mutex::default(),
        }))
    }

    /// Who we are here.
    pub fn membership(&self) -> Membership {
        self.membership.read().clone()
    }

    /// Our name.
    pub fn node(&self) -> NodeName {
        self.membership.read().node.clone()
    }

    /// The fence of our office, while we have it.
    pub fn fence(&self) -> Option<Compare> {
        self.office.lock().clone()
    }

    pub(crate) fn take_office(&self, fence: Option<Compare>) {
        *self.office.lock() = fence;
    }

    fn lose_office(&self) {
        self.take_office(None);
        self.lost.send_modify(|times| *times += 1);
    }
}

/// A node as those must know it who speak to it.
pub fn member(node: &Node) -> Member {
    Member {
        address: node.address,
        port: node.port,
        zone: node.zone.clone(),
        keys: node.keys.iter().filter_map(|key| Fingerprint::written(key)).collect(),
    }
}

pub(crate) use crate::engine::sql::lend as lend_identity;

/// A file of the membership, whole.
pub(crate) fn files_of(path: &std::path::Path) -> Result<Vec<u8>, membership::MembershipError> {
    Ok(std::fs::read(path).map_err(|error| crate::files::naming(path, &error))?)
}

/// The nodes that are let in.
pub(crate) fn members(nodes: &BTreeMap<NodeName, Node>) -> Members {
    nodes.iter().map(|(name, node)| (name.clone(), member(node))).collect()
}

/// The configuration as it holds here: it was written on another node perhaps, whose name and folders are not ours.
pub fn localised(
    config: Config,
    membership: &Membership,
    layout: &crate::layout::Layout,
) -> Config {
    let node = pressroom_model::config::Node {
        name: membership.node.clone(),
        zone: membership.zone.clone(),
        data: layout.data().to_owned(),
        docker: config.node.docker.clone(),
    };
    Config { node, ..config }
}
