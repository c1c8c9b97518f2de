//! The configuration as meant: checked, complete, with every default filled in.
//!
//! [`crate::file`] makes it from `pressroom.toml`; this is also the stored intent of the operator, so fields are only
//! ever added, with defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::confinement;
use crate::discovery;
use crate::environment::Environment;
use crate::floating::Floating;
use crate::id::{NodeName, SiteName};
use crate::secret::Secret;
use crate::snapshot::{HealthRules, LogFormat, Network};
use crate::unit::{ByteSize, Span};

/// Everything an operator wants of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// This machine.
    pub node: Node,
    /// The HTTP edge.
    pub edge: Edge,
    /// The console and operator API.
    pub console: Console,
    /// Names for what runs.
    #[serde(default)]
    pub dns: Dns,
    /// What the nodes of a cluster have in common.
    #[serde(default)]
    pub cluster: Cluster,
    /// The database.
    pub database: Database,
    /// The object cache and the sessions.
    pub cache: Cache,
    /// Uploaded files.
    #[serde(default)]
    pub media: Media,
    /// What all sites need of WordPress's own world.
    #[serde(default)]
    pub wordpress: WordPress,
    /// Configuration files of other programs, if the agent keeps some.
    #[serde(default)]
    pub templates: Option<Templates>,
    /// The sites, in the order of the file.
    pub sites: Vec<Site>,
}

/// Uploaded files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// An object store that gets a copy of all of them.
    #[serde(default)]
    pub store: Option<MediaStore>,
}

/// An object store, spoken to as S3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaStore {
    /// The bucket.
    pub bucket: String,
    /// What is before all names in it, without a slash at either end; may be empty.
    #[serde(default)]
    pub prefix: String,
    /// Where it answers; `None`: AWS, in that region.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The file with the access key. It is needed on the node that leads alone; the others get what is in it sealed.
    pub key_file: PathBuf,
}

impl MediaStore {
    /// A bucket and a prefix as `s3://BUCKET/PREFIX` says them; `None`: it is none.
    pub fn place(url: &str) -> Option<(String, String)> {
        let rest = url.strip_prefix("s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.chars().all(is_letter);
        let is_name = |part: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(is_plain)
        };
        let is_prefix =
            prefix.is_empty() || (prefix.len() <= 200 && prefix.split('/').all(is_name));
        (is_bucket && is_prefix).then(|| (bucket.to_owned(), prefix.to_owned()))
    }

    /// It as `s3://BUCKET/PREFIX`.
    pub fn url(&self) -> String {
        match self.prefix.is_empty() {
            true => format!("s3://{}", self.bucket),
            false => format!("s3://{}/{}", self.bucket, self.prefix),
        }
    }
}

/// What all sites need of WordPress's own world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordPress {
    /// The phar of wp-cli.
    #[serde(default)]
    pub wp_cli: Option<PathBuf>,
    /// Where versions of WordPress are had in wordpress.org's place, without a slash at its end.
    #[serde(default)]
    pub mirror: Option<String>,
}

/// Configuration files of other programs, kept as templates say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Templates {
    /// confd's folder: `conf.d` and `templates` in it.
    pub confdir: PathBuf,
    /// Before all keys, instead of what the resources say.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Where Pressroom's data is.
    #[serde(default)]
    pub data: PathBuf,
    /// The socket of Docker's daemon, for sites that run in containers; `None`: the machine's daemon, or one of ours where it has none.
    #[serde(default)]
    pub docker: Option<PathBuf>,
}

/// The HTTP edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Plain HTTP listeners.
    pub http: Vec<SocketAddr>,
    /// HTTPS listeners.
    pub https: Vec<SocketAddr>,
    /// Addresses whose forwarding headers are believed, as CIDR blocks.
    pub trusted_proxies: Vec<String>,
    /// Whether trusted proxies speak the PROXY protocol.
    pub proxy_protocol: bool,
    /// Memory for stored pages.
    pub cache_size: ByteSize,
    /// Access log format; `None`: off.
    pub access_log: Option<LogFormat>,
    /// Whether plain HTTP is redirected to HTTPS.
    pub redirect_to_https: bool,
    /// How this edge judges those of other nodes.
    #[serde(default)]
    pub health: HealthRules,
}

