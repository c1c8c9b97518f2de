//! The report of `pressroom status --json`: a stable format, to which fields are only added.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, NodeName, ReleaseId, SiteName};
use crate::verdict::Health;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this format: 1.
    pub version: u32,
    /// The keeper.
    pub keeper: Pid,
    /// The agent.
    pub agent: Pid,
    /// The edge.
    pub edge: Process,
    /// The engines, in start order.
    pub engines: Vec<Process>,
    /// The sites, in the order of the configuration.
    pub sites: Vec<Site>,
    /// Sentences about what is wrong or was decided lately, newest first.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Other programs' configuration files that are kept as templates say.
    #[serde(default)]
    pub templates: Vec<crate::template::State>,
    /// Floating addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// The object store of the media, if there is to be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_store: Option<MediaStore>,
    /// Where the cluster's state is, if this machine is a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// What the edge counts, if it answers.
    #[serde(default)]
    pub traffic: Option<Traffic>,
}

/// A floating address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Who has it, as far as nodes have said; none: it is on its way, or nobody may have it. Two, for a moment, when a cut
    /// was healed.
    pub nodes: Vec<NodeName>,
    /// What is not as it should be.
    #[serde(default)]
    pub because: String,
}

/// Where a cluster's state is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// In an etcd that operators keep; else in one that Pressroom runs.
    pub is_external: bool,
    /// Its endpoints and prefix; else the nodes that vote.
    pub place: String,
    /// Whether this node hears it.
    pub is_heard: bool,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.is_external { "in your etcd, " } else { "in etcd on " };
        write!(f, "{whose}{}", self.place)?;
        match self.is_heard {
            true => Ok(()),
            false => f.write_str(" (not heard now: what runs goes on, and nothing can be changed)"),
        }
    }
}

/// How the object store of the media stands, as this node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaStore {
    /// Which: `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Uploads and deletions that it does not have yet, as far as is known here. Other nodes may know them as well.
    pub waiting: u64,
    /// The first of them waits since then, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since_ms: Option<u64>,
    /// Why it gets nothing now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A process of which nothing but its id is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// Process id; `None`: it does not run.
    pub pid: Option<i32>,
}

/// A process and what is thought of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Process id; `None`: it does not run.
    pub pid: Option<i32>,
    /// Healthy or not.
    pub verdict: Health,
    /// Why.
    #[serde(default)]
    pub because: String,
    /// How often it was started.
    #[serde(default)]
    pub starts: u64,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// The home URL, with its port where it is not the scheme's.
    pub url: String,
    /// All host names.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Healthy or not.
    pub verdict: Health,
    /// Why.
    #[serde(default)]
    pub because: String,
    /// The running release.
    pub release: Option<ReleaseId>,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// One php-fpm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which one.
    pub id: InstanceId,
    /// Process id of its master.
    pub pid: Option<i32>,
    /// Healthy or not.
    pub verdict: Health,
    /// Why.
    #[serde(default)]
    pub because: String,
    /// Workers with a request.
    pub busy: u32,
    /// All workers.
    pub workers: u32,
}

/// What the edge counts since it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The snapshot that it serves.
    pub generation: u64,
    /// Requests answered.
    pub requests: u64,
    /// Page answers by cache result.
    pub hits: u64,
    /// Served stale.
    pub stale: u64,
    /// Rendered, and perhaps stored.
    pub misses: u64,
    /// Not for the cache.
    pub bypasses: u64,
    /// Answers of 500 and above.
    pub errors: u64,
    /// Requests that wait for a worker now.
    pub queued: u32,
    /// Bytes of stored pages.
    pub cache_bytes: u64,
    /// Stored pages.
    pub cache_pages: u64,
    /// Busy slots by instance, as the edge counts them.
    #[serde(default)]
    pub busy: std::collections::BTreeMap<String, u32>,
    /// The edges of other nodes, as this one knows them.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub peers: std::collections::BTreeMap<NodeName, Peer>,
    /// It is cut off from most other edges: their purges are unknown here.
    #[serde(default)]
    pub partitioned: bool,
}

/// Another node's edge as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Whether it is asked.
    pub up: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Whether it was heard lately: its purges are known here.
    pub heard: bool,
    /// Whether it said lately that it hears this one, and so waits for its receipts.
    #[serde(default)]
    pub hears_us: bool,
    /// Our requests that are with it now.
    pub asked: u32,
}
