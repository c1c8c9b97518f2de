//! One php-fpm instance: its pool configuration and its php.ini.

use std::collections::BTreeMap;
use std::path::Path;

use pressroom_model::config::{Php, Site};
use pressroom_model::id::InstanceId;
use serde::Serialize;

use crate::template::fill;

/// Where things are for one instance.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The site's configuration.
    pub site: &'a Site,
    /// Which instance.
    pub id: &'a InstanceId,
    /// The folder of WordPress.
    pub root: &'a Path,
    /// The FastCGI socket.
    pub socket: &'a Path,
    /// The status page's own socket: it answers while every worker is busy.
    pub status_socket: &'a Path,
    /// The slow log.
    pub slow_log: &'a Path,
    /// The site's temporary folder.
    pub tmp: &'a Path,
    /// The affirmation socket.
    pub affirm: &'a Path,
    /// `config/site.php`.
    pub config: &'a Path,
    /// Of an author instance: where it says what it has changed.
    pub author: Option<&'a Path>,
}

#[derive(Serialize)]
struct PoolFields<'a> {
    id: &'a str,
    site: &'a str,
    workers: u16,
    root: &'a Path,
    socket: &'a Path,
    status_socket: &'a Path,
    slow_log: &'a Path,
    tmp: &'a Path,
    affirm: &'a Path,
    config: &'a Path,
    author: Option<&'a Path>,
    terminate_seconds: u64,
    slow_seconds: u64,
}

/// The pool configuration (`php-fpm --fpm-config`).
pub fn pool(facts: &Facts<'_>) -> String {
    let php = &facts.site.php;
    fill(
        include_str!("../templates/fpm.conf.j2"),
        PoolFields {
            id: facts.id.as_str(),
            site: facts.site.name.as_str(),
            workers: php.workers,
            root: facts.root,
            socket: facts.socket,
            status_socket: facts.status_socket,
            slow_log: facts.slow_log,
            tmp: facts.tmp,
            affirm: facts.affirm,
            config: facts.config,
            author: facts.author,
            // PHP's own limit counts its CPU time and comes first; this one counts the clock.
            terminate_seconds: whole_seconds(php) + 5,
            slow_seconds: php.slow.get().as_secs().max(1),
        },
    )
}

fn whole_seconds(php: &Php) -> u64 {
    php.time.get().as_secs().max(1)
}

/// What the php.ini needs to know.
#[derive(Debug, Clone)]
pub struct IniFacts<'a> {
    /// The site's configuration.
    pub site: &'a Site,
    /// The site's temporary folder.
    pub tmp: &'a Path,
    /// The sessions server's socket.
    pub sessions_socket: &'a Path,
    /// Redis user and password of the site.
    pub sessions_user: &'a str,
    /// Its password.
    pub sessions_password: &'a str,
    /// The folder that catches an environment's mail.
    pub mailbox: &'a Path,
    /// Folders that PHP is confined to, where users do not separate the sites (`open_basedir`).
    pub confined_to: Option<&'a [&'a Path]>,
    /// Whether it is an author instance, whose code changes while it runs.
    pub is_author: bool,
}

#[derive(Serialize)]
struct IniFields<'a> {
    memory_bytes: u64,
    seconds: u64,
    upload_bytes: u64,
    tmp: &'a Path,
    opcache_mib: u64,
    session_path: String,
    base_dirs: Option<String>,
    is_author: bool,
    mailbox: Option<&'a Path>,
    extra: &'a BTreeMap<String, String>,
}

/// The php.ini values of a site's instances (a secret is in it: the session server's password).
pub fn ini(facts: &IniFacts<'_>) -> String {
    let php = &facts.site.php;
    let session_path = format!(
        "unix://{}?auth[user]={}&auth[pass]={}&prefix={}:session:&timeout=2&read_timeout=5&persistent=1",
        facts.sessions_socket.display(),
        facts.sessions_user,
        facts.sessions_password,
        facts.site.name
    );
    let base_dirs = facts
        .confined_to
        .map(|dirs| dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":"));
    fill(
        include_str!("../templates/php.ini.j2"),
        IniFields {
            memory_bytes: php.memory.get(),
            seconds: whole_seconds(php),
            upload_bytes: facts.site.upload_limit.get(),
            tmp: facts.tmp,
            opcache_mib: 192,
            session_path,
            base_dirs,
            is_author: facts.is_author,
            mailbox: facts.site.environment.as_ref().map(|_| facts.mailbox),
            extra: &php.ini,
        },
    )
}