/// The console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Where it listens; loopback unless the operator says otherwise.
    pub listen: SocketAddr,
}

/// Names for what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Where names are answered; nowhere, unless the operator says so.
    pub listen: Vec<SocketAddr>,
    /// The domain of our own names.
    pub domain: String,
    /// Whether what runs is registered; `None`: in a cluster, and where names are answered.
    pub register: Option<bool>,
    /// Which containers of others are registered, and how.
    pub registrar: Registrar,
    /// Resolvers for names that are none of ours.
    pub forward: Vec<SocketAddr>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            domain: discovery::DOMAIN.into(),
            register: None,
            registrar: Registrar::Off,
            forward: Vec::new(),
        }
    }
}

/// How containers that Pressroom did not start are registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Registrar {
    /// Not at all.
    #[default]
    Off,
    /// By the machine's address and the ports that they publish there.
    Published,
    /// By their own addresses and the ports that they expose.
    Internal,
}

/// What the nodes of a cluster have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Addresses of which each is on one node at a time.
    pub addresses: Vec<Floating>,
}

/// The database engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Database {
    /// A private MariaDB that we run.
    Managed {
        /// Memory for it; by default an eighth of the machine's, at least 128 MiB and at most 4 GiB.
        memory: Option<ByteSize>,
    },
}

/// The two Redis servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Private servers that we run.
    Managed {
        /// Memory of the object cache; by default a sixteenth of the machine's, at least 64 MiB and at most 1 GiB.
        memory: Option<ByteSize>,
    },
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// What it is a copy of, if it is an environment. Never in the file.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Host names; never empty; the first is the canonical one.
    pub domains: Vec<String>,
    /// Whether it is a multisite network, and of which kind.
    #[serde(default)]
    pub network: Option<Network>,
    /// Whether administrators may change code in wp-admin (WordPress's own term for that).
    #[serde(default)]
    pub file_mods: bool,
    /// The title given at installation.
    pub title: String,
    /// Where the code comes from.
    pub wordpress: Source,
    /// The administrator made at installation.
    pub admin: Admin,
    /// PHP settings.
    pub php: Php,
    /// Largest upload: one setting for all layers.
    pub upload_limit: ByteSize,
    /// The operator's own certificate.
    pub certificate: Option<CertificateFiles>,
    /// The page cache.
    pub page_cache: PageCache,
    /// Commands around a deploy.
    #[serde(default)]
    pub deploy: Hooks,
    /// Scheduled events.
    #[serde(default)]
    pub cron: Cron,
    /// Where it may run in a cluster.
    #[serde(default)]
    pub placement: crate::placement::Rules,
}

/// How a site's scheduled events are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cron {
    /// What becomes of an event whose runner died inside it.
    pub interrupted: Interrupted,
}

/// What becomes of an event whose runner died inside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interrupted {
    /// It is run again, once; then it is reported.
    #[default]
    Again,
    /// It is reported.
    Report,
}

impl Interrupted {
    /// As it is written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Report => "report",
        }
    }
}

/// Commands that are run around a deploy, as the site's user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// In the new code, before any instance runs it; one that fails ends the deploy.
    pub before: Vec<String>,
    /// When every new request runs it.
    pub after: Vec<String>,
}

/// Where a site's code comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The distribution's `wordpress` package.
    Debian,
    /// A folder with a whole WordPress tree.
    Path(PathBuf),
    /// A `.tar.gz` or `.zip` file with a whole WordPress tree.
    Archive {
        /// The file.
        path: PathBuf,
        /// Its digest, 64 hexadecimal digits.
        sha256: String,
    },
    /// A version that wordpress.org publishes; made by [`Source::published`].
    Version(String),
    /// A git repository with a whole WordPress tree, or a Bedrock project.
    Git {
        /// An absolute path, or what git takes as an address.
        url: String,
        /// A branch, a tag or a commit.
        reference: String,
    },
}

