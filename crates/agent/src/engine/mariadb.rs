//! The private MariaDB: unix socket only, its own data, our own account made by an init file that only it can read.

mod copy;
pub mod promote;
mod schedule;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use pressroom_model::config::{Config, Database};
use pressroom_model::id::SiteName;
use pressroom_model::process::{ProcessSpec, Stop, UserIds};
use pressroom_model::secret::Secret;
use pressroom_model::unit::ByteSize;
use pressroom_plan::capacity;
use pressroom_plan::health::Answer;
use pressroom_plan::machine::MARIADB;
use pressroom_render::mariadb;

use super::{Error, fingerprint, owner, program, run, spec, write_checked};
use crate::files;
use crate::layout::Layout;

/// Everything the server needs.
#[derive(Debug, Clone)]
pub struct MariaDb {
    layout: Layout,
    user: Option<UserIds>,
    options: String,
    password: Secret,
}

const ACCOUNT: &str = "pressroom";

impl MariaDb {
    /// The server as this configuration wants it.
    pub fn new(
        layout: &Layout,
        config: &Config,
        machine: ByteSize,
        user: Option<UserIds>,
        password: Secret,
    ) -> Self {
        let Database::Managed { memory } = &config.database;
        let folder = layout.engine(MARIADB);
        let options = mariadb::options(&mariadb::Facts {
            data: &folder.join("data"),
            tmp: &folder.join("tmp"),
            socket: &layout.writer(),
            pid_file: &folder.join("tmp/mariadbd.pid"),
            memory: memory.unwrap_or_else(|| capacity::database_memory(machine)),
            workers: config
                .sites
                .iter()
                .map(|site| u32::from(site.php.workers) * u32::from(site.php.instances.max))
                .sum(),
        });
        let init = format!("init-file = {}\n", folder.join("init.sql").display());
        Self { layout: layout.clone(), user, options: options + &init, password }
    }

    fn folder(&self) -> PathBuf {
        self.layout.engine(MARIADB)
    }

    /// What must be equal for the running server to be the wanted one. Only what an operator may change counts:
    /// more sites alone are no reason for a restart.
    pub fn fingerprint(&self) -> String {
        let lasting: Vec<&str> =
            self.options.lines().filter(|line| !line.starts_with("max_connections")).collect();
        fingerprint(&[lasting.join("\n").as_bytes()])
    }

    /// Whether the data directory was initialised to the end.
    pub fn is_initialised(&self) -> bool {
        self.folder().join("data/.initialised").is_file()
    }

    /// Initialises the data directory. A half-made one (we died within) is made anew: nothing was ever in it.
    pub fn initialise(&self) -> Result<(), Error> {
        let data = self.folder().join("data");
        if self.is_initialised() {
            return Ok(());
        }
        if data.exists() {
            if has_site(&data).map_err(|error| files::naming(&data, &error))? {
                return Err(Error::Refused {
                    engine: "Pressroom",
                    what: format!("to initialise {} anew", data.display()),
                    said: "it holds databases of sites, but not the mark `.initialised`; if it is whole, \
                           create that empty file"
                        .into(),
                });
            }
            std::fs::remove_dir_all(&data).map_err(|error| files::naming(&data, &error))?;
        }
        self.write_files()?;
        files::folder(&data, 0o750, owner(self.user.as_ref()))?;
        let install =
            program(&["/usr/bin/mariadb-install-db", "/usr/local/bin/mariadb-install-db"])?;
        let mut command = Command::new(install);
        command
            .arg(format!("--defaults-file={}", self.folder().join("my.cnf").display()))
            .args([
                "--auth-root-authentication-method=socket",
                "--skip-test-db",
                "--skip-name-resolve",
            ])
            .arg("--init-file=/dev/null")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        self.as_user(&mut command);
        run("MariaDB", "to initialise its data directory", &mut command)?;
        std::fs::write(data.join(".initialised"), b"")?;
        Ok(())
    }

    fn as_user(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command.current_dir("/");
    }

    fn write_files(&self) -> Result<(), Error> {
        let folder = self.folder();
        let ours = owner(self.user.as_ref());
        files::folder(&folder, 0o755, None)?;
        files::folder(&folder.join("tmp"), 0o700, ours)?;
        let run_folder = self.layout.run().join(MARIADB);
        files::folder(&run_folder, 0o755, ours)?;
        let reader = self.layout.reader();
        if std::fs::symlink_metadata(&reader).is_err() {
            std::os::unix::fs::symlink("writer.sock", &reader)?;
        }
        files::write(&folder.join("init.sql"), self.init_sql().as_bytes(), 0o600, ours)?;
        write_checked(&folder.join("my.cnf"), &self.options, 0o644, ours, |candidate| {
            let mut command = Command::new(server()?);
            command.arg(format!("--defaults-file={}", candidate.display())).args([
                "--help",
                "--verbose",
                "--log-warnings=0",
            ]);
            self.as_user(&mut command);
            run("MariaDB", "its option file", &mut command)
        })
    }

    /// Our own account; written at every start, so that a lost secret mends itself. One statement a line.
    fn init_sql(&self) -> String {
        let password = self.password.reveal();
        format!(
            "CREATE USER IF NOT EXISTS {ACCOUNT}@localhost IDENTIFIED BY '{password}';\n\
             ALTER USER {ACCOUNT}@localhost IDENTIFIED BY '{password}';\n\
             GRANT ALL PRIVILEGES ON *.* TO {ACCOUNT}@localhost WITH GRANT OPTION;\n"
        )
    }

