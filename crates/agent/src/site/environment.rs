//! Environments: copies of a site for trying things, made, made again, and taken away without a trace.
//!
//! An environment is in the intent beside the configuration; from there on it is prepared, served and supervised as any
//! site is. What differs is how its WordPress comes: not by an installation, but by a copy of the parent's database and media,
//! whose addresses are moved and whose users' ways in are replaced.

use pressroom_model::config::Site;
use pressroom_model::environment::{self, Environment, MadeBy};
use pressroom_model::id::{EnvironmentName, SiteName};
use pressroom_model::secret::Secret;
use pressroom_model::snapshot::Guard;
use pressroom_plan::environment::effective;
use pressroom_runtime::clock;
use serde::Deserialize;

use super::{Error, home, media, network_at, script};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine::mariadb::MariaDb;
use crate::facts::{Origin, Release};
use crate::files;
use crate::keeper;
use crate::layout::Layout;
use crate::secrets;

/// How an environment is wished for.
#[derive(Debug, Clone)]
pub struct Wished {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether its scheduled events run.
    pub cron: bool,
    /// Whether its shop offers ways to pay.
    pub payments: bool,
    /// What makes it.
    pub made_by: MadeBy,
}

/// What `rewrite.php` says, as far as people need it.
#[derive(Debug, Deserialize)]
struct Rewritten {
    changed: u64,
    broken_count: u64,
    #[serde(default)]
    broken: Vec<Broken>,
}

#[derive(Debug, Deserialize)]
struct Broken {
    table: String,
    column: Option<String>,
    reason: String,
}

/// What `environment.php` says.
#[derive(Debug, Deserialize)]
struct Owned {
    user: String,
}

impl Agent {
    /// Makes an environment part of the intent; its copy is made by the loop.
    pub async fn add_environment(&self, of: &SiteName, wished: Wished) -> Result<SiteName, Error> {
        let name = environment::site_name(of, &wished.name)?;
        let _alone = self.making.lock().await;
        let written = self.written().ok_or_else(|| Error::Unknown(of.clone()))?;
        let mut environments = self.environments();
        if environments.iter().any(|known| known.of == *of && known.name == wished.name) {
            return Err(Error::Twice { of: of.clone(), name: wished.name });
        }
        let password = secrets::random(20);
        let environment = Environment {
            of: of.clone(),
            name: wished.name,
            password: blake3::hash(password.reveal().as_bytes()).to_hex().to_string(),
            cron: wished.cron,
            payments: wished.payments,
            made_ms: clock::wall_ms(),
            made_by: wished.made_by,
        };
        environments.push(environment.clone());
        if let Some(fault) = pressroom_plan::environment::fault(&written, &environments) {
            return Err(fault.into());
        }
        let config = effective(&written, &environments);
        if let Some(site) = config.sites.iter().find(|site| site.name == name) {
            self.no_blog_there(&config, of, site).await?;
        }
        // From here on nothing may be left of it, until it is wanted.
        self.change_environments(|_, leaving| leaving.extend([name.clone()])).await?;
        // What a removal that broke off has left must not be taken for this one's.
        self.clear_site(&name).await?;
        let text = format!("{}\n", password.reveal());
        let path = self.layout.environment_password(&name);
        files::write(&path, text.as_bytes(), 0o600, None)?;
        self.change_environments(|environments, leaving| {
            leaving.remove(&name);
            environments.push(environment);
        })
        .await?;
        Ok(name)
    }

    /// A blog of the network may have the address already.
    async fn no_blog_there(
        &self,
        config: &pressroom_model::config::Config,
        of: &SiteName,
        site: &Site,
    ) -> Result<(), Error> {
        let home = home(config, site);
        let authority = home.split_once("://").map_or(home.as_str(), |(_, authority)| authority);
        let mariadb = &self.engines(config)?.mariadb;
        match site.network.is_some() && mariadb.has_blog(of, authority).await? {
            true => Err(Error::Blog { of: of.clone(), domain: authority.to_owned() }),
            false => Ok(()),
        }
    }

    /// The login name of an environment's administrator, once it was made.
    pub fn environment_admin(&self, name: &SiteName) -> Option<String> {
        self.state.lock().sites.get(name)?.admin.clone()
    }

