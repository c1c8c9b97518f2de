//! Tables of an environment become its site's: compared on a stage with addresses moved back, dumped, swapped in.

use pressroom_model::config::Config;
use pressroom_model::id::SiteName;
use pressroom_runtime::clock;

use super::environment::addresses;
use super::{Error, home, script};
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine::mariadb::promote::{TableDiff, stage_of};
use crate::files;

/// WordPress's prefix in every site.
const PREFIX: &str = "wp_";
/// An environment's users have ways in of their own, which must not become the site's.
const OWN: &[&str] = &["users", "usermeta"];

/// Tables that were promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// What that changed.
    pub diffs: Vec<TableDiff>,
    /// What they were before.
    pub dump: std::path::PathBuf,
}

impl Agent {
    /// What promoting these tables of an environment would change in its site.
    pub async fn compare_tables(
        &self,
        name: &SiteName,
        tables: &[String],
    ) -> Result<Vec<TableDiff>, Error> {
        let (config, of) = self.both(name)?;
        let mariadb = self.engines(&config)?.mariadb.clone();
        let tables = self.staged(&config, &of, name, tables).await?;
        let diffs = mariadb.compare_staged(&of, name, &tables).await;
        mariadb.strike(name).await?;
        diffs?.map_err(Error::Table)
    }

    /// Promotes these tables, if that changes what is `expected` and nothing else.
    pub async fn promote_tables(
        &self,
        name: &SiteName,
        tables: &[String],
        expected: &[TableDiff],
    ) -> Result<Promoted, Error> {
        let (config, of) = self.both(name)?;
        let engines = self.engines(&config)?;
        let mariadb = engines.mariadb.clone();
        let tables = self.staged(&config, &of, name, tables).await?;
        let diffs = mariadb.compare_staged(&of, name, &tables).await?.map_err(Error::Table)?;
        if diffs != expected {
            mariadb.strike(name).await?;
            return Err(Error::Table("the tables changed since they were compared".into()));
        }
        let folder = self.layout.dumps(&of);
        files::folder(&folder, 0o700, None)?;
        let stamp = clock::stamp(clock::wall_ms());
        let dump = folder.join(format!("{stamp}-before-promotion.sql"));
        let known = mariadb.tables(&of).await?;
        let there: Vec<String> = tables.iter().filter(|t| known.contains(t)).cloned().collect();
        if !there.is_empty() {
            let (server, site, into) = (mariadb.clone(), of.clone(), dump.clone());
            off_the_loop(move || server.dump_tables(&site, &there, &into).map_err(Error::from))
                .await?;
        }
        let done = mariadb.swap_staged(&of, name, &tables).await?;
        mariadb.strike(name).await?;
        // The object cache alone: nobody's session has anything to do with it.
        engines.redis[0].forget_site(&of).await?;
        Ok(Promoted { diffs: done, dump })
    }

    fn both(&self, name: &SiteName) -> Result<(Config, SiteName), Error> {
        let config = self.config().ok_or_else(|| Error::Unknown(name.clone()))?;
        let site = config.sites.iter().find(|site| site.name == *name);
        let of = site.and_then(|site| site.environment.as_ref()).map(|it| it.of.clone());
        Ok((config, of.ok_or_else(|| Error::Unknown(name.clone()))?))
    }

    /// Lays the tables out with the addresses of the site, and says their whole names.
    async fn staged(
        &self,
        config: &Config,
        of: &SiteName,
        name: &SiteName,
        wished: &[String],
    ) -> Result<Vec<String>, Error> {
        let mariadb = self.engines(config)?.mariadb.clone();
        let known = mariadb.tables(name).await?;
        let tables = whole_names(wished, &known).map_err(Error::Table)?;
        let (Some(site), Some(parent)) = (self.site(name), self.site(of)) else {
            return Err(Error::Unknown(of.clone()));
        };
        let mut all = tables.clone();
        // Which blogs there are says which addresses move.
        let blogs = format!("{PREFIX}blogs");
        if site.network.is_some() && !all.contains(&blogs) {
            all.push(blogs);
        }
        mariadb.stage(name, &all).await?;
        let wish = serde_json::json!({
            "from": addresses(config, &site),
            "to": home(config, &parent),
            "paths": [[self.layout.site(name), self.layout.site(of)]],
            "tables": tables,
            "database": stage_of(name),
        });
        let wish = wish.to_string().into_bytes();
        self.run_script(name, "rewrite.php", &[script::ROOT], wish).await?;
        Ok(tables)
    }
}

/// The tables as the database has them; or what is wrong with the wish.
fn whole_names(wished: &[String], known: &[String]) -> Result<Vec<String>, String> {
    let mut tables = Vec::new();
    for name in wished {
        let bare = name.strip_prefix(PREFIX).unwrap_or(name);
        let whole = format!("{PREFIX}{bare}");
        if OWN.contains(&bare) {
            return Err(format!("`{whole}`: the environment's users are its own"));
        }
        if !known.contains(&whole) {
            return Err(format!("`{whole}`: the environment has no such table"));
        }
        if !tables.contains(&whole) {
            tables.push(whole);
        }
    }
    tables.sort();
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_with_or_without_prefix_and_users_are_refused() {
        let known = ["wp_posts", "wp_users", "wp_wp_odd"].map(str::to_owned);
        let names = |wished: &[&str]| {
            whole_names(&wished.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &known)
        };
        assert_eq!(names(&["posts", "wp_posts"]), Ok(vec!["wp_posts".to_owned()]));
        assert!(names(&["users"]).is_err_and(|why| why.contains("users are its own")));
        assert!(names(&["nope"]).is_err_and(|why| why.contains("no such table")));
    }
}
