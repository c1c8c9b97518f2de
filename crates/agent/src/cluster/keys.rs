//! Where in the store what is. The one place that spells these keys.

use pressroom_model::id::{NodeName, SiteName};
use pressroom_store::key::{Key, Prefix};

/// The intent of operators.
pub(crate) fn intent() -> Key {
    Key::literal("intent/config")
}

/// What is known of a site.
pub(crate) fn site(site: &SiteName) -> Key {
    format!("observed/sites/{site}").parse().expect("site names are good segments")
}

/// The record of a node.
pub(crate) fn node(node: &NodeName) -> Key {
    format!("nodes/{node}").parse().expect("node names are good segments")
}

/// On which nodes a site runs.
pub(crate) fn placement(site: &SiteName) -> Key {
    format!("placement/{site}").parse().expect("site names are good segments")
}

/// The records of all nodes.
pub(crate) fn nodes() -> Prefix {
    "nodes".parse().expect("a good prefix")
}

/// What all nodes say of themselves.
pub(crate) fn reports() -> Prefix {
    "observed/nodes".parse().expect("a good prefix")
}

/// The keys of removed nodes.
pub(crate) fn refused() -> Key {
    Key::literal("cluster/refused")
}

/// What a node says of itself.
pub(crate) fn report(node: &NodeName) -> Key {
    format!("observed/nodes/{node}").parse().expect("node names are good segments")
}

/// A join token that was not used yet.
pub(crate) fn token(id: &str) -> Option<Key> {
    format!("tokens/{id}").parse().ok()
}

/// A sealed secret.
pub(crate) fn secret(name: &str) -> Option<Key> {
    format!("secrets/{name}").parse().ok()
}

/// All sealed secrets.
pub(crate) fn secrets() -> Prefix {
    "secrets".parse().expect("a good prefix")
}

/// With which key they are sealed.
pub(crate) fn sealing() -> Key {
    Key::literal("cluster/sealing")
}

/// Who leads.
pub(crate) fn leader() -> Key {
    Key::literal("leader")
}

/// The node that has the database and Redis.
pub(crate) fn data() -> Key {
    Key::literal("cluster/data")
}

/// Whether a name is that of something which one machine has no use for.
pub fn is_of_cluster(key: &Key) -> bool {
    let front = key.as_str().split('/').next().unwrap_or_default();
    matches!(front, "nodes" | "secrets" | "tokens" | "cluster" | "leader" | "placement")
        || key.as_str().starts_with("observed/nodes/")
}

/// Whose state it is, where etcd is not ours: the membership's token.
pub fn mark() -> Key {
    Key::literal("cluster/mark")
}

/// Set when all other nodes were removed: the cluster becomes one machine again.
pub(crate) fn dissolving() -> Key {
    Key::literal("cluster/dissolving")
}

/// Voters of etcd: a list of node names.
pub(crate) fn voters() -> Key {
    Key::literal("cluster/voters")
}

/// Those among them that have no vote yet.
pub(crate) fn followers() -> Key {
    Key::literal("cluster/followers")
}