    /// The release of an environment that has none yet: what its parent serves.
    pub(super) async fn release_of_parent(
        &self,
        site: &Site,
        environment: &Environment,
    ) -> Result<Release, Error> {
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(&environment.of);
            facts.and_then(|facts| facts.serving.as_ref()).map(|serving| serving.release.clone())
        };
        let served = serving.ok_or_else(|| Error::Unready(environment.of.clone()))?;
        let origin = Origin {
            is_brought: true,
            message: format!("as `{}`: {}", environment.of, served.origin.message),
            commit: None,
            ..served.origin.clone()
        };
        self.adopt(site, Release { origin, ..served }).await
    }

    /// Makes an environment's WordPress: the parent's database and media, with addresses and ways in of its own. May be
    /// done twice.
    pub(crate) async fn copy_site(&self, name: &SiteName, mariadb: &MariaDb) -> Result<(), Error> {
        let site = self.site(name).ok_or_else(|| Error::Unknown(name.clone()))?;
        let Some(environment) = &site.environment else { return Ok(()) };
        // A script of a copy that broke off may still be at work.
        keeper::end_limit(self.layout.data(), name.as_str());
        let admin = self.copy_parent(&site, environment, mariadb).await?;
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        {
            let mut state = self.state.lock();
            let schema = state.sites.get(&environment.of).and_then(|f| f.schema_of.clone());
            let facts = state.sites.entry(name.clone()).or_default();
            facts.is_installed = true;
            facts.admin = Some(admin);
            facts.schema_of = schema;
            facts.network = network_at(&config, &site);
        }
        self.remember(name).await?;
        self.bytecode.due.notify_one();
        Ok(())
    }

    /// Copies the parent's database and media again; the code stays as it is.
    pub async fn refresh_environment(&self, name: &SiteName) -> Result<(), Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        let engines = self.engines(&config)?;
        self.copy_site(name, &engines.mariadb).await?;
        for redis in &engines.redis {
            redis.forget_site(name).await?;
        }
        Ok(())
    }

    async fn copy_parent(
        &self,
        site: &Site,
        environment: &Environment,
        mariadb: &MariaDb,
    ) -> Result<String, Error> {
        let (from, to) = (&environment.of, &site.name);
        let secrets = secrets::site(&self.layout, to)?;
        let began = clock::now();
        let (server, source, target) = (mariadb.clone(), from.clone(), to.clone());
        let database = off_the_loop(move || {
            server.copy_site(&source, &target, &secrets.database).map_err(Error::from)
        });
        let (done, copied) = tokio::join!(database, self.copy_media(from, to));
        done?;
        let copied = copied?;
        mariadb.drop_strays(from, to).await?;
        let at_hand = began.elapsed();
        let rewritten = self.move_addresses(site, environment).await?;
        let owned = self.own_users(site).await?;
        tracing::info!(
            site = %to, user = %owned.user, ?copied, ?at_hand, changed = rewritten.changed,
            whole = ?began.elapsed(), "copied"
        );
        if rewritten.broken_count > 0 {
            let first = rewritten.broken.first().map(|one| {
                let column = one.column.as_deref().unwrap_or("*");
                format!(": {}.{column}: {}", one.table, one.reason)
            });
            self.notice(format!(
                "`{to}`: {} values were broken before and were left as they are{}",
                rewritten.broken_count,
                first.unwrap_or_default()
            ));
        }
        Ok(owned.user)
    }

    async fn copy_media(&self, from: &SiteName, to: &SiteName) -> Result<media::Copied, Error> {
        let (source, target) = (self.layout.uploads(from), self.layout.uploads(to));
        let workshop = self.layout.site(to).join("uploads.new");
        let owners = media::Owners {
            from: self.users.site(from)?.map(|user| user.uid),
            to: self.users.site(to)?.map(|user| (user.uid, user.gid)),
        };
        off_the_loop(move || media::copy(&source, &target, &workshop, owners).map_err(Error::from))
            .await
    }

    async fn move_addresses(
        &self,
        site: &Site,
        environment: &Environment,
    ) -> Result<Rewritten, Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(site.name.clone()))?;
        let parent = self.site(&environment.of);
        let parent = parent.ok_or_else(|| Error::Unknown(environment.of.clone()))?;
        let wish = serde_json::json!({
            "from": addresses(&config, &parent),
            "to": home(&config, site),
            "paths": [[self.layout.site(&environment.of), self.layout.site(&site.name)]],
        });
        let wish = wish.to_string().into_bytes();
        let answer = self.run_script(&site.name, "rewrite.php", &[script::ROOT], wish).await?;
        understood("rewrite.php", &answer)
    }

    async fn own_users(&self, site: &Site) -> Result<Owned, Error> {
        let password = password(&self.layout, &site.name)?;
        let wish = serde_json::json!({ "user": site.admin.user, "password": password.reveal() })
            .to_string();
        let answer = self
            .run_script(&site.name, "environment.php", &[script::ROOT], wish.into_bytes())
            .await?;
        understood("environment.php", &answer)
    }
}

/// All addresses of a site, at the ports at which it is served.
pub(super) fn addresses(config: &pressroom_model::config::Config, site: &Site) -> Vec<String> {
    let first = home(config, site);
    let port = first.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let port = port.map(|(_, port)| format!(":{port}")).unwrap_or_default();
    let scheme = first.split_once("://").map_or("https", |(scheme, _)| scheme);
    let others = site.domains.iter().filter(|domain| !domain.starts_with("*."));
    if site.network.is_some() {
        // Its other domains are those of blogs, which are not the main one.
        return vec![first];
    }
    let mut all = vec![first.clone()];
    all.extend(others.map(|domain| format!("{scheme}://{domain}{port}")));
    all.sort();
    all.dedup();
    all
}

fn understood<T: serde::de::DeserializeOwned>(script: &str, answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer)
        .map_err(|error| std::io::Error::other(format!("{script}: {error}")).into())
}

/// The password in front of an environment and of its administrator.
pub fn password(layout: &Layout, name: &SiteName) -> std::io::Result<Secret> {
    let path = layout.environment_password(name);
    let text = std::fs::read_to_string(&path).map_err(|error| files::naming(&path, &error))?;
    Ok(Secret::new(text.trim_end()))
}

/// What the edge puts in front of an environment: its password, or the key that its own WordPress has.
pub(crate) fn guard(environment: &Environment, key: &Secret) -> Guard {
    Guard {
        realm: format!("{} of {}", environment.name, environment.of),
        passwords: vec![
            environment.password.clone(),
            blake3::hash(key.reveal().as_bytes()).to_hex().to_string(),
        ],
    }
}
