//! The tables of a site follow its WordPress: after another one serves, they are dumped and brought to what it wants.
//!
//! After going back, WordPress does the same with an older one, as it does by itself: it keeps what is in the tables, and calls them
//! by the older number. What they were can be put back whole, which takes back what was written since.

use std::path::PathBuf;

use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_runtime::clock;
use serde::Deserialize;

use super::{Error, script};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine::mariadb::MariaDb;
use crate::facts::Upgrade;
use crate::files;
use crate::secrets;

/// What `upgrade.php` says.
#[derive(Debug, Deserialize)]
struct Told {
    needed: bool,
    from: u64,
    to: u64,
}

impl Agent {
    /// Dumps the tables and has WordPress upgrade them, if they are behind. Doing it again does nothing.
    pub(crate) async fn upgrade_database(
        &self,
        name: &SiteName,
        mariadb: &MariaDb,
    ) -> Result<(), Error> {
        let _alone = self.tables.lock().await;
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            facts.and_then(|facts| facts.serving.as_ref()).map(|s| s.release.wordpress.clone())
        };
        let Some(wordpress) = serving else { return Ok(()) };
        let told = self.ask_upgrade(name, "--look").await?;
        if told.needed {
            let dump = self.dump(name, mariadb, &format!("before-wordpress-{wordpress}")).await?;
            self.ask_upgrade(name, "--run").await?;
            let upgrade = Upgrade {
                at_ms: clock::wall_ms(),
                from: told.from,
                to: told.to,
                wordpress: wordpress.clone(),
                dump: dump.clone(),
            };
            self.state.lock().sites.entry(name.clone()).or_default().was_upgraded(upgrade);
            self.notice(format!(
                "the tables of `{name}` were brought from schema {} to {} for WordPress {wordpress}; what they were before is in {}",
                told.from,
                told.to,
                dump.display()
            ));
        }
        self.state.lock().sites.entry(name.clone()).or_default().schema_of = Some(wordpress);
        self.remember(name).await?;
        Ok(())
    }

    /// What WordPress did to the site's tables since a release served.
    pub fn upgraded_since(&self, name: &SiteName, id: &ReleaseId) -> Option<Upgrade> {
        let state = self.state.lock();
        let facts = state.sites.get(name)?;
        let kept = facts.releases.iter().find(|kept| kept.release.id == *id)?;
        facts.upgraded_since(kept).cloned()
    }

    /// Puts a site's tables back as they were before an upgrade, all at once. What is said of where those are that it had until now.
    /// Tables that have come since stay.
    pub async fn put_tables_back(
        &self,
        name: &SiteName,
        upgrade: &Upgrade,
    ) -> Result<PathBuf, Error> {
        let _alone = self.tables.lock().await;
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        let engines = self.engines(&config)?;
        let mariadb = engines.mariadb.clone();
        let now = self.dump(name, &mariadb, "before-rollback").await?;
        mariadb.stage(name, &[]).await?;
        let password = secrets::site(&self.layout, name)?.database;
        let (server, site, from) = (mariadb.clone(), name.clone(), upgrade.dump.clone());
        let loaded = off_the_loop(move || {
            server.load_on_stage(&site, &from, &password).map_err(Error::from)
        });
        let swapped = match loaded.await {
            Ok(()) => mariadb.swap_whole_stage(name).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        mariadb.strike(name).await?;
        swapped?;
        self.state.lock().sites.entry(name.clone()).or_default().was_undone(upgrade);
        self.remember(name).await?;
        engines.redis[0].forget_site(name).await?;
        Ok(now)
    }

    /// Dumps a site's database beside its other dumps.
    async fn dump(&self, name: &SiteName, mariadb: &MariaDb, why: &str) -> Result<PathBuf, Error> {
        let folder = self.layout.dumps(name);
        files::folder(&folder, 0o700, None)?;
        let stamp = clock::stamp(clock::wall_ms());
        let dump = folder.join(format!("{stamp}-{why}.sql"));
        let (server, site, into) = (mariadb.clone(), name.clone(), dump.clone());
        off_the_loop(move || server.dump_site(&site, &into).map_err(Error::from)).await?;
        Ok(dump)
    }

    async fn ask_upgrade(&self, name: &SiteName, verb: &str) -> Result<Told, Error> {
        let answer =
            self.run_script(name, "upgrade.php", &[script::ROOT, verb], Vec::new()).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| std::io::Error::other(format!("upgrade.php: {error}")).into())
    }
}
