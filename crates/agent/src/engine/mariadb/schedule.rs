//! When WordPress's scheduled events are due, read from its tables: of every blog, where the site is a network.
//!
//! A look is one connection and two statements at most for hundreds of blogs (one more for each 200): the list of blogs,
//! and the beginning of each blog's `cron` option, found by its index. A blog whose tables are not there (it is being
//! made, or broken) costs the others nothing but one look into the dictionary.

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use pressroom_model::id::SiteName;
use pressroom_model::snapshot::Network;
use pressroom_plan::cron::CUT_OFF;

use super::{MariaDb, database_of};

/// Tables in one statement: far below what MariaDB keeps open.
const AT_ONCE: usize = 200;
const NO_SUCH_TABLE: u16 = 1146;

impl MariaDb {
    /// The blogs of a site that have events, and when the next one of each is due, seconds since 1970: the first key of
    /// WordPress's `cron` option, which it keeps in order of time.
    pub async fn next_cron_events(
        &self,
        site: &SiteName,
        network: Option<Network>,
    ) -> Result<Vec<(u64, u64)>, Error> {
        let database = database_of(site);
        let mut connection = self.connect().await?;
        let blogs = match network {
            None => vec![1],
            Some(_) => living_blogs(&mut connection, &database).await?,
        };
        let mut next = Vec::new();
        for blogs in blogs.chunks(AT_ONCE) {
            let options = match options_of(&mut connection, &database, blogs).await {
                Err(Error::Server(error)) if error.code == NO_SUCH_TABLE => {
                    let blogs = with_tables(&mut connection, &database, blogs).await?;
                    options_of(&mut connection, &database, &blogs).await?
                }
                options => options?,
            };
            next.extend(options.iter().filter_map(|(blog, text)| Some((*blog, first_key(text)?))));
        }
        connection.disconnect().await?;
        Ok(earliest(next))
    }

    /// Host, port and path of a blog, as WordPress has them; `None`: there is no such blog.
    pub async fn blog_address(&self, site: &SiteName, blog: u64) -> Result<Option<String>, Error> {
        let mut connection = self.connect().await?;
        let address: Option<String> = connection
            .exec_first(
                format!(
                    "SELECT CONCAT(domain, path) FROM `{}`.wp_blogs WHERE blog_id = ?",
                    database_of(site)
                ),
                (blog,),
            )
            .await?;
        connection.disconnect().await?;
        Ok(address)
    }

    /// Whether a network has a blog at this host and port.
    pub async fn has_blog(&self, site: &SiteName, domain: &str) -> Result<bool, Error> {
        let mut connection = self.connect().await?;
        let query = format!("SELECT 1 FROM `{}`.wp_blogs WHERE domain = ?", database_of(site));
        let found: Option<u8> = connection.exec_first(query, (domain,)).await?;
        connection.disconnect().await?;
        Ok(found.is_some())
    }
}

/// Each blog once.
fn earliest(all: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut earliest = BTreeMap::new();
    for (blog, at) in all {
        earliest.entry(blog).and_modify(|known: &mut u64| *known = at.min(*known)).or_insert(at);
    }
    earliest.into_iter().collect()
}

/// WordPress answers for no others.
async fn living_blogs(connection: &mut Conn, database: &str) -> Result<Vec<u64>, Error> {
    let query = format!(
        "SELECT blog_id FROM `{database}`.wp_blogs WHERE deleted = 0 AND archived = 0 AND spam = 0"
    );
    connection.query(query).await
}

async fn options_of(
    connection: &mut Conn,
    database: &str,
    blogs: &[u64],
) -> Result<Vec<(u64, String)>, Error> {
    let selects: Vec<String> = blogs
        .iter()
        .map(|blog| {
            let table = table_of(*blog);
            // An event that is written down as under way, and nobody holds the lock of those who run any: it was cut off.
            format!(
                "SELECT {blog}, SUBSTRING(option_value, 1, 64) FROM `{database}`.{table} WHERE option_name = 'cron' \
                 UNION ALL SELECT {blog}, '{{i:{CUT_OFF};' FROM `{database}`.{table} \
                 WHERE option_name = 'pressroom_cron_running' AND IS_FREE_LOCK('cron {database} {blog}')"
            )
        })
        .collect();
    if selects.is_empty() {
        return Ok(Vec::new());
    }
    connection.query(selects.join(" UNION ALL ")).await
}

/// Those of the blogs whose options are there.
async fn with_tables(
    connection: &mut Conn,
    database: &str,
    blogs: &[u64],
) -> Result<Vec<u64>, Error> {
    let names: Vec<String> = connection
        .exec(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_name LIKE '%options'",
            (database,),
        )
        .await?;
    let names: BTreeSet<String> = names.into_iter().collect();
    Ok(blogs.iter().copied().filter(|blog| names.contains(&table_of(*blog))).collect())
}

fn table_of(blog: u64) -> String {
    if blog == 1 { "wp_options".to_owned() } else { format!("wp_{blog}_options") }
}

/// The first integer key of a serialised PHP array.
fn first_key(serialised: &str) -> Option<u64> {
    let after = serialised.split_once("{i:")?.1;
    after.split_once(';')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_read_from_the_option() {
        assert_eq!(
            first_key("a:5:{i:1769000000;a:1:{s:16:\"wp_version_check\""),
            Some(1_769_000_000)
        );
        assert_eq!(first_key("a:1:{s:7:\"version\";i:2;}"), None);
        assert_eq!(first_key(""), None);
    }

    #[test]
    fn a_blog_is_due_when_its_earliest_event_is() {
        assert_eq!(earliest(vec![(1, 50), (2, 40), (1, 0)]), [(1, 0), (2, 40)]);
    }

    #[test]
    fn the_first_blog_has_no_number_in_its_tables() {
        assert_eq!((table_of(1).as_str(), table_of(12).as_str()), ("wp_options", "wp_12_options"));
    }
}
