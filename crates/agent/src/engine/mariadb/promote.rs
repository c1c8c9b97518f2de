//! Tables of an environment that become its site's: laid out in a database of their own, compared, and swapped in at once.
//!
//! The tables that are compared are the very tables that are swapped in, by one `RENAME TABLE` over all of them: visitors see
//! the old ones or the new ones.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use pressroom_model::id::SiteName;

use super::{ACCOUNT, DUMP, MariaDb, database_of};
use crate::engine::{self, program, run};

/// What tells a table of a site from the one that would take its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDiff {
    /// Its name.
    pub table: String,
    /// Rows that are new.
    pub added: u64,
    /// Rows that differ.
    pub changed: u64,
    /// Rows that go.
    pub removed: u64,
    /// Keys of some of them, with `+`, `~` or `-` before.
    pub keys: Vec<String>,
}

/// So many keys of each kind are named.
const NAMED: usize = 20;

/// The database in which tables of an environment are laid out. No site's begins so.
pub fn stage_of(environment: &SiteName) -> String {
    format!("promote_{}", environment.as_str().replace('-', "_"))
}

/// What a former table is called while it is in the stage.
fn former(table: &str) -> String {
    format!("former_{table}")
}

#[derive(Debug, PartialEq, Eq)]
struct Column {
    name: String,
    is_key: bool,
}

impl MariaDb {
    /// The tables of a site's database.
    pub async fn tables(&self, site: &SiteName) -> Result<Vec<String>, Error> {
        let mut connection = self.connect().await?;
        let tables = tables_in(&mut connection, &database_of(site)).await?;
        connection.disconnect().await?;
        Ok(tables)
    }

    /// Lays tables of an environment out; its user may change them there, to move addresses.
    pub async fn stage(&self, environment: &SiteName, tables: &[String]) -> Result<(), Error> {
        let (from, stage) = (database_of(environment), stage_of(environment));
        let pattern = stage.replace('_', "\\_");
        let mut connection = self.connect().await?;
        connection.query_drop(format!("DROP DATABASE IF EXISTS `{stage}`")).await?;
        connection
            .query_drop(format!(
                "CREATE DATABASE `{stage}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci"
            ))
            .await?;
        for table in tables {
            for statement in [
                format!("CREATE TABLE `{stage}`.`{table}` LIKE `{from}`.`{table}`"),
                format!("INSERT INTO `{stage}`.`{table}` SELECT * FROM `{from}`.`{table}`"),
            ] {
                connection.query_drop(statement).await?;
            }
        }
        connection
            .query_drop(format!("GRANT ALL PRIVILEGES ON `{pattern}`.* TO `{from}`@localhost"))
            .await?;
        connection.disconnect().await
    }

    /// Takes the stage away, with what is on it.
    pub async fn strike(&self, environment: &SiteName) -> Result<(), Error> {
        let (from, stage) = (database_of(environment), stage_of(environment));
        let pattern = stage.replace('_', "\\_");
        let mut connection = self.connect().await?;
        connection.query_drop(format!("DROP DATABASE IF EXISTS `{stage}`")).await?;
        // There may have been none.
        let _ = connection
            .query_drop(format!("REVOKE ALL PRIVILEGES ON `{pattern}`.* FROM `{from}`@localhost"))
            .await;
        connection.disconnect().await
    }

    /// What putting the staged tables in the place of the site's would change; or why that cannot be said of one.
    pub async fn compare_staged(
        &self,
        site: &SiteName,
        environment: &SiteName,
        tables: &[String],
    ) -> Result<Result<Vec<TableDiff>, String>, Error> {
        let (old, stage) = (database_of(site), stage_of(environment));
        let mut connection = self.connect().await?;
        let mut diffs = Vec::new();
        for table in tables {
            match compare(&mut connection, (&old, table), (&stage, table), table).await? {
                Ok(diff) => diffs.push(diff),
                Err(because) => return Ok(Err(format!("`{table}`: {because}"))),
            }
        }
        connection.disconnect().await?;
        Ok(Ok(diffs))
    }

    /// Puts the staged tables in the place of the site's, all at once; the former ones are on the stage afterwards. Says what
    /// that has changed.
    pub async fn swap_staged(
        &self,
        site: &SiteName,
        environment: &SiteName,
        tables: &[String],
    ) -> Result<Vec<TableDiff>, Error> {
        let (own, stage) = (database_of(site), stage_of(environment));
        let mut connection = self.connect().await?;
        swap(&mut connection, &own, &stage, tables).await?;
        let mut diffs = Vec::new();
        for table in tables {
            let former = former(table);
            let done = compare(&mut connection, (&stage, &former), (&own, table), table).await?;
            diffs.extend(done.ok());
        }
        connection.disconnect().await?;
        Ok(diffs)
    }

    /// Puts all tables of the site's own stage in the place of those that it has, all at once.
    pub async fn swap_whole_stage(&self, site: &SiteName) -> Result<(), Error> {
        let (own, stage) = (database_of(site), stage_of(site));
        let mut connection = self.connect().await?;
        let tables = tables_in(&mut connection, &stage).await?;
        swap(&mut connection, &own, &stage, &tables).await?;
        connection.disconnect().await
    }

