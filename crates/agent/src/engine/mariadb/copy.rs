//! Copying a site's database into another one of the same server.
//!
//! `mariadb-dump` reads all tables as they were at one moment, without holding anybody up, and its text goes straight into the
//! client. (`INSERT … SELECT` within the server would lock the rows that it reads, and read each table at another moment.)
//!
//! Always: what comes is loaded as the user of the other site, who has rights on its own database alone. Tables of
//! engines without transactions are copied as they are when their turn comes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mysql_async::prelude::Queryable;
use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;

use super::promote::stage_of;
use super::{ACCOUNT, DUMP, MariaDb, database_of};
use crate::engine::{Error, fed, program, tail};
use crate::files;

const CLIENT: &[&str] = &["/usr/bin/mariadb", "/usr/local/bin/mariadb"];

impl MariaDb {
    /// Makes the database of `to`, which is there, a copy of that of `from`. `password` is that of the user of `to`.
    pub fn copy_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        password: &Secret,
    ) -> Result<(), Error> {
        let reading = self.account_file(&format!("copy-from-{from}"), ACCOUNT, &self.password)?;
        let writing = self.account_file(&format!("copy-to-{to}"), &database_of(to), password)?;
        let said = self.said(to);
        let result = pipe(&reading, &writing, &said, from, to);
        for path in [&reading, &writing, &said[0], &said[1]] {
            std::fs::remove_file(path)?;
        }
        result
    }

    /// Lays a dump of the site out on its stage, as the site's user, who has rights there and on its own database alone.
    pub fn load_on_stage(
        &self,
        site: &SiteName,
        dump: &Path,
        password: &Secret,
    ) -> Result<(), Error> {
        let text = File::open(dump).map_err(|error| files::naming(dump, &error))?;
        let account = self.account_file(&format!("load-{site}"), &database_of(site), password)?;
        let result = client(&account, &stage_of(site))
            .and_then(|mut load| fed("MariaDB", "to load a dump", &mut load, text.into()));
        std::fs::remove_file(&account)?;
        result.map(drop)
    }

    fn said(&self, to: &SiteName) -> [PathBuf; 2] {
        ["dump", "load"].map(|what| self.folder().join(format!("copy-{to}.{what}.said")))
    }

    /// Files that a copy which broke off may have left.
    pub fn copying_files(&self, to: &SiteName) -> Vec<PathBuf> {
        let mut files = vec![self.folder().join(format!("copy-to-{to}.cnf"))];
        files.extend(self.said(to));
        files
    }

    /// Drops tables that a former copy, or somebody since, has left in `to` and `from` does not have.
    pub async fn drop_strays(
        &self,
        from: &SiteName,
        to: &SiteName,
    ) -> Result<(), mysql_async::Error> {
        let (from, to) = (database_of(from), database_of(to));
        let mut connection = self.connect().await?;
        let strays: Vec<(String, String)> = connection
            .exec(
                "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = ? AND table_name NOT IN \
                 (SELECT table_name FROM information_schema.tables WHERE table_schema = ?)",
                (&to, &from),
            )
            .await?;
        for (table, kind) in strays {
            let kind = if kind == "VIEW" { "VIEW" } else { "TABLE" };
            let table = table.replace('`', "``");
            connection.query_drop(format!("DROP {kind} IF EXISTS `{to}`.`{table}`")).await?;
        }
        connection.disconnect().await
    }
}

/// The client that loads what a dump says.
fn client(account: &Path, database: &str) -> Result<Command, Error> {
    let mut client = Command::new(program(CLIENT)?);
    client
        .arg(format!("--defaults-file={}", account.display()))
        .args(["--batch", "--binary-mode", "--default-character-set=utf8mb4"])
        .arg("--max-allowed-packet=1G")
        .arg(database);
    Ok(client)
}

fn pipe(
    reading: &Path,
    writing: &Path,
    said: &[PathBuf; 2],
    from: &SiteName,
    to: &SiteName,
) -> Result<(), Error> {
    let mut dump = Command::new(program(DUMP)?)
        .arg(format!("--defaults-file={}", reading.display()))
        .args([
            "--single-transaction",
            "--quick",
            "--routines",
            "--triggers",
            "--hex-blob",
            "--no-autocommit",
            "--no-tablespaces",
            "--skip-comments",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
        ])
        .arg(database_of(from))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&said[0])?)
        .spawn()?;
    let load = client(writing, &database_of(to))?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(&said[1])?)
        .spawn();
    let mut load = match load {
        Ok(load) => load,
        Err(error) => {
            end(&mut dump);
            return Err(error.into());
        }
    };
    let passed = pass(&mut dump, &mut load, from, to);
    if passed.is_err() {
        end(&mut dump);
    }
    let (dumped, loaded) = (dump.wait()?, load.wait()?);
    // Whoever stopped reading knows best why.
    for (status, path, what) in
        [(loaded, &said[1], "to load the copy"), (dumped, &said[0], "to dump a database")]
    {
        if !status.success() {
            let said = std::fs::read(path).unwrap_or_default();
            let said = tail(String::from_utf8_lossy(&said).trim(), 1500);
            return Err(Error::Refused { engine: "MariaDB", what: what.into(), said });
        }
    }
    Ok(passed?)
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Passes the text on. Triggers, views and routines were defined by the one site's user, and are the other's from now on.
fn pass(dump: &mut Child, load: &mut Child, from: &SiteName, to: &SiteName) -> io::Result<()> {
    let (Some(text), Some(stdin)) = (dump.stdout.take(), load.stdin.take()) else {
        return Err(io::Error::other("a pipe is missing"));
    };
    let (mut text, mut stdin) =
        (BufReader::with_capacity(1 << 20, text), BufWriter::with_capacity(1 << 20, stdin));
    let definer = |site: &SiteName| format!("DEFINER=`{}`@`localhost`", database_of(site));
    let (old, new) = (definer(from), definer(to));
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        match renamed(&line, &old, &new) {
            Some(other) => stdin.write_all(&other)?,
            None => stdin.write_all(&line)?,
        }
        line.clear();
    }
    stdin.flush()
}

/// A line with another definer, if it is one that defines something. Rows begin otherwise, and have no line breaks.
fn renamed(line: &[u8], old: &str, new: &str) -> Option<Vec<u8>> {
    let is_definition = line.starts_with(b"/*!") || line.starts_with(b"CREATE ");
    let text = std::str::from_utf8(line).ok().filter(|_| is_definition)?;
    text.contains(old).then(|| text.replace(old, new).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_get_another_owner_and_rows_stay() {
        let (old, new) = ("DEFINER=`wp_a`@`localhost`", "DEFINER=`wp_a__b`@`localhost`");
        let trigger = format!("/*!50003 CREATE*/ /*!50017 {old}*/ /*!50003 TRIGGER t\n");
        assert_eq!(
            renamed(trigger.as_bytes(), old, new),
            Some(trigger.replace(old, new).into_bytes())
        );
        let row = format!("INSERT INTO `t` VALUES ('/*! {old}');\n");
        assert_eq!(renamed(row.as_bytes(), old, new), None);
        assert_eq!(renamed(b"/*!40101 SET NAMES utf8mb4 */;\n", old, new), None);
    }
}
