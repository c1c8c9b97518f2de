//! A machine becomes the first node of a cluster: its authority, its identity and its keys are made, then the agent starts again
//! and moves the state (see the binary's roles).
//!
//! Nothing that serves is touched. Until the state is in etcd, whole and compared, the embedded store counts, and a founding
//! that fails is undone by forgetting the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use pressroom_model::cluster::{Node, Role};
use pressroom_model::external;
use pressroom_model::id::NodeName;
use pressroom_store::Store as _;
use pressroom_store::etcd::EtcdStore;
use pressroom_store::transaction::Transaction;
use pressroom_wire::WireError;
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::identity::{Identity, new_key};
use pressroom_wire::members::Service;

use super::access::{self, Refused};
use super::keys;
use super::membership::{self, Membership, MembershipError, Stage, keep};
use super::sealing;
use crate::layout::Layout;
use crate::secrets;

/// Why no cluster could be founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// It is in one.
    #[error("this machine is node `{0}` of a cluster already")]
    Already(NodeName),
    /// The address is none of this machine's, or is taken.
    #[error("{address} cannot be used: {cause}")]
    Address {
        /// The address and the first port.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A key or certificate.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A file.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// A store may not take more in one transaction.
const MOST_WRITES: usize = 100;

/// Why the first records could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum FirstRecordsError {
    /// A secret cannot be read.
    #[error("a secret of this machine cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] pressroom_store::StoreError),
}

/// Who the first node is to be.
#[derive(Debug, Clone)]
pub struct Founder {
    /// Its name.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address, as others will reach it.
    pub address: IpAddr,
    /// The first of its ports for others.
    pub port: u16,
    /// The etcd that operators keep, if the state is to be there.
    pub external: Option<external::Etcd>,
}

/// Writes everything that makes this machine the first node. `now_ms`: milliseconds since 1970.
pub fn found(layout: &Layout, founder: &Founder, now_ms: u64) -> Result<Membership, FoundingError> {
    if let Some(known) = Membership::read(layout)? {
        return Err(FoundingError::Already(known.node));
    }
    try_address(founder.address, founder.port)?;
    let now = now_ms / 1000;
    let (authority, authority_key) = Authority::make(now)?;
    let (key, public) = new_key()?;
    let chain = authority.sign_node(&founder.node, founder.address, &PublicKey(public), now)?;
    let identity = Identity::parse(chain.as_bytes(), key.as_bytes(), authority.pem().as_bytes())?;
    keep(layout, "authority.key", authority_key.as_bytes())?;
    keep(layout, "authority.pem", authority.pem().as_bytes())?;
    keep(layout, "node.key", key.as_bytes())?;
    keep(layout, "node.pem", chain.as_bytes())?;
    let refused = Refused::default().with(&authority, &BTreeSet::new(), now_ms)?;
    keep(layout, membership::REFUSED, &refused.text())?;
    keep(layout, sealing::FILE, sealing::SealingKey::make().text().as_bytes())?;
    let node = Node {
        zone: founder.zone.clone(),
        address: founder.address,
        port: founder.port,
        keys: [identity.fingerprint().to_string()].into(),
        roles: Role::ALL.into(),
        labels: BTreeMap::new(),
        is_drained: false,
        joined_ms: now_ms,
    };
    let etcd = super::member(&node).at(Service::Etcd);
    let membership = Membership {
        version: 1,
        stage: Stage::Forming,
        node: founder.node.clone(),
        zone: founder.zone.clone(),
        address: founder.address,
        port: founder.port,
        token: secrets::random(16).reveal().to_owned(),
        restored_ms: 0,
        removed_ms: 0,
        voters: match &founder.external {
            None => [(founder.node.clone(), etcd)].into(),
            Some(_) => BTreeMap::new(),
        },
        member: None,
        external: founder.external.clone(),
        own: Some(node.clone()),
        nodes: [(founder.node.clone(), node)].into(),
    };
    membership.write(layout)?;
    Ok(membership)
}

/// Stores what a cluster knows of its first node, and its secrets.
pub async fn first_records(
    layout: &Layout,
    membership: &Membership,
    store: &EtcdStore,
) -> Result<(), FirstRecordsError> {
    let own = &membership.node;
    let node = membership.nodes.get(own).expect("its founder wrote it");
    let text = serde_json::to_vec(node).expect("plain data");
    let refused = Refused::known(layout).unwrap_or_default();
    let mut transaction = Transaction::new()
        .put(keys::refused(), refused.text())
        .put(keys::node(own), text)
        .put(keys::data(), own.as_str());
    if membership.external.is_none() {
        let members = store.members().await?;
        let id = members.first().map_or(0, |member| member.id);
        let voters = serde_json::json!({ own.as_str(): id }).to_string();
        transaction = transaction.put(keys::voters(), voters);
    }
    for (key, sealed) in super::secrets::sealed(layout)? {
        transaction = transaction.put(key, sealed);
        if transaction.writes.len() >= MOST_WRITES {
            store.commit(std::mem::take(&mut transaction)).await?;
        }
    }
    store.commit(transaction).await?;
    if membership.external.is_none() {
        let key = node.keys.first().expect("its founder has one");
        access::restrict(store, key).await?;
    }
    Ok(())
}

/// Whether this machine has the address and its ports are free.
pub fn try_address(address: IpAddr, port: u16) -> Result<(), FoundingError> {
    for distance in 0..8 {
        let address = SocketAddr::new(address, port.saturating_add(distance));
        std::net::TcpListener::bind(address)
            .map_err(|cause| FoundingError::Address { address, cause })?;
    }
    Ok(())
}