    /// Dumps some tables of a site into a file.
    pub fn dump_tables(
        &self,
        site: &SiteName,
        tables: &[String],
        into: &std::path::Path,
    ) -> Result<(), engine::Error> {
        let dump = program(DUMP)?;
        let account = self.account_file("account-tables", ACCOUNT, &self.password)?;
        let mut command = std::process::Command::new(dump);
        command
            .arg(format!("--defaults-file={}", account.display()))
            .args(["--single-transaction", "--hex-blob"])
            .arg(format!("--result-file={}", into.display()))
            .arg(database_of(site))
            .args(tables);
        let result = run("MariaDB", "to dump tables", &mut command);
        std::fs::remove_file(&account)?;
        result
    }
}

async fn tables_in(connection: &mut Conn, database: &str) -> Result<Vec<String>, Error> {
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = ? AND table_type = 'BASE TABLE'";
    connection.exec(tables, (database,)).await
}

/// Tables of the stage take the place of those with the same names, which are on the stage afterwards.
async fn swap(
    connection: &mut Conn,
    own: &str,
    stage: &str,
    tables: &[String],
) -> Result<(), Error> {
    let mut moves = Vec::new();
    for table in tables {
        if !columns(connection, own, table).await?.is_empty() {
            let former = former(table);
            moves.push(format!("`{own}`.`{table}` TO `{stage}`.`{former}`"));
        }
        moves.push(format!("`{stage}`.`{table}` TO `{own}`.`{table}`"));
    }
    connection.query_drop(format!("RENAME TABLE {}", moves.join(", "))).await
}

async fn columns(connection: &mut Conn, database: &str, table: &str) -> Result<Vec<Column>, Error> {
    let columns: Vec<(String, bool)> = connection
        .exec(
            "SELECT column_name, column_key = 'PRI' FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            (database, table),
        )
        .await?;
    Ok(columns.into_iter().map(|(name, is_key)| Column { name, is_key }).collect())
}

/// What tells the table behind from the one in front; or why that cannot be said.
async fn compare(
    connection: &mut Conn,
    (old_database, old_table): (&str, &str),
    (new_database, new_table): (&str, &str),
    name: &str,
) -> Result<Result<TableDiff, String>, Error> {
    let old = columns(connection, old_database, old_table).await?;
    let new = columns(connection, new_database, new_table).await?;
    let triggers: Option<String> = connection
        .exec_first(
            "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = ? AND event_object_table = ?",
            (old_database, old_table),
        )
        .await?;
    if let Some(trigger) = triggers {
        return Ok(Err(format!("it has a trigger, `{trigger}`, which cannot move with it")));
    }
    if !old.is_empty() && old != new {
        return Ok(Err("its columns are others than in the environment".into()));
    }
    let quoted = |column: &Column| format!("`{}`", column.name.replace('`', "``"));
    let keys: Vec<String> = new.iter().filter(|column| column.is_key).map(quoted).collect();
    if keys.is_empty() {
        return Ok(Err("it has no primary key, so its rows cannot be told apart".into()));
    }
    let new_name = format!("`{new_database}`.`{new_table}` AS n");
    let mut diff =
        TableDiff { table: name.to_owned(), added: 0, changed: 0, removed: 0, keys: vec![] };
    if old.is_empty() {
        (diff.added, diff.keys) = rows(connection, &new_name, "n", &keys, "TRUE", '+').await?;
        return Ok(Ok(diff));
    }
    let old_name = format!("`{old_database}`.`{old_table}` AS o");
    let same: Vec<String> =
        keys.iter().map(|key| format!("BINARY o.{key} <=> BINARY n.{key}")).collect();
    let equal: Vec<String> = keys.iter().map(|key| format!("o.{key} = n.{key}")).collect();
    let on = [equal, same].concat().join(" AND ");
    let differs: Vec<String> = new
        .iter()
        .filter(|column| !column.is_key)
        .map(quoted)
        .map(|column| format!("NOT (BINARY o.{column} <=> BINARY n.{column})"))
        .collect();
    let differs = if differs.is_empty() { "FALSE".into() } else { differs.join(" OR ") };
    let first = &keys[0];
    let joined = |side: &str| match side {
        "n" => format!("{new_name} LEFT JOIN {old_name} ON {on}"),
        _ => format!("{old_name} LEFT JOIN {new_name} ON {on}"),
    };
    let absent = |side: &str| format!("{side}.{first} IS NULL");
    let (added, mut named) = rows(connection, &joined("n"), "n", &keys, &absent("o"), '+').await?;
    let both = format!("{new_name} JOIN {old_name} ON {on}");
    let (changed, more) = rows(connection, &both, "n", &keys, &format!("({differs})"), '~').await?;
    named.extend(more);
    let (removed, more) = rows(connection, &joined("o"), "o", &keys, &absent("n"), '-').await?;
    named.extend(more);
    Ok(Ok(TableDiff { added, changed, removed, keys: named, ..diff }))
}

/// How many rows there are, and the first keys of them.
async fn rows(
    connection: &mut Conn,
    from: &str,
    side: &str,
    keys: &[String],
    condition: &str,
    mark: char,
) -> Result<(u64, Vec<String>), Error> {
    let count: Option<u64> =
        connection.query_first(format!("SELECT COUNT(*) FROM {from} WHERE {condition}")).await?;
    let list: Vec<String> = keys.iter().map(|key| format!("{side}.{key}")).collect();
    let shown = format!("CONCAT_WS('/', {})", list.join(", "));
    let named: Vec<String> = connection
        .query(format!(
            "SELECT CONVERT({shown} USING utf8mb4) FROM {from} WHERE {condition} ORDER BY {} LIMIT {NAMED}",
            list.join(", ")
        ))
        .await?;
    Ok((count.unwrap_or(0), named.into_iter().map(|key| format!("{mark} {key}")).collect()))
}
