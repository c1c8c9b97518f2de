//! The nodes that are let in. Whoever keeps the list changes it at any time; connections of nodes that left it are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;
use pressroom_model::id::NodeName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::identity::{Fingerprint, Peer};

/// A node as others must know it to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its address, as others reach it.
    pub address: IpAddr,
    /// The first of its ports.
    pub port: u16,
    /// Its failure domain.
    pub zone: String,
    /// The keys that it may show: two while one is replaced by another.
    pub keys: BTreeSet<Fingerprint>,
}

/// What is behind a port of a node, as distance from its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Service {
    /// The agent.
    Agent = 0,
    /// The edge.
    Edge = 1,
    /// What carries MariaDB's and Redis's bytes.
    Sql = 2,
    /// etcd, for its clients.
    Etcd = 3,
    /// etcd, for its other members.
    EtcdPeer = 4,
}

impl Member {
    /// Where one of its services is.
    pub fn at(&self, service: Service) -> SocketAddr {
        SocketAddr::new(self.address, self.port + service as u16)
    }
}

/// All members.
pub type Members = BTreeMap<NodeName, Member>;

/// The list and its changes. Clones are the same list.
#[derive(Debug, Clone)]
pub struct Register {
    sender: Arc<watch::Sender<Arc<Members>>>,
    /// Keys of nodes that were removed: they are told so, while strangers are told nothing.
    removed: Arc<RwLock<BTreeSet<Fingerprint>>>,
}

impl Register {
    /// A list.
    pub fn new(members: Members) -> Self {
        Self { sender: Arc::new(watch::Sender::new(Arc::new(members))), removed: Arc::default() }
    }

    /// The list as it is now.
    pub fn now(&self) -> Arc<Members> {
        self.sender.borrow().clone()
    }

    /// Replaces it.
    pub fn set(&self, members: Members) {
        self.sender.send_if_modified(|old| {
            let is_news = **old != members;
            if is_news {
                *old = Arc::new(members);
            }
            is_news
        });
    }

    /// Replaces the keys of removed nodes: who shows one of them hears why it is refused.
    pub fn set_removed(&self, keys: BTreeSet<Fingerprint>) {
        *self.removed.write() = keys;
    }

    /// Whether that is the key of a node that was removed.
    pub(crate) fn was_removed(&self, key: &Fingerprint) -> bool {
        self.removed.read().contains(key)
    }

    /// Whether this peer with this key is a member, or a guest, who need be none.
    pub(crate) fn admits(&self, peer: &Peer, key: &Fingerprint) -> bool {
        match peer {
            Peer::Node(node) => has(&self.sender.borrow(), node, key),
            Peer::Guest(_) => true,
        }
    }

    /// Waits until this peer with this key is none any more; for ever for a guest, who is none.
    pub async fn departure(&self, peer: &Peer, key: &Fingerprint) {
        let Peer::Node(node) = peer else { return std::future::pending().await };
        let mut changes = self.sender.subscribe();
        // The sender is in `self`.
        let _ = changes.wait_for(|members| !has(members, node, key)).await;
    }
}

fn has(members: &Members, node: &NodeName, key: &Fingerprint) -> bool {
    members.get(node).is_some_and(|member| member.keys.contains(key))
}
