//! One site on this machine: its user and folders, its code, its WordPress.

pub(crate) mod check;
mod code;
pub mod environment;
mod leave;
mod media;
mod promote;
mod remove;
mod rollout;
mod script;
mod upgrade;

use std::io;

use pressroom_model::config::{CertificateFiles, Config, Site};
use pressroom_model::id::SiteName;
use pressroom_model::snapshot::Network;
use pressroom_plan::machine::REDIS_CACHE;
use pressroom_render::wordpress;
use pressroom_runtime::clock;

use crate::agent::Agent;
use crate::confinement::etc;
use crate::engine::mariadb::database_of;
use crate::engine::{owner, php::Instances};
use crate::facts::Prepared;
use crate::files;
use crate::{acl, secrets, tls};

pub(crate) use code::compiler;
pub use code::{Brought, Code, in_words, is_current, is_ours};
pub use promote::Promoted;
pub use remove::Removed;
pub use rollout::Outcome;
pub use script::{ScriptError, enter};

/// Why something could not be done for a site.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not in the configuration.
    #[error("there is no site `{0}` in the configuration")]
    Unknown(SiteName),
    /// It is still in the configuration, so nothing of it may be deleted.
    #[error("`{0}` is in the configuration: it is not deleted")]
    Wanted(SiteName),
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A user.
    #[error(transparent)]
    Users(#[from] crate::users::Error),
    /// Its secrets are on other nodes.
    #[error("the secrets of `{0}` have not come yet from the cluster's store")]
    Unshared(SiteName),
    /// A secret.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// An engine.
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    /// A version that is to be downloaded.
    #[error(transparent)]
    Published(#[from] crate::published::PublishedError),
    /// Its code.
    #[error("the code of `{site}`: {source}")]
    Code {
        /// Which site.
        site: SiteName,
        /// Why.
        source: pressroom_release::ReleaseError,
    },
    /// Its code is on other nodes.
    #[error(transparent)]
    Fetch(#[from] crate::cluster::code::FetchError),
    /// The repository that its code comes from.
    #[error("the code of `{site}`: {source}")]
    Source {
        /// Which site.
        site: SiteName,
        /// Why.
        source: crate::git::source::SourceError,
    },
    /// Its network cannot become something else.
    #[error(
        "`{site}` is a network of {is} and cannot become {wanted}: write `network = \"{is}\"` in its `[[site]]`"
    )]
    Network {
        /// Which site.
        site: SiteName,
        /// What it is.
        is: String,
        /// What the configuration says.
        wanted: String,
    },
    /// One of our PHP scripts.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The environment has no name that a site could have.
    #[error(transparent)]
    Name(#[from] pressroom_model::id::BadName),
    /// The environment is there.
    #[error("`{of}` has an environment `{name}` already")]
    Twice {
        /// The site.
        of: SiteName,
        /// The environment.
        name: pressroom_model::id::EnvironmentName,
    },
    /// Environments and configuration do not go together.
    #[error(transparent)]
    Environments(#[from] pressroom_plan::environment::Fault),
    /// A blog of the network has the environment's address.
    #[error("the network `{of}` has a blog at `{domain}`")]
    Blog {
        /// The site.
        of: SiteName,
        /// The address.
        domain: String,
    },
    /// Tables of an environment cannot become the site's.
    #[error("{0}")]
    Table(String),
    /// A site serves nothing that could be copied.
    #[error("`{0}` serves nothing yet")]
    Unready(SiteName),
    /// The database.
    #[error("MariaDB: {0}")]
    Database(#[from] mysql_async::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] pressroom_store::StoreError),
}

/// The home URL of a site, without a slash at its end: HTTPS where it is served, with the port where it is not the scheme's.
pub fn home(config: &Config, site: &Site) -> String {
    let host = site.domains[0].replace("*.", "www.");
    match (config.edge.https.first(), config.edge.http.first()) {
        (Some(address), _) if address.port() == 443 => format!("https://{host}"),
        (Some(address), _) => format!("https://{host}:{}", address.port()),
        (None, Some(address)) if address.port() == 80 => format!("http://{host}"),
        (None, Some(address)) => format!("http://{host}:{}", address.port()),
        (None, None) => format!("https://{host}"),
    }
}

/// The kind of a site's network and where its main blog is; `None`: the site is no network.
pub fn network_at(config: &Config, site: &Site) -> Option<String> {
    site.network.map(|network| format!("{} {}", network.word(), home(config, site)))
}

/// What a run of scheduled events says, as far as it is heeded.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct CronSaid {
    /// WordPress wants to update itself, which only the author instance can.
    updates: bool,
    /// How many events ran.
    ran: u64,
    /// By how much the latest of them began after its time.
    late_ms: u64,
    /// Those that a former runner died inside, and that ran again.
    again: Vec<CutOff>,
    /// Those that are not run again.
    reported: Vec<CutOff>,
}

/// An event that its runner died inside.
#[derive(Debug, serde::Deserialize)]
struct CutOff {
    hook: String,
    /// When it had been due and when it began, seconds since 1970.
    due: u64,
    began: u64,
}

impl CutOff {
    fn words(&self, name: &SiteName) -> String {
        let at = |seconds: u64| clock::rfc3339(seconds.saturating_mul(1000));
        let Self { hook, due, began } = self;
        format!(
            "scheduled event `{hook}` of `{name}`, due {} and begun {}, was cut off",
            at(*due),
            at(*began)
        )
    }
}

impl Agent {
    /// Why a configuration cannot be applied: a network stays what it is, because its blogs have their addresses in
    /// WordPress's tables and in their pages.
    pub fn refuses(&self, config: &Config) -> Option<Error> {
        let fault = pressroom_plan::environment::fault(config, &self.environments());
        fault
            .map(Error::from)
            .or_else(|| config.sites.iter().find_map(|site| self.network_stays(site).err()))
    }

    fn network_stays(&self, site: &Site) -> Result<(), Error> {
        let state = self.state.lock();
        let known = state.sites.get(&site.name).and_then(|facts| facts.network.as_deref());
        let Some((is, _)) = known.and_then(|network| network.split_once(' ')) else {
            return Ok(());
        };
        let wanted = site.network.map(Network::word);
        if wanted == Some(is) {
            return Ok(());
        }
        Err(Error::Network {
            site: site.name.clone(),
            is: is.to_owned(),
            wanted: wanted.map_or("a single site".into(), |kind| format!("one of {kind}")),
        })
    }

    /// Makes what a site needs before anything of it can run.
    pub(crate) async fn prepare_site(&self, config: &Config, name: &SiteName) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let prepared = self.prepare_files(config, &site)?;
        self.state.lock().sites.entry(name.clone()).or_default().prepared = Some(prepared);
        // Once a day, also where nobody deploys.
        if let Err(error) = self.collect_releases(name).await {
            tracing::warn!(site = %name, %error, "old releases stay for now");
        }
        Ok(())
    }

    fn prepare_files(&self, config: &Config, site: &Site) -> Result<Prepared, Error> {
        let name = &site.name;
        self.network_stays(site)?;
        let user = self.users.site(name)?;
        let edge = self.users.edge()?;
        let ours = owner(user.as_ref());
        let readable = user.as_ref().map(|user| (0, user.gid));
        let folder = self.layout.site(name);
        // Once the list is there, a mode of 0700 would take it away for a moment, under the feet of running instances.
        if user.is_none() || !folder.is_dir() {
            files::folder(&folder, 0o700, None)?;
        }
        if let (Some(user), Some(edge)) = (&user, &edge) {
            acl::admit(&folder, &[user.uid, edge.uid]).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "{}: cannot set an access control list ({error}); use a file system with POSIX ACLs (ext4, xfs, btrfs)",
                        folder.display()
                    ),
                )
            })?;
        }
        files::folder(&folder.join("releases"), 0o755, None)?;
        files::folder(&folder.join("config"), 0o750, readable)?;
        files::folder(&self.layout.uploads(name), 0o755, ours)?;
        files::folder(&self.layout.tmp(name), 0o700, ours)?;
        files::folder(&self.layout.site_logs(name), 0o750, ours)?;
        self.keep_etc(name)?;
        if site.environment.is_some() {
            files::folder(&self.layout.mailbox(name), 0o700, ours)?;
        }
        if let Some(socket_folder) = self.layout.affirm(name).parent() {
            files::folder(socket_folder, 0o750, readable)?;
        }
        if !self.has_secret(&format!("site-{name}.json")) {
            return Err(Error::Unshared(name.clone()));
        }
        let secrets = secrets::site(&self.layout, name)?;
        let home = home(config, site);
        let site_config = wordpress::site_config(&wordpress::Facts {
            site,
            home: &home,
            database: &database_of(name),
            secrets: &secrets,
            writer: &self.layout.writer(),
            reader: &self.layout.reader(),
            redis: &self.layout.redis(REDIS_CACHE),
            mailbox: &self.layout.mailbox(name),
        });
        files::write(&self.layout.site_config(name), site_config.as_bytes(), 0o640, readable)?;
        let certificate = self.certificate(config, site)?;
        let at_ms = clock::wall_ms();
        Ok(Prepared { site: site.clone(), at_ms, home, certificate, site_config, user, secrets })
    }

    /// Keeps what a site's PHP sees as `/etc` up to date.
    pub(crate) fn keep_etc(&self, name: &SiteName) -> Result<(), Error> {
        let Some(user) = self.users.site(name)? else { return Ok(()) };
        files::folder(&self.layout.stage(), 0o700, None)?;
        Ok(etc::keep(&self.layout.site_etc(name), (user.uid, user.gid))?)
    }

    fn certificate(&self, config: &Config, site: &Site) -> Result<Option<tls::Paths>, Error> {
        if config.edge.https.is_empty() {
            return Ok(None);
        }
        let reader = self.users.edge()?.map(|edge| (0, edge.gid));
        let folder = self.layout.certificates();
        files::folder(&folder, 0o750, reader)?;
        if let Some(own) = &site.certificate {
            let known = self.certificate_copy(&site.name);
            return match self.copy_certificate(&site.name, own) {
                // A site that was served must not stand still because a file is away.
                Err(error) if known.chain.is_file() && known.key.is_file() => {
                    self.notice(format!("`{}` keeps its last certificate: {error}", site.name));
                    Ok(Some(known))
                }
                copied => Ok(Some(copied?)),
            };
        }
        let domains: Vec<String> =
            config.sites.iter().flat_map(|site| site.domains.clone()).collect();
        // Sites may be prepared at the same time; the authority is made once.
        let _one = self.authority.lock();
        Ok(Some(tls::local(&self.layout, site, &domains, reader, clock::wall_ms())?))
    }

    /// Gives the edge a copy of an operator's certificate: the key is usually root's alone.
    fn copy_certificate(
        &self,
        name: &SiteName,
        own: &CertificateFiles,
    ) -> Result<tls::Paths, Error> {
        let reader = self.users.edge()?.map(|edge| (0, edge.gid));
        let copy = |from: &std::path::Path, to: &std::path::Path, mode| -> io::Result<()> {
            let bytes = std::fs::read(from).map_err(|error| files::naming(from, &error))?;
            files::write(to, &bytes, mode, reader).map(drop)
        };
        let copies = self.certificate_copy(name);
        copy(&own.chain, &copies.chain, 0o644)?;
        copy(&own.key, &copies.key, 0o640)?;
        Ok(copies)
    }

    /// Where the copy of an operator's certificate is.
    fn certificate_copy(&self, name: &SiteName) -> tls::Paths {
        let file = |ending| self.layout.certificates().join(format!("{name}.own.{ending}"));
        tls::Paths { chain: file("pem"), key: file("key") }
    }

    /// Takes over operators' certificates that were renewed; a file that is away leaves the copy as it is.
    pub(crate) fn renew_copies(&self, config: &Config) {
        for site in &config.sites {
            if let Some(own) = &site.certificate
                && let Err(error) = self.copy_certificate(&site.name, own)
            {
                tracing::debug!(site = %site.name, %error, "the certificate cannot be copied");
            }
        }
    }

    /// Installs WordPress into a site's empty database, and makes or moves its network; what is there already is left as
    /// it is.
    pub(crate) async fn install_wordpress(&self, name: &SiteName) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let (prepared, was_installed) = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            let prepared = facts.and_then(|facts| facts.prepared.clone());
            let prepared = prepared.ok_or_else(|| Error::Unknown(name.clone()))?;
            (prepared, facts.is_some_and(|facts| facts.is_installed))
        };
        let network = prepared.site.network.map(Network::word);
        let given = secrets::given(&self.layout, name)?;
        // A generated password is on disk before it is in the database: dying in between loses nothing.
        let password = match &given {
            Some(password) => password.clone(),
            // Nobody is made any more.
            None if was_installed => secrets::random(20),
            None => {
                let password = secrets::random(20);
                let admin = secrets::InitialAdmin {
                    user: site.admin.user.clone(),
                    password: password.clone(),
                };
                secrets::keep_initial_admin(&self.layout, name, &admin)?;
                password
            }
        };
        let input = serde_json::json!({
            "url": prepared.home,
            "network": network,
            "upload_limit": site.upload_limit.get(),
            "title": site.title,
            "user": site.admin.user,
            "email": site.admin.email,
            "password": password.reveal(),
        });
        let answer = self
            .run_script(name, "install.php", &[script::ROOT], input.to_string().into_bytes())
            .await?;
        let is_new = serde_json::from_slice::<serde_json::Value>(&answer)
            .ok()
            .and_then(|answer| answer.get("installed")?.as_bool())
            .unwrap_or(false);
        if !is_new && given.is_none() && !was_installed {
            // It was there already, with a password that we do not know.
            secrets::take_initial_admin(&self.layout, name)?;
        }
        {
            let mut state = self.state.lock();
            let facts = state.sites.entry(name.clone()).or_default();
            facts.is_installed = true;
            if is_new {
                // The WordPress that made the tables is the one that the script ran in.
                let made_by = facts.serving.as_ref().map(|serving| &serving.release);
                let made_by = made_by.or(facts.release.as_ref());
                facts.schema_of = made_by.map(|release| release.wordpress.clone());
            }
            facts.network = network.map(|network| format!("{network} {}", prepared.home));
        }
        secrets::forget_given(&self.layout, name)?;
        self.remember(name).await?;
        self.bytecode.due.notify_one();
        Ok(())
    }

    /// The blogs of a site that have cron events, and when the next one of each is due, seconds since 1970. Without a
    /// network there is one blog, number 1.
    pub async fn next_cron_events(&self, name: &SiteName) -> Result<Vec<(u64, u64)>, Error> {
        let (Some(config), Some(site)) = (self.config(), self.site(name)) else {
            return Ok(Vec::new());
        };
        // PHP has the configuration of a network before the database has its tables.
        let is_whole =
            self.state.lock().sites.get(name).is_some_and(|facts| {
                facts.is_installed && facts.network == network_at(&config, &site)
            });
        if !is_whole {
            return Ok(Vec::new());
        }
        Ok(self.engines(&config)?.mariadb.next_cron_events(name, site.network).await?)
    }

    /// Runs the due cron events of a blog, in a process of its own: only so are the blog's own plugins loaded, whose
    /// events would otherwise be taken off its schedule without anybody to handle them.
    pub async fn run_cron(&self, name: &SiteName, blog: u64) -> Result<(), Error> {
        let (Some(config), Some(site)) = (self.config(), self.site(name)) else {
            return Ok(());
        };
        let interrupted = format!("--interrupted={}", site.cron.interrupted.word());
        let mut arguments = vec![script::ROOT.to_owned(), "--run".to_owned(), interrupted];
        if site.network.is_some() {
            let mariadb = &self.engines(&config)?.mariadb;
            let Some(address) = mariadb.blog_address(name, blog).await? else { return Ok(()) };
            let home = home(&config, &site);
            let scheme = home.split_once("://").map_or("https", |(scheme, _)| scheme);
            arguments.push(format!("--blog={scheme}://{address}"));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = self.run_script(name, script::CRON, &arguments, Vec::new()).await?;
        let said = serde_json::from_slice::<CronSaid>(&answer).unwrap_or_default();
        let CronSaid { ran, late_ms, .. } = said;
        tracing::info!(site = %name, blog, ran, late_ms, again = said.again.len(), reported = said.reported.len(), "events ran");
        for event in &said.again {
            self.notice(format!("{}; it ran again", event.words(name)));
        }
        for event in &said.reported {
            self.notice(format!("{}; it is not run again", event.words(name)));
        }
        if said.updates && site.file_mods {
            self.authors.update_soon(name);
        }
        Ok(())
    }

    /// Folders with ini files for a site's command line PHP.
    fn cli_ini(&self, site: &Site) -> String {
        Instances::ini_scan_dir(site, &self.layout.php_ini(&site.name), "cli")
    }
}
