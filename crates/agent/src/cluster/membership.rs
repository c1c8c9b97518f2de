//! What a node has on its own disk of the cluster: who it is there, its keys, and how the store is reached.
//!
//! Everything is in one folder that only root enters. The file `membership.json` is written last when a node joins or founds,
//! and removed first when it leaves: with it the machine is a node, without it it is alone.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use pressroom_model::cluster::{Node, Role};
use pressroom_model::external;
use pressroom_model::id::NodeName;
use pressroom_store::etcd::{self as store, Options, Tls};
use pressroom_wire::identity::{Identity, Paths};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::layout::Layout;

/// Where our keys are in an etcd that we keep.
const PREFIX: &str = "/pressroom/";

/// Why the files of a membership cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// A file.
    #[error("what this machine has of its cluster: {0}")]
    Io(#[from] io::Error),
    /// What is in a file makes no sense.
    #[error("{path}: {cause}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// How far a machine is on its way into a cluster of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It founds one: the state is still in the embedded store, or is being copied.
    Forming,
    /// The state is in etcd.
    Formed,
    /// All other nodes were removed: the state goes back into the embedded store.
    Dissolving,
}

/// A machine's membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Of this form.
    pub version: u32,
    /// How far it is.
    pub stage: Stage,
    /// Its name in the cluster.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address, as others reach it.
    pub address: IpAddr,
    /// The first of its ports for others.
    pub port: u16,
    /// Names etcd's cluster: members of another one are never mixed up with ours.
    pub token: String,
    /// When the state was restored last, milliseconds since 1970; 0: never. The higher one counts.
    #[serde(default)]
    pub restored_ms: u64,
    /// When this node noticed that it was removed, milliseconds since 1970; 0: it is one. See [`super::removed`].
    #[serde(default)]
    pub removed_ms: u64,
    /// Voters: who they are and where etcd answers clients.
    #[serde(default)]
    pub voters: BTreeMap<NodeName, SocketAddr>,
    /// etcd's number of this node; `None`: it does not vote, or founds the cluster.
    #[serde(default)]
    pub member: Option<u64>,
    /// The etcd that operators keep, if the state is there: then nobody votes, and no etcd runs here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Etcd>,
    /// What the cluster knew of this node last. It is that again when it joins again after it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Node>,
    /// The nodes that were known last: what is let in before the store is heard.
    #[serde(default)]
    pub nodes: BTreeMap<NodeName, Node>,
}

impl Membership {
    /// The file.
    fn path(layout: &Layout) -> PathBuf {
        layout.cluster().join("membership.json")
    }

    /// The membership of this machine, if it has one.
    pub fn read(layout: &Layout) -> Result<Option<Self>, MembershipError> {
        let path = Self::path(layout);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| MembershipError::Damaged { path, cause: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(files::naming(&path, &error).into()),
        }
    }

    /// Writes it.
    pub fn write(&self, layout: &Layout) -> Result<(), MembershipError> {
        files::folder(&layout.cluster(), 0o700, None)?;
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        files::write(&Self::path(layout), &text, 0o600, None)?;
        Ok(())
    }

    /// Whether etcd runs here.
    pub fn is_voter(&self) -> bool {
        self.voters.contains_key(&self.node)
    }

    /// Whether nobody else votes in the cluster's store.
    pub fn votes_alone(&self) -> bool {
        self.is_voter() && self.voters.len() == 1
    }

    /// Whether copies of the state are taken here.
    pub fn takes_copies(&self) -> bool {
        let manages =
            || self.nodes.get(&self.node).is_some_and(|own| own.roles.contains(&Role::Manager));
        self.is_voter() || self.external.is_some() && manages()
    }

    /// How the store is reached.
    pub fn options(&self, layout: &Layout) -> Result<Options, MembershipError> {
        match &self.external {
            Some(etcd) => super::external::options(etcd),
            None => {
                let (endpoints, tls) = (self.endpoints(), Some(tls(layout)?));
                Ok(Options { endpoints, prefix: PREFIX.into(), tls, user: None })
            }
        }
    }

    /// Where etcd answers, its own first.
    pub fn endpoints(&self) -> Vec<String> {
        if let Some(etcd) = &self.external {
            return etcd.endpoints.clone();
        }
        let own = self.voters.get(&self.node);
        let others = self.voters.iter().filter(|(name, _)| **name != self.node);
        own.into_iter()
            .chain(others.map(|(_, address)| address))
            .map(|address| format!("https://{address}"))
            .collect()
    }
}

/// Where the files of this node's identity are.
pub fn identity_paths(layout: &Layout) -> Paths {
    let file = |name: &str| layout.cluster().join(name);
    Paths { chain: file("node.pem"), key: file("node.key"), authority: file("authority.pem") }
}

/// This node's identity.
pub fn identity(layout: &Layout) -> Result<Identity, pressroom_wire::WireError> {
    Identity::read(&identity_paths(layout))
}

/// The same for the store: whom it is to believe, and who we are.
pub fn tls(layout: &Layout) -> Result<Tls, MembershipError> {
    let paths = identity_paths(layout);
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| files::naming(path, &error));
    let identity = store::Identity { chain: read(&paths.chain)?, key: read(&paths.key)? };
    Ok(Tls { authority: read(&paths.authority)?, identity: Some(identity) })
}

/// The key of the cluster's authority, where this node may admit others.
pub fn authority_key(layout: &Layout) -> PathBuf {
    layout.cluster().join("authority.key")
}

/// The authority itself, where this node may admit others.
pub fn authority(layout: &Layout) -> Result<pressroom_wire::authority::Authority, MembershipError> {
    let (pem, key) = (identity_paths(layout).authority, authority_key(layout));
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| files::naming(path, &error));
    pressroom_wire::authority::Authority::open(&read(&pem)?, &read(&key)?)
        .map_err(|error| MembershipError::Damaged { path: key, cause: error.to_string() })
}

/// The file of the keys of removed nodes.
pub(crate) const REFUSED: &str = "refused.json";

/// Writes one of the files of the folder, for root alone.
pub(crate) fn keep(layout: &Layout, name: &str, contents: &[u8]) -> Result<(), MembershipError> {
    files::folder(&layout.cluster(), 0o700, None)?;
    files::write(&layout.cluster().join(name), contents, 0o600, None)?;
    Ok(())
}

/// Makes the machine one that is in no cluster; what was there is kept aside.
pub fn leave(layout: &Layout, now_ms: u64) -> Result<(), MembershipError> {
    let aside = layout.data().join(format!("cluster-left-{now_ms}"));
    match std::fs::rename(layout.cluster(), &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(files::naming(&aside, &error).into()),
        Ok(()) => Ok(()),
    }
}
