//! The two Redis servers. Passwords stand in the ACL files as digests; the plain ones never leave `secrets/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pressroom_model::config::{Cache, Config};
use pressroom_model::id::SiteName;
use pressroom_model::process::{ProcessSpec, UserIds};
use pressroom_model::secret::Secret;
use pressroom_model::unit::ByteSize;
use pressroom_plan::capacity;
use pressroom_plan::health::Answer;
use pressroom_plan::machine::{REDIS_CACHE, REDIS_SESSIONS};
use pressroom_render::redis::{self as rendered, Purpose, Rights, SiteUser};
use sha2::{Digest, Sha256};

use super::{Error, fingerprint, owner, program, spec};
use crate::files;
use crate::layout::Layout;

/// Keys that are counted at a time, and the time for that.
const BATCH: usize = 500;
const BATCH_TIME: Duration = Duration::from_secs(1);

/// One of the two servers.
#[derive(Debug, Clone)]
pub struct Redis {
    layout: Layout,
    purpose: Purpose,
    user: Option<UserIds>,
    configuration: String,
    users: String,
    password: Secret,
    limit: ByteSize,
}

impl Redis {
    /// The server as this configuration wants it. `sites` are the sites' names, passwords, and rights to make sessions.
    pub fn new(
        layout: &Layout,
        purpose: Purpose,
        config: &Config,
        machine: ByteSize,
        user: Option<UserIds>,
        password: &Secret,
        sites: &[(SiteName, Secret, Rights)],
    ) -> Self {
        let name = name(purpose);
        let folder = layout.engine(name);
        let Cache::Managed { memory } = &config.cache;
        let limit = match purpose {
            Purpose::Cache => memory.unwrap_or_else(|| capacity::object_cache_memory(machine)),
            Purpose::Sessions => capacity::sessions_memory(machine),
        };
        let limit = ByteSize::mib(limit.whole_mib().max(16));
        let configuration = rendered::configuration(&rendered::Facts {
            purpose,
            data: &folder.join("data"),
            socket: &layout.redis(name),
            acl: &folder.join("users.acl"),
            memory: limit,
        });
        let site_users: Vec<_> = sites
            .iter()
            .map(|(site, password, rights)| SiteUser {
                site,
                password_sha256: digest(password),
                rights: match purpose {
                    Purpose::Cache => Rights::All,
                    Purpose::Sessions => *rights,
                },
            })
            .collect();
        let users = rendered::users(purpose, &digest(password), &site_users);
        Self {
            layout: layout.clone(),
            purpose,
            user,
            configuration,
            users,
            password: password.clone(),
            limit,
        }
    }

    /// The memory that it is meant to use.
    pub fn limit(&self) -> ByteSize {
        self.limit
    }

