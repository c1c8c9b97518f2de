//! On which nodes how many instances of a site are to run, as it is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::NodeName;

/// Where one site runs. A node that is not named runs none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// Instances by node.
    #[serde(default)]
    pub nodes: BTreeMap<NodeName, u16>,
    /// When it was changed last, milliseconds since 1970, by the clock of the node that led then.
    #[serde(default)]
    pub since_ms: u64,
    /// Why.
    #[serde(default)]
    pub because: String,
}

impl Placement {
    /// How many are to run on a node.
    pub fn on(&self, node: &NodeName) -> u16 {
        self.nodes.get(node).copied().unwrap_or_default()
    }
}
