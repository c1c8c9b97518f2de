//! The machines of a cluster: what operators know of each, and what each says of itself.
//!
//! A [`Node`] is a record that stays until the node is removed; a [`Report`] vanishes soon after the node does. Both are stored as
//! JSON, so fields are only ever added, with defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, ReleaseId, SiteName};
use crate::verdict::Health;

/// The first of a node's ports for other nodes, where nobody chose another one.
pub const PORT: u16 = 7400;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes visitors' requests.
    Edge,
    /// Runs instances.
    App,
    /// May be chosen as a voter.
    Voter,
    /// May lead, and admit other nodes.
    Manager,
}

impl Role {
    /// All of them, which is what a node has unless somebody said otherwise.
    pub const ALL: [Self; 4] = [Self::Edge, Self::App, Self::Voter, Self::Manager];
}

fn all_roles() -> BTreeSet<Role> {
    Role::ALL.into()
}

/// A machine that was admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its failure domain.
    pub zone: String,
    /// Its address, as other nodes reach it.
    pub address: IpAddr,
    /// The first of its ports for other nodes.
    pub port: u16,
    /// Digests of the public keys that it may show, hexadecimal: two while one replaces the other.
    pub keys: BTreeSet<String>,
    /// What it does.
    #[serde(default = "all_roles")]
    pub roles: BTreeSet<Role>,
    /// Words of operators about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// No instance is placed on it once others answer in its place, and it leads only while no other manager works.
    #[serde(default)]
    pub is_drained: bool,
    /// When it was admitted, milliseconds since 1970.
    #[serde(default)]
    pub joined_ms: u64,
}

/// The key that secrets in the store are sealed with; the key itself is on the nodes' disks alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// Its name.
    pub key: String,
    /// It is to be replaced: a node that knows it was removed.
    #[serde(default)]
    pub wants_another: bool,
    /// Everything is sealed with it.
    #[serde(default)]
    pub is_done: bool,
}

/// What a node says of itself, a few times a minute and when something changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its Pressroom.
    #[serde(default)]
    pub program: String,
    /// Its clock when this was written, milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// Its edge.
    #[serde(default)]
    pub edge: Option<Health>,
    /// MariaDB and both Redis servers answer here; `None`: they are not here.
    #[serde(default)]
    pub data: Option<bool>,
    /// When its certificate ends, milliseconds since 1970; 0: it does not say.
    #[serde(default)]
    pub certificate_until_ms: u64,
    /// Its certificate should have been renewed days ago.
    #[serde(default)]
    pub is_certificate_late: bool,
    /// All of its memory, MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Floating addresses that are here.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// Floating addresses that it does not take part in, and why.
    #[serde(default)]
    pub refused: BTreeMap<IpAddr, String>,
    /// Uploads and deletions that wait for long for the object store of the media, as far as is known there; in a few steps, since
    /// every change of a report is written.
    #[serde(default)]
    pub media_waiting: u64,
    /// The sites.
    #[serde(default)]
    pub sites: BTreeMap<SiteName, SiteReport>,
}

/// A site on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReport {
    /// It answers visitors here, by whichever node's instances.
    #[serde(default)]
    pub is_ready: bool,
    /// The version that the edge sends requests to, by its fingerprint.
    #[serde(default)]
    pub serves: Option<String>,
    /// The code of that.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// Instances that answer, by the fingerprint of their version.
    #[serde(default)]
    pub instances: BTreeMap<String, u16>,
    /// PHP processes of one instance.
    #[serde(default)]
    pub workers: u16,
}

/// A node as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address, as other nodes reach it.
    pub address: IpAddr,
    /// What it does.
    pub roles: BTreeSet<Role>,
    /// Words of operators about it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It leads.
    pub leader: bool,
    /// The database is here.
    pub database: bool,
    /// It has a vote in etcd.
    pub voter: bool,
    /// Its agent was heard of lately.
    pub is_up: bool,
    /// It was drained.
    pub is_drained: bool,
    /// It was removed, as it says itself: the others do not know it any more.
    #[serde(default)]
    pub is_removed: bool,
    /// All sites answer there.
    pub serves: bool,
    /// Its Pressroom.
    #[serde(default)]
    pub program: String,
    /// Milliseconds that its clock is ahead of the clock of the node that was asked, as far as that can be told.
    #[serde(default)]
    pub clock_ms: i64,
    /// Floating addresses that are there.
    #[serde(default)]
    pub addresses: BTreeSet<IpAddr>,
    /// What is not as it should be.
    #[serde(default)]
    pub because: String,
    /// The PHP of sites that it runs, or is to run.
    #[serde(default)]
    pub sites: BTreeMap<SiteName, Share>,
}

/// A node's share of a site's instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// So many instances are placed there.
    pub placed: u16,
    /// So many answer, of whichever version.
    pub answering: u16,
    /// Why the site's placement was changed last.
    #[serde(default)]
    pub because: String,
}
