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
    /// `useradd` could not be run.
    #[error("cannot run useradd for `{name}`: {source}")]
    Run {
        /// The user.
        name: String,
        /// The system's word.
        source: io::Error,
    },
    /// `useradd` refused.
    #[error("useradd refused to make `{name}`: {said}")]
    Refused {
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

    /// The group of author instances, which alone enter the folder of writable code.
    pub fn authors(&self) -> Result<Option<UserIds>, Error> {
        self.ids("pressroom-author")
    }

    /// A site's user.
    pub fn site(&self, site: &SiteName) -> Result<Option<UserIds>, Error> {
        self.ids(&format!("pr-{site}"))
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
    let mut last = String::new();
    // Another program may hold the lock of /etc/passwd for a moment.
    for _ in 0..20 {
        let output = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"])
            .args(["--shell", "/usr/sbin/nologin", "--comment", "Pressroom", name])
            .output()
            .map_err(|source| Error::Run { name: name.to_owned(), source })?;
        if let Some(ids) = look_up(name) {
            return Ok(ids);
        }
        last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(Error::Refused { name: name.to_owned(), said: last })
}
