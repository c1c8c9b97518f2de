//! System users: one for the edge, one for each kind of engine, one a site. Only root has them; an ordinary user's
//! Pressroom runs everything as that user, which keeps sites apart by `open_basedir` alone.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::sync::Mutex;

use pressroom_model::id::SiteName;
use pressroom_model::process::UserIds;

/// Why a user could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `useradd` or `userdel` could not be run.
    #[error("cannot run {program} for `{name}`: {source}")]
    Run {
        /// Which of the two.
        program: &'static str,
        /// The user.
        name: String,
        /// The system's word.
        source: io::Error,
    },
    /// `useradd` or `userdel` refused.
    #[error("{program} refused `{name}`: {said}")]
    Refused {
        /// Which of the two.
        program: &'static str,
        /// The user.
        name: String,
        /// Its own words.
        said: String,
    },
}

/// The system users of this machine.
#[derive(Debug)]
pub struct Users {
    is_root: bool,
    known: Mutex<BTreeMap<String, (u32, u32)>>,
}

impl Users {
    /// Users are made as root only.
    pub fn new() -> Self {
        Self { is_root: rustix::process::geteuid().is_root(), known: Mutex::default() }
    }

    /// Whether processes run under users of their own.
    pub fn are_separate(&self) -> bool {
        self.is_root
    }

    /// The edge's user.
    pub fn edge(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-edge")
    }

    /// The database's user.
    pub fn database(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-db")
    }

    /// The Redis servers' user.
    pub fn redis(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-redis")
    }

    /// Whoever carries the database's and Redis's bytes between nodes.
    pub fn forwarder(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-sql")
    }

    /// Whoever answers questions for names.
    pub fn namer(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-dns")
    }

    /// etcd's user.
    pub fn etcd(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-etcd")
    }

    /// The group of author instances, which alone enter the folder of writable code.
    pub fn authors(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-author")
    }

    /// Whoever makes something of code that nobody has looked at.
    pub fn builder(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-build")
    }

    /// A site's user.
    pub fn site(&self, site: &SiteName) -> Result<Option<UserIds>, Error> {
        self.ids(&format!("pr-{site}"))
    }

    /// Deletes the user of a site of which nothing is left; nobody of that name is no failure.
    pub fn forget_site(&self, site: &SiteName) -> Result<(), Error> {
        let name = format!("pr-{site}");
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.remove(&name);
        match self.is_root && look_up(&name).is_some() {
            true => delete(&name),
            false => Ok(()),
        }
    }

    /// Our own user id.
    pub fn own(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// Makes the user where it is missing.
    fn ids(&self, name: &str) -> Result<Option<UserIds>, Error> {
        if !self.is_root {
            return Ok(None);
        }
        // Held over useradd: it locks /etc/passwd itself and fails where two run at once.
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (uid, gid) = match known.get(name).copied().or_else(|| look_up(name)) {
            Some(ids) => ids,
            None => add(name)?,
        };
        known.insert(name.to_owned(), (uid, gid));
        Ok(Some(UserIds { uid, gid, groups: vec![] }))
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}

fn look_up(name: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

fn add(name: &str) -> Result<(u32, u32), Error> {
    let arguments = [
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        "--comment",
        "Pressroom",
    ];
    insist("useradd", &arguments, name, || look_up(name))
}

fn delete(name: &str) -> Result<(), Error> {
    insist("userdel", &[], name, || look_up(name).is_none().then_some(()))
}

/// Runs a program until what it is for is so: another one may hold the lock of /etc/passwd for a moment.
fn insist<T>(
    program: &'static str,
    arguments: &[&str],
    name: &str,
    done: impl Fn() -> Option<T>,
) -> Result<T, Error> {
    let mut last = String::new();
    for _ in 0..20 {
        let output = Command::new(program)
            .args(arguments)
            .arg(name)
            .output()
            .map_err(|source| Error::Run { program, name: name.to_owned(), source })?;
        if let Some(done) = done() {
            return Ok(done);
        }
        last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(Error::Refused { program, name: name.to_owned(), said: last })
}
