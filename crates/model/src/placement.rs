//! On which nodes how many instances of a site are to run, as it is stored, and what operators say about that.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, SiteName};

/// Where a site may run, beside whom and apart from whom. Nothing said: on every node that runs PHP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// What holds for the labels of its nodes: all of it.
    #[serde(default)]
    pub nodes: Vec<NodeRule>,
    /// Sites on whose nodes it runs if nothing is against it. So do they on its nodes: one of two may say it.
    #[serde(default)]
    pub beside: Vec<SiteName>,
    /// Sites that are on none of its nodes while there are enough. One of two may say it.
    #[serde(default)]
    pub conflicts: Vec<SiteName>,
}

impl Rules {
    /// Whether a node with these labels may run the site.
    pub fn allow(&self, labels: &BTreeMap<String, String>) -> bool {
        self.nodes.iter().all(|rule| (labels.get(&rule.key) == Some(&rule.value)) != rule.is_not)
    }
}

/// A label that a node must have, written `KEY=VALUE`, or must not have, `!KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeRule {
    /// The label.
    pub key: String,
    /// Its value.
    pub value: String,
    /// No node that has it.
    pub is_not: bool,
}

/// Text that says nothing about labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a label of nodes as `KEY=VALUE`, or `!KEY=VALUE` for nodes without it")]
pub struct BadRule;

impl FromStr for NodeRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let (is_not, label) = text.strip_prefix('!').map_or((false, text), |label| (true, label));
        let (key, value) = label.split_once('=').ok_or(BadRule)?;
        if key.is_empty() || text.chars().any(char::is_control) {
            return Err(BadRule);
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), is_not })
    }
}

impl TryFrom<String> for NodeRule {
    type Error = BadRule;

    fn try_from(text: String) -> Result<Self, BadRule> {
        text.parse()
    }
}

impl From<NodeRule> for String {
    fn from(rule: NodeRule) -> Self {
        rule.to_string()
    }
}

impl std::fmt::Display for NodeRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, is_not } = self;
        write!(f, "{}{key}={value}", if *is_not { "!" } else { "" })
    }
}

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
