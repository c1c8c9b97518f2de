//! What operators may ask about the nodes of a cluster.

use std::net::IpAddr;
use std::path::PathBuf;

use pressroom_model::external::Etcd;
use pressroom_model::id::NodeName;
use serde::{Deserialize, Serialize};

/// The first node of a cluster that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Its address, as others will reach it.
    pub address: IpAddr,
    /// The first of its ports for others.
    pub port: u16,
    /// The etcd that operators keep, if the state is to be there: a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
}

/// A token that is wished for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenWish {
    /// Seconds that it is to be good for.
    pub life: u64,
}

/// A token that lets one machine join, once: a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token, one line.
    pub token: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What is to become of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeChange {
    /// Nothing runs there any more, and it does not lead.
    Drain,
    /// It takes part again.
    Undrain,
    /// It is no node any more.
    Remove,
    /// It is told apart by a word; `None`: no more.
    Label {
        /// The word.
        key: String,
        /// What it says.
        value: Option<String>,
    },
}

/// A node and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeOf {
    /// Which.
    pub node: NodeName,
    /// What.
    pub change: NodeChange,
}

/// A state that is to be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// A copy of the state; `None`: what etcd has on this node.
    pub from: Option<PathBuf>,
    /// Also where the store works, and changes since the copy are lost.
    pub force: bool,
    /// The etcd that operators keep, where it is another one than before: a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Etcd>,
}

/// A copy of the state that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
}
