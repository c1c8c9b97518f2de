//! The immutable view that the edge serves from.
//!
//! The agent writes it to `snapshot/edge.json` by rename; the edge watches that file, and serves from the last good
//! one when the agent is away. Fields are only ever added, with defaults.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, NodeName, ReleaseId, SiteName};
use crate::unit::{ByteSize, Span};

/// The edge's whole view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Raised by every change; the edge says which one it serves.
    pub generation: u64,
    /// This machine's name, for `Cache-Status` and logs.
    pub node: String,
    /// All sites.
    pub sites: Vec<Site>,
    /// Addresses whose `X-Forwarded-*`, `Forwarded` and PROXY headers are believed: CIDR blocks (`10.0.0.0/8`, `::1/128`).
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Whether connections start with a PROXY protocol header (only from trusted proxies).
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The port that visitors use for HTTPS, for redirects; `None`: HTTPS is not served.
    pub https_port: Option<u16>,
    /// Access log; `None`: off.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// Bytes of memory for stored pages, over all sites.
    pub cache_size: ByteSize,
    /// The socket of whoever answers for the sites' git repositories, below [`GIT_PATH`]; `None`: nobody does.
    #[serde(default)]
    pub git: Option<PathBuf>,
    /// The socket of whoever says that uploads are on another node as well; `None`: they are nowhere else.
    #[serde(default)]
    pub media: Option<PathBuf>,
    /// The cluster that this machine is a node of; `None`: it is alone.
    #[serde(default)]
    pub cluster: Option<Cluster>,
}

/// A cluster as an edge needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// This node.
    pub node: NodeName,
    /// Files of its identity, readable for the edge: certificate, key, the cluster's authority.
    pub identity: [PathBuf; 3],
    /// All nodes, this one too.
    pub peers: Vec<Peer>,
    /// When another edge is asked no more, and when it is asked again.
    #[serde(default)]
    pub health: HealthRules,
    /// Whether balancers should leave this node out: it was drained, and others that were not do the work.
    #[serde(default)]
    pub is_drained: bool,
    /// This node was removed from it: it serves nothing until it joins again.
    #[serde(default)]
    pub is_removed: bool,
}

/// How edges judge each other's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRules {
    /// From one probe to the next.
    pub interval: Span,
    /// Longest wait for the answer to a probe.
    pub timeout: Span,
    /// So many failures in a row, and it is asked no more. A connection that does not come about counts as all of them.
    pub failures: u32,
    /// So many answers to probes in a row, and it is asked again.
    pub successes: u32,
}

impl Default for HealthRules {
    fn default() -> Self {
        Self { interval: Span::seconds(2), timeout: Span::seconds(1), failures: 2, successes: 2 }
    }
}

/// A node as other edges reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Its address.
    pub address: IpAddr,
    /// The first of its ports for other nodes.
    pub port: u16,
    /// Digests of the keys that it may show.
    pub keys: Vec<String>,
}

/// The path at which a site's hosts say whether its PHP and database work.
pub const READY_PATH: &str = "/.pressroom/ready";

/// The path of git repositories on a site's hosts: `/.pressroom/git/NAME.git`.
pub const GIT_PATH: &str = "/.pressroom/git/";

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The file, appended to; rotated by the edge at 64 MiB.
    pub path: PathBuf,
    /// How lines look.
    pub format: LogFormat,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// The combined format of Apache httpd.
    Combined,
}

/// How the blogs of a network are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// By the first segment of the path: `example.com/two/`.
    Subdirectories,
    /// By the host: `two.example.com`.
    Subdomains,
}

impl Network {
    /// As the configuration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Subdirectories => "subdirectories",
            Self::Subdomains => "subdomains",
        }
    }

    /// The network of this word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Subdirectories, Self::Subdomains].into_iter().find(|network| network.word() == word)
    }
}