    /// Writes and checks the files, and says how to start the server.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        self.write_files()?;
        let arguments = vec![format!("--defaults-file={}", self.folder().join("my.cnf").display())];
        let mut spec =
            spec(MARIADB, server()?, arguments, &self.fingerprint(), self.layout.output(MARIADB));
        spec.user = self.user.clone();
        // It writes its pages back; a kill would only make the next start longer.
        spec.stop = Stop { signal: 15, grace_ms: 60_000 };
        Ok(spec)
    }

    /// A connection of our own account.
    pub async fn connect(&self) -> Result<Conn, mysql_async::Error> {
        let options = OptsBuilder::default()
            .socket(Some(self.layout.writer().to_string_lossy().into_owned()))
            .prefer_socket(true)
            .user(Some(ACCOUNT))
            .pass(Some(self.password.reveal().to_owned()));
        let connect = Conn::new(options);
        match tokio::time::timeout(Duration::from_secs(5), connect).await {
            Ok(connection) => connection,
            Err(_) => Err(mysql_async::Error::Io(mysql_async::IoError::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer within 5 s",
            )))),
        }
    }

    /// The real question: does it answer a query?
    pub async fn probe(&self) -> Answer {
        let ask = async {
            let mut connection = self.connect().await?;
            let one: Option<u8> = connection.query_first("SELECT 1").await?;
            connection.disconnect().await?;
            Ok::<_, mysql_async::Error>(one)
        };
        match tokio::time::timeout(Duration::from_secs(3), ask).await {
            Ok(Ok(Some(1))) => Answer::Well,
            Ok(Ok(_)) => Answer::Badly("SELECT 1 did not answer 1".into()),
            Ok(Err(error)) => Answer::Badly(error.to_string()),
            Err(_) => Answer::Badly("SELECT 1 took more than 3 s".into()),
        }
    }

    /// A site's database and its user with rights on it alone. May be done twice.
    pub async fn create_site(
        &self,
        site: &SiteName,
        password: &Secret,
    ) -> Result<(), mysql_async::Error> {
        let database = database_of(site);
        let password = password.reveal();
        let mut connection = self.connect().await?;
        // `_` is a wildcard in grants.
        let pattern = database.replace('_', "\\_");
        for statement in [
            format!(
                "CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci"
            ),
            format!("CREATE USER IF NOT EXISTS `{database}`@localhost IDENTIFIED BY '{password}'"),
            format!("ALTER USER `{database}`@localhost IDENTIFIED BY '{password}'"),
            format!("GRANT ALL PRIVILEGES ON `{pattern}`.* TO `{database}`@localhost"),
            // One site more needs more connections, and the server is not restarted for that.
            format!("SET GLOBAL max_connections = {}", self.connections()),
        ] {
            connection.query_drop(statement).await?;
        }
        connection.disconnect().await
    }

    /// Whether a site has a database.
    pub async fn has_site(&self, site: &SiteName) -> Result<bool, mysql_async::Error> {
        let mut connection = self.connect().await?;
        let found: Option<u8> = connection
            .exec_first(
                "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?",
                (database_of(site),),
            )
            .await?;
        connection.disconnect().await?;
        Ok(found.is_some())
    }

    /// How many connections the option file allows.
    fn connections(&self) -> u32 {
        let line = self.options.lines().find_map(|line| line.strip_prefix("max_connections = "));
        line.and_then(|number| number.parse().ok()).expect("our own template has this line")
    }

    /// Drops a site's database and user.
    pub async fn drop_site(&self, site: &SiteName) -> Result<(), mysql_async::Error> {
        let database = database_of(site);
        let mut connection = self.connect().await?;
        connection.query_drop(format!("DROP DATABASE IF EXISTS `{database}`")).await?;
        connection.query_drop(format!("DROP USER IF EXISTS `{database}`@localhost")).await?;
        connection.disconnect().await
    }

    /// Dumps a site's database into a file (gzip is the caller's choice of name only: the text is plain SQL).
    pub fn dump_site(&self, site: &SiteName, into: &std::path::Path) -> Result<(), Error> {
        let dump = program(DUMP)?;
        let account = self.account_file("account", ACCOUNT, &self.password)?;
        let mut command = Command::new(dump);
        command
            .arg(format!("--defaults-file={}", account.display()))
            .args(["--single-transaction", "--routines", "--triggers", "--hex-blob"])
            .arg(format!("--result-file={}", into.display()))
            .arg(database_of(site));
        let result = run("MariaDB", "to dump a database", &mut command);
        std::fs::remove_file(&account)?;
        result
    }

    /// An option file with which one of MariaDB's programs logs in: passwords are no arguments.
    fn account_file(&self, name: &str, user: &str, password: &Secret) -> Result<PathBuf, Error> {
        let path = self.folder().join(format!("{name}.cnf"));
        let text = format!(
            "[client]\nuser={user}\npassword={}\nsocket={}\n",
            password.reveal(),
            self.layout.writer().display()
        );
        files::write(&path, text.as_bytes(), 0o600, None)?;
        Ok(path)
    }
}

const DUMP: &[&str] = &["/usr/bin/mariadb-dump", "/usr/local/bin/mariadb-dump"];

/// Whether a data directory holds a site's database: such a one is never deleted. What cannot be read is no answer.
fn has_site(data: &std::path::Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(data)? {
        if entry?.file_name().to_string_lossy().starts_with("wp_") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn server() -> Result<PathBuf, Error> {
    program(&["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", "/usr/libexec/mariadbd"])
}

/// The name of a site's database, and of its user.
pub fn database_of(site: &SiteName) -> String {
    format!("wp_{}", site.as_str().replace('-', "_"))
}