impl Source {
    /// A version that wordpress.org publishes; what is wrong with its name otherwise.
    pub fn published(version: &str) -> Result<Self, &'static str> {
        let (numbers, end) = version.split_once('-').unwrap_or((version, "RC1"));
        let is_number = |part: &str| {
            (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let parts: Vec<&str> = numbers.split('.').collect();
        let is_end = |prefix: &str| end.strip_prefix(prefix).is_some_and(is_number);
        let is_good = (2..=3).contains(&parts.len())
            && parts.into_iter().all(is_number)
            && (is_end("RC") || is_end("beta"));
        match is_good {
            true => Ok(Self::Version(version.to_owned())),
            false => Err("write a version of WordPress: `6.5.2`, `6.6-RC1`"),
        }
    }
}

/// The administrator made at installation; later changes happen in WordPress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Login name.
    pub user: String,
    /// E-mail address.
    pub email: String,
}

/// PHP settings of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Php {
    /// Version, as in the package's name: `8.2`.
    pub version: String,
    /// What confines its instances.
    #[serde(default)]
    pub runtime: Runtime,
    /// The image of its containers; `None`: one of this machine's packages.
    #[serde(default)]
    pub image: Option<String>,
    /// PHP processes per instance.
    pub workers: u16,
    /// Fewest and most instances.
    pub instances: Instances,
    /// Memory limit of a worker.
    pub memory: ByteSize,
    /// Longest run of one request.
    pub time: Span,
    /// Requests slower than this are written to the slow log with a backtrace.
    pub slow: Span,
    /// An instance is replaced after about this time; 0: never.
    #[serde(default = "a_day")]
    pub max_age: Span,
    /// The most that an instance may take, with everything that it starts.
    #[serde(default)]
    pub limits: Limits,
    /// Further `php.ini` values, as `name = value`.
    pub ini: std::collections::BTreeMap<String, String>,
}

/// What confines the instances of a site; both give the same view and the same limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// The kernel, asked by the keeper.
    #[default]
    Process,
    /// A container of Docker's.
    Docker,
}

impl Runtime {
    /// As the configuration says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

fn a_day() -> Span {
    Span::seconds(86_400)
}

/// The most that an instance may take, as far as somebody has said it; the rest follows from its workers ([`Php::most`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Memory. Never less than one worker may take.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Processes and threads. Always more than workers.
    #[serde(default)]
    pub processes: Option<u16>,
    /// Percent of one processor.
    #[serde(default)]
    pub cpu: Option<u16>,
}

impl Php {
    /// The most that an instance may take: its workers at their limits, the code that they share, and something for what they
    /// start; processors only as far as somebody has said it, because an idle one helps nobody.
    pub fn most(&self) -> confinement::Limits {
        let workers = self.workers;
        let memory = u64::from(workers) * (self.memory.get() + ByteSize::mib(64).get())
            + ByteSize::mib(512).get();
        confinement::Limits {
            memory: Some(self.limits.memory.map_or(memory, ByteSize::get)),
            tasks: Some(self.limits.processes.map_or(u32::from(workers) * 32 + 64, u32::from)),
            cpu_percent: self.limits.cpu.map(u32::from),
        }
    }
}

/// Bounds of the number of instances. `min` is never above `max`, and never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// Fewest.
    pub min: u16,
    /// Most.
    pub max: u16,
}

/// A certificate and key of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFiles {
    /// PEM: the certificate, then its issuers.
    pub chain: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Rules of a site's page cache as an operator writes them; see [`crate::snapshot::CacheRules`] for the meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCache {
    /// Whether pages are stored.
    pub enabled: bool,
    /// Upper bound of a page's TTL.
    pub ttl_max: Span,
    /// Served stale so long while one request refreshes.
    pub stale_while_revalidate: Span,
    /// Served stale so long when PHP fails.
    pub stale_if_error: Span,
    /// Parameters that are no part of the key.
    pub ignored_parameters: Vec<String>,
    /// Cookies that bypass.
    pub bypass_cookies: Vec<String>,
    /// Cookies that are declared variants.
    pub vary_cookies: Vec<String>,
}

/// Secrets of one site, made once; stored in `secrets/site-NAME.json` (0600), never in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSecrets {
    /// Password of the site's database user.
    pub database: Secret,
    /// Password of the site's Redis user (the same on both servers).
    pub redis: Secret,
    /// WordPress's eight keys and salts, by constant name (`AUTH_KEY` …).
    pub salts: std::collections::BTreeMap<String, Secret>,
    /// Lets our scheduler run this site's cron (`PRESSROOM_CRON_KEY`).
    pub cron: Secret,
}