/// A site as the edge needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// Host names, lower case, without port. `*.example.com` stands for one label. The first is the canonical one.
    pub domains: Vec<String>,
    /// Whether it is a network, and of which kind.
    #[serde(default)]
    pub network: Option<Network>,
    /// The password in front of it; `None`: everybody may come.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// The running release.
    pub release: ReleaseId,
    /// The folder of WordPress's `index.php`: static files come from here.
    pub root: PathBuf,
    /// Where PHP sees that folder, which `SCRIPT_FILENAME` is below; `None`: at the same place.
    #[serde(default)]
    pub php_root: Option<PathBuf>,
    /// Other nodes that run instances of the version that this view has.
    #[serde(default)]
    pub remote: Vec<NodeName>,
    /// The node whose agent has the author instance; `None`: this machine.
    #[serde(default)]
    pub author_node: Option<NodeName>,
    /// Where former releases are whose static files may still be asked for, the last one first.
    #[serde(default)]
    pub former: Vec<PathBuf>,
    /// The media folder, served for `/wp-content/uploads/`; PHP in it never runs.
    pub uploads: PathBuf,
    /// The instances that requests may be sent to.
    pub pool: Vec<Backend>,
    /// Where changes of code are made; `None`: nowhere, wp-admin does not offer them.
    #[serde(default)]
    pub author: Option<Author>,
    /// Name of the inherited listening socket on which this site's PHP speaks (`affirm-N`).
    pub affirm_listener: String,
    /// The only user id that may speak there.
    pub affirm_uid: u32,
    /// The certificate chain and key in PEM, readable by the edge.
    pub certificate: Option<Certificate>,
    /// Whether plain HTTP is answered with a redirect to HTTPS (not for `/.pressroom/` and `/.well-known/acme-challenge/`).
    pub redirect_to_https: bool,
    /// Limits.
    pub limits: Limits,
    /// The page cache.
    pub cache: CacheRules,
}

impl Site {
    /// The folder of `index.php` as PHP sees it.
    pub fn root_for_php(&self) -> &Path {
        self.php_root.as_deref().unwrap_or(&self.root)
    }
}

/// The password in front of a site that is not for everybody. Its answers are not for search engines nor shared caches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// What the browser shows with the question.
    pub realm: String,
    /// BLAKE3 digests, hexadecimal, of the passwords that open it; any user name will do.
    pub passwords: Vec<String>,
}

/// One running php-fpm as the edge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Which instance.
    pub id: InstanceId,
    /// Its FastCGI socket.
    pub socket: PathBuf,
    /// PHP processes in it: exactly so many requests are sent to it at a time.
    pub workers: u16,
    /// Being emptied: no new requests.
    #[serde(default)]
    pub draining: bool,
}

/// A site's author instance as the edge sees it: the agent's sockets, behind which it is started when it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// FastCGI, for a request that changes code: one at a time, the others wait.
    pub change: PathBuf,
    /// FastCGI, for the requests that such a request makes to its own site.
    pub loopback: PathBuf,
    /// The folder of `index.php` there, as PHP sees it.
    pub root: PathBuf,
    /// Longest run of one request, the rollout of what it changed included.
    pub time: Span,
}

/// A certificate on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM: the certificate, then its issuers.
    pub chain: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Limits of one site at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest request body.
    pub upload: ByteSize,
    /// Longest run of one request in PHP, from the first byte sent to it to the end of its answer.
    pub time: Span,
    /// Longest wait for a free worker, after which stale pages or 503 are answered.
    pub queue_time: Span,
    /// Most requests that wait for a worker.
    pub queue: u32,
    /// Largest answer that PHP may give before it is cut off.
    pub answer: ByteSize,
}

/// Rules of one site's page cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRules {
    /// Off: every request is passed to PHP, and nothing is stored.
    pub enabled: bool,
    /// Upper bound of the TTL that PHP affirms.
    pub ttl_max: Span,
    /// How long after its TTL a page may be served stale while one request refreshes it.
    pub stale_while_revalidate: Span,
    /// How long after its TTL a page may be served when PHP fails or is overloaded.
    pub stale_if_error: Span,
    /// Query parameters that are no part of the key and are not given to PHP in a canonical render: exact names or `prefix*`.
    pub ignored_parameters: Vec<String>,
    /// Cookies (exact or `prefix*`) that make a request bypass the cache, besides every name that the site ever set.
    pub bypass_cookies: Vec<String>,
    /// Cookies that are declared variants: part of the key and given to PHP in a canonical render.
    pub vary_cookies: Vec<String>,
}
