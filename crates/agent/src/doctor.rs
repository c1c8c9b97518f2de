//! What is wrong with the machine, or will be: looks that work with nothing running.

use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use pressroom_model::config::{Config, Runtime, Site};
use pressroom_model::unit::ByteSize;
use pressroom_runtime::clock;

use crate::cluster::membership::{self, Membership};
use crate::cluster::removed::Removal;
use crate::container::Docker;
use crate::engine::docker as daemon;
use crate::git::repository;
use crate::layout::Layout;
use crate::{confinement, floating, host, packages};

/// Longest wait for an endpoint to take a connection.
const REACHED: Duration = Duration::from_secs(1);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Fine.
    Good,
    /// It works, with a cost worth knowing.
    Warning,
    /// It does not work, or will not for long.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
}

fn good(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, grade: Grade::Good, detail: detail.into(), hint: String::new() }
}

fn ill(
    check: &'static str,
    grade: Grade,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    Finding { check, grade, detail: detail.into(), hint: hint.into() }
}

/// Looks at the machine.
pub fn examine(layout: &Layout, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![privileges(), memory(), disk(layout.data())];
    findings.extend(walls());
    findings.extend(config.and_then(|config| containers(layout, config)));
    findings.extend(config.map(needed_packages));
    findings.extend(config.and_then(|config| addresses(layout, config)));
    findings.push(git());
    findings.push(entrance(layout.data()));
    findings.extend(certificate(layout, clock::wall_ms() / 1000));
    findings.extend(state(layout));
    findings
}

/// How long other nodes let this one in, where it is a node.
fn certificate(layout: &Layout, now: u64) -> Option<Finding> {
    let check = "node certificate";
    let own = Membership::read(layout).ok().flatten()?;
    if let Some(removal) = Removal::of(&own) {
        return Some(ill("membership", Grade::Bad, removal.to_string(), Removal::HINT));
    }
    let validity = match membership::identity(layout) {
        Ok(identity) => identity.validity(),
        Err(error) => {
            let hint = "put the folder `cluster` of the data directory back as it was";
            return Some(ill(check, Grade::Bad, error.to_string(), hint));
        }
    };
    let until = clock::rfc3339(validity.until * 1000);
    let hint = "`pressroom node token` on another node, then `pressroom node join TOKEN` here: name and data stay";
    Some(if validity.is_over(now) {
        let detail = format!("it ended on {until}: no other node lets this one in");
        ill(check, Grade::Bad, detail, hint)
    } else if validity.is_late(now) {
        let detail = format!("it ends on {until} and was not renewed, as it should have been");
        ill(
            check,
            Grade::Warning,
            detail,
            format!("`pressroom status` says why; if need be, {hint}"),
        )
    } else {
        good(check, format!("good until {until}; it is renewed before"))
    })
}

/// Whether the endpoints of an etcd that operators keep are reached from here.
fn state(layout: &Layout) -> Option<Finding> {
    let etcd = Membership::read(layout).ok().flatten()?.external?;
    let silent: Vec<&str> =
        etcd.endpoints.iter().map(String::as_str).filter(|url| !accepts(url)).collect();
    let hint = "look at your etcd and the way there; `pressroom cluster etcd` tells all nodes of other endpoints";
    let detail = format!("in your etcd, {}", etcd.place());
    Some(match silent.len() {
        0 => good("state", detail),
        some => {
            let is_all = some == etcd.endpoints.len();
            let grade = if is_all { Grade::Bad } else { Grade::Warning };
            let rest = if is_all { "; sites are served, and nothing can be changed" } else { "" };
            ill(
                "state",
                grade,
                format!("{detail}: {} cannot be reached{rest}", silent.join(", ")),
                hint,
            )
        }
    })
}

fn accepts(url: &str) -> bool {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let addresses = place.to_socket_addrs().into_iter().flatten();
    addresses.take(2).any(|address| TcpStream::connect_timeout(&address, REACHED).is_ok())
}

fn git() -> Finding {
    if repository::is_installed() {
        return good("git", "releases are commits, and sites can be pushed to");
    }
    ill(
        "git",
        Grade::Warning,
        "it is not installed: releases are no commits, and nobody can clone or push; everything else works",
        packages::command(&["git"]),
    )
}

fn privileges() -> Finding {
    if rustix::process::geteuid().is_root() {
        return good("privileges", "root: every site and engine has a user of its own");
    }
    ill(
        "privileges",
        Grade::Warning,
        "an ordinary user: all sites run as you, unconfined and kept apart by open_basedir alone",
        "run as root to give every site a user, a file system and limits of its own",
    )
}

