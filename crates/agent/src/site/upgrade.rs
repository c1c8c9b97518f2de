//! The tables of a site follow its WordPress: after another one serves, they are dumped and brought up to date.

use pressroom_model::id::SiteName;
use pressroom_runtime::clock;
use serde::Deserialize;

use super::{Error, script};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine::mariadb::MariaDb;
use crate::files;

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
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            facts.and_then(|facts| facts.serving.as_ref()).map(|s| s.release.wordpress.clone())
        };
        let Some(wordpress) = serving else { return Ok(()) };
        let told = self.ask_upgrade(name, "--look").await?;
        if told.needed {
            let folder = self.layout.dumps(name);
            files::folder(&folder, 0o700, None)?;
            let stamp = clock::stamp(clock::wall_ms());
            let dump = folder.join(format!("{stamp}-before-wordpress-{wordpress}.sql"));
            let (server, site, into) = (mariadb.clone(), name.clone(), dump.clone());
            off_the_loop(move || server.dump_site(&site, &into).map_err(Error::from)).await?;
            self.ask_upgrade(name, "--run").await?;
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

    async fn ask_upgrade(&self, name: &SiteName, verb: &str) -> Result<Told, Error> {
        let answer =
            self.run_script(name, "upgrade.php", &[script::ROOT, verb], Vec::new()).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| std::io::Error::other(format!("upgrade.php: {error}")).into())
    }
}