    /// Its name at the keeper.
    pub fn name(&self) -> &'static str {
        name(self.purpose)
    }

    /// What must be equal for the running server to be the wanted one; users can be loaded while it runs.
    pub fn fingerprint(&self) -> String {
        fingerprint(&[self.configuration.as_bytes()])
    }

    /// Writes the files, and says how to start the server.
    pub fn prepare(&self) -> Result<ProcessSpec, Error> {
        let folder = self.layout.engine(self.name());
        let ours = owner(self.user.as_ref());
        files::folder(&folder, 0o750, ours)?;
        files::folder(&folder.join("data"), 0o750, ours)?;
        files::folder(&self.layout.run().join(self.name()), 0o755, ours)?;
        self.write_users()?;
        let path = folder.join("redis.conf");
        let server = program(&["/usr/bin/redis-server", "/usr/local/bin/redis-server"])?;
        super::write_checked(&path, &self.configuration, 0o640, ours, |candidate| {
            self.try_out(&server, candidate)
        })?;
        let arguments = vec![path.display().to_string()];
        let output = self.layout.output(self.name());
        let mut spec = spec(self.name(), server, arguments, &self.fingerprint(), output);
        spec.user = self.user.clone();
        Ok(spec)
    }

    /// Redis has no check of its own for a configuration: a server is started with it, on another socket and without
    /// data, and ended once it listens.
    fn try_out(&self, server: &Path, candidate: &Path) -> Result<(), Error> {
        let folder = self.layout.engine(self.name());
        let socket = folder.join("trial.sock");
        let mut command = Command::new(server);
        command
            .arg(candidate)
            .args(["--appendonly", "no", "--save", "", "--unixsocket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .current_dir("/");
        if let Some(user) = &self.user {
            use std::os::unix::process::CommandExt;
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn()?;
        let until = pressroom_runtime::clock::now() + Duration::from_secs(10);
        let is_good = loop {
            if child.try_wait()?.is_some() {
                break false;
            }
            if socket.exists() || pressroom_runtime::clock::now() > until {
                break socket.exists();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // It may have ended by itself.
        let _ = child.kill();
        let output = child.wait_with_output()?;
        let _ = std::fs::remove_file(&socket);
        if is_good {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let said = super::tail(said.trim(), 1500);
        Err(Error::Refused { engine: "Redis", what: "its configuration".into(), said })
    }

    fn acl(&self) -> std::path::PathBuf {
        self.layout.engine(self.name()).join("users.acl")
    }

    fn write_users(&self) -> Result<bool, Error> {
        Ok(files::write(&self.acl(), self.users.as_bytes(), 0o640, owner(self.user.as_ref()))?)
    }

    /// Whether the file that the server read names the users that it should.
    pub fn knows_users(&self) -> bool {
        std::fs::read(self.acl()).is_ok_and(|text| text == self.users.as_bytes())
    }

    /// Tells the running server about its users. The file is right only after the server has taken it: a crash in
    /// between leaves the old file, and it is done again.
    pub async fn grant(&self) -> Result<(), Error> {
        let before = std::fs::read(self.acl()).ok();
        self.write_users()?;
        let loaded = self.command(&["ACL", "LOAD"]).await;
        if let (Err(_), Some(before)) = (&loaded, before) {
            files::write(&self.acl(), &before, 0o640, owner(self.user.as_ref()))?;
        }
        loaded.map(drop)
    }

    async fn connect(&self) -> Result<::redis::aio::MultiplexedConnection, ::redis::RedisError> {
        use ::redis::IntoConnectionInfo;
        let address = ::redis::ConnectionAddr::Unix(self.layout.redis(self.name()));
        let info = address.into_connection_info()?.set_redis_settings(
            ::redis::RedisConnectionInfo::default()
                .set_username("pressroom")
                .set_password(self.password.reveal())
                .set_skip_set_lib_name(),
        );
        ::redis::Client::open(info)?.get_multiplexed_async_connection().await
    }

    /// Deletes every key of a site: whoever gets its name later must not find its options or its visitors' sessions.
    pub async fn forget_site(&self, site: &SiteName) -> Result<(), Error> {
        let refused = |error: ::redis::RedisError| Error::Refused {
            engine: "Redis",
            what: format!("to forget the keys of `{site}`"),
            said: error.to_string(),
        };
        let mut connection = self.connect().await.map_err(refused)?;
        let mut cursor = 0u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{site}:*")).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<Vec<u8>>) =
                scan.query_async(&mut connection).await.map_err(refused)?;
            if !keys.is_empty() {
                let mut unlink = ::redis::cmd("UNLINK");
                unlink.arg(keys);
                unlink.query_async::<u64>(&mut connection).await.map_err(refused)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The memory that it uses, and the most that it may use now.
    pub async fn memory(&self) -> Result<(ByteSize, ByteSize), Error> {
        let said = self.command(&["INFO", "memory"]).await?;
        let figure = |name: &str| {
            let found = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.and_then(|value| value.trim().parse().ok()).map(ByteSize::bytes)
        };
        match (figure("used_memory"), figure("maxmemory")) {
            (Some(used), Some(most)) => Ok((used, most)),
            _ => Err(refused("INFO memory", &"an answer without figures")),
        }
    }

    /// Lets it use so much memory until it is started again.
    pub async fn make_room(&self, most: ByteSize) -> Result<(), Error> {
        let most = most.get().to_string();
        self.command(&["CONFIG", "SET", "maxmemory", &most]).await.map(drop)
    }

    /// The bytes that keys and values take, by the first part of their keys. Others are answered between the batches.
    pub async fn holdings(&self) -> Result<BTreeMap<String, u64>, Error> {
        let refused = |error: ::redis::RedisError| refused("to count its keys", &error);
        let late = |_| Error::Io(std::io::ErrorKind::TimedOut.into());
        let mut held = BTreeMap::new();
        let mut connection = tokio::time::timeout(BATCH_TIME, self.connect())
            .await
            .map_err(late)?
            .map_err(refused)?;
        let mut cursor = 0u64;
        loop {
            let batch = async {
                let mut scan = ::redis::cmd("SCAN");
                scan.arg(cursor).arg("COUNT").arg(BATCH);
                let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
                let mut sizes = ::redis::pipe();
                for key in &keys {
                    sizes.cmd("MEMORY").arg("USAGE").arg(key);
                }
                // A key that expired meanwhile has no size.
                let sizes: Vec<Option<u64>> = match keys.is_empty() {
                    true => Vec::new(),
                    false => sizes.query_async(&mut connection).await?,
                };
                Ok((next, keys, sizes))
            };
            let (next, keys, sizes) =
                tokio::time::timeout(BATCH_TIME, batch).await.map_err(late)?.map_err(refused)?;
            for (key, size) in keys.iter().zip(sizes) {
                let owner = key.split(|byte| *byte == b':').next().unwrap_or_default();
                *held.entry(String::from_utf8_lossy(owner).into_owned()).or_default() +=
                    size.unwrap_or_default();
            }
            if next == 0 {
                return Ok(held);
            }
            cursor = next;
        }
    }

    async fn command(&self, words: &[&str]) -> Result<String, Error> {
        let refused =
            |said: String| Error::Refused { engine: "Redis", what: words.join(" "), said };
        let ask = async {
            let mut connection = self.connect().await?;
            let mut command = ::redis::cmd(words[0]);
            for word in &words[1..] {
                command.arg(*word);
            }
            command.query_async::<String>(&mut connection).await
        };
        match tokio::time::timeout(Duration::from_secs(1), ask).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused("no answer within 1 s".into())),
        }
    }

    /// The real question.
    pub async fn probe(&self) -> Answer {
        match self.command(&["PING"]).await {
            Ok(_) => Answer::Well,
            Err(error) => Answer::Badly(error.to_string()),
        }
    }
}

/// The sites that may make no sessions, as the file of users has it.
pub fn held_back(layout: &Layout) -> BTreeSet<SiteName> {
    let users = std::fs::read_to_string(layout.engine(REDIS_SESSIONS).join("users.acl"));
    users.map(|users| rendered::held_back(&users).into_iter().collect()).unwrap_or_default()
}

fn refused(what: &str, said: &dyn std::fmt::Display) -> Error {
    Error::Refused { engine: "Redis", what: what.to_owned(), said: said.to_string() }
}

fn name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Cache => REDIS_CACHE,
        Purpose::Sessions => REDIS_SESSIONS,
    }
}

fn digest(password: &Secret) -> String {
    Sha256::digest(password.reveal()).iter().map(|byte| format!("{byte:02x}")).collect()
}