/// What of a confinement this machine can do. An ordinary user has none, which `privileges` says.
fn walls() -> Option<Finding> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let check = "confinement";
    let (_, missing) = confinement::means();
    if missing.is_empty() {
        return Some(good(check, "sites see their own code, uploads and temporary files only"));
    }
    Some(ill(
        check,
        Grade::Warning,
        format!("sites do not get {}", missing.join(", ")),
        "a container must be allowed to mount (CAP_SYS_ADMIN); until then users and permissions keep sites apart",
    ))
}

/// Whether Docker is there for the sites that ask for it.
fn containers(layout: &Layout, config: &Config) -> Option<Finding> {
    let asks = |site: &&Site| site.php.runtime == Runtime::Docker;
    let first = config.sites.iter().find(asks)?;
    let check = "docker";
    if !rustix::process::geteuid().is_root() {
        let detail = format!("`{}` is to run in containers, which only root can do", first.name);
        return Some(ill(check, Grade::Bad, detail, "run as root, or say `runtime = \"process\"`"));
    }
    let (socket, is_own) = daemon::choose(layout, config.node.docker.as_deref());
    let hint = match Docker::client() {
        Ok(_) if is_own => "`pressroom up` starts it".to_owned(),
        Ok(_) => format!(
            "start it (`systemctl start docker`); its socket is `docker` in `[node]`, here {}",
            socket.display()
        ),
        Err(_) => packages::command(&["docker.io"]),
    };
    Some(match Docker::new(layout, &socket).version() {
        Ok(version) => good(check, format!("the daemon answers, version {version}")),
        Err(error) => ill(
            check,
            Grade::Bad,
            format!("{error}; `{}` stays with what it has", first.name),
            hint,
        ),
    })
}

/// Whether floating addresses can come here, and nobody else has them.
fn addresses(layout: &Layout, config: &Config) -> Option<Finding> {
    let check = "addresses";
    let first = config.cluster.addresses.first()?.address;
    if !rustix::process::geteuid().is_root() {
        let detail = format!("{first} cannot come here: only root gives a machine addresses");
        return Some(ill(
            check,
            Grade::Bad,
            detail,
            "run as root, or leave `cluster.addresses` out",
        ));
    }
    let own = match Membership::read(layout) {
        Ok(Some(own)) => own,
        _ => {
            let detail = format!("{first} does not come here: this machine is in no cluster");
            let hint = "`pressroom cluster init` makes it the first node of one";
            return Some(ill(check, Grade::Warning, detail, hint));
        }
    };
    let members: Vec<IpAddr> = own.nodes.values().map(|node| node.address).collect();
    for floating in &config.cluster.addresses {
        if let Ok(Some(who)) = floating::stranger(floating.address, &members) {
            let hint = "two machines with one address answer by turns: until then no node takes it";
            return Some(ill(check, Grade::Bad, format!("{}: {who}", floating.address), hint));
        }
    }
    let count = config.cluster.addresses.len();
    Some(good(check, format!("{count} floating, and nobody outside the cluster has one")))
}

fn memory() -> Finding {
    let memory = host::memory();
    if memory < ByteSize::mib(900) {
        let hint = "set [database] and [cache] memory, and fewer `workers`, in pressroom.toml";
        return ill("memory", Grade::Warning, format!("{} MiB", memory.whole_mib()), hint);
    }
    good("memory", format!("{} MiB, {} cores", memory.whole_mib(), host::cores()))
}

fn disk(data: &Path) -> Finding {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match host::free_space(existing) {
        Err(error) => ill("disk", Grade::Bad, error.to_string(), "look at the file system"),
        Ok(free) if free < ByteSize::mib(500) => ill(
            "disk",
            Grade::Bad,
            format!("{} MiB are free for {}", free.whole_mib(), data.display()),
            "make room: MariaDB stops writing when the disk is full",
        ),
        Ok(free) => good("disk", format!("{} MiB are free", free.whole_mib())),
    }
}

fn needed_packages(config: &Config) -> Finding {
    let missing = packages::missing(config);
    if missing.is_empty() {
        return good("packages", "everything that the configuration needs is installed");
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name.as_str()).collect();
    ill("packages", Grade::Bad, format!("missing: {}", names.join(", ")), packages::command(&names))
}

/// Site users must be able to walk to the data directory.
fn entrance(data: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return good("data directory", data.display().to_string());
    }
    let closed = data.ancestors().skip(1).find(|path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    });
    match closed {
        None => good("data directory", data.display().to_string()),
        Some(path) => ill(
            "data directory",
            Grade::Bad,
            format!("{} cannot be entered by the sites' users", path.display()),
            format!("chmod o+x {}, or use another --data", path.display()),
        ),
    }
}
