//! The table of listening sockets that the keeper holds for others.
//!
//! Normally a listener is *held*: its sockets listen here and in whoever inherited them, so connections wait when that one dies. After a
//! keeper was killed its successor takes the sockets back (`takeover`). Where the system forbids that (a user who is not root, Yama), the
//! listener is *deferred*: TCP sockets are bound beside the inheritor's but do not listen, or connections would come to sockets on which
//! nobody accepts. They listen once a new inheritor starts or the last old one is gone.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use pressroom_model::process::{ListenAddress, ListenerSpec};
use serde::{Deserialize, Serialize};

use super::port_holder;
use super::sockets::{self, Sharing, SocketError};

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// A name that cannot stand in `LISTEN_FDNAMES`.
    #[error(
        "`{name}` is no name for a listener: letters, digits, `-`, `_` and `.` only, at most 64"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Port 0 or no sockets.
    #[error("listener `{name}`: {value} is not allowed")]
    Value {
        /// The listener.
        name: String,
        /// What it said.
        value: String,
    },
    /// Two listeners, one address.
    #[error("listener `{name}`: `{other}` listens on {address} already")]
    Twice {
        /// The listener.
        name: String,
        /// Who has it.
        other: String,
        /// The address.
        address: String,
    },
    /// A process wants a listener that was never opened.
    #[error("there is no listener `{name}`")]
    Unknown {
        /// The listener.
        name: String,
    },
    /// The system's answer.
    #[error("listener `{name}`: {source}")]
    Socket {
        /// The listener.
        name: String,
        /// What is wrong.
        source: SocketError,
    },
}

/// A listener in the state file: by their inodes its sockets are found in the processes that inherited them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) spec: ListenerSpec,
    #[serde(default)]
    pub(super) inodes: Vec<u64>,
}

struct Held {
    spec: ListenerSpec,
    sockets: Vec<OwnedFd>,
    /// The inodes of sockets that could not be taken back, while the listener is deferred.
    lost: Vec<u64>,
}

impl Held {
    fn is_deferred(&self) -> bool {
        !self.lost.is_empty()
    }
}

/// All listeners, in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Listeners {
    held: Vec<Held>,
}

impl Listeners {
    /// Opens what is wanted; true if that changed anything. `is_own` knows the keeper's own processes, which may sit on an address.
    pub(super) fn listen(
        &mut self,
        spec: &ListenerSpec,
        is_own: impl Fn(i32) -> bool,
    ) -> Result<bool, ListenError> {
        check(spec)?;
        if self.find(&spec.name).is_some_and(|held| held.spec == *spec) {
            return Ok(false);
        }
        if let Some(other) = self
            .held
            .iter()
            .find(|held| held.spec.name != spec.name && is_same_place(&held.spec, spec))
        {
            let (name, other) = (spec.name.clone(), other.spec.name.clone());
            return Err(ListenError::Twice { name, other, address: place(&spec.address) });
        }
        match self.held.iter().position(|held| held.spec.name == spec.name) {
            Some(index) if is_same_place(&self.held[index].spec, spec) => {
                adjust(&mut self.held[index], spec)?;
            }
            Some(index) if relocate(&mut self.held[index], spec)? => {}
            Some(index) => {
                let fresh = self.open(spec, is_own)?;
                let former = std::mem::replace(&mut self.held[index], fresh);
                close(former);
            }
            None => {
                let fresh = self.open(spec, is_own)?;
                self.held.push(fresh);
            }
        }
        Ok(true)
    }

    /// Closes a listener; true if there was one.
    pub(super) fn unlisten(&mut self, name: &str) -> bool {
        let index = self.held.iter().position(|held| held.spec.name == name);
        index.map(|index| close(self.held.remove(index))).is_some()
    }

    /// Closes everything and removes the socket files.
    pub(super) fn close_all(&mut self) {
        self.held.drain(..).for_each(close);
    }

    /// One (name, socket) for each descriptor of a process that inherits these listeners; deferred ones listen from now on.
    pub(super) fn inherit(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(String, BorrowedFd<'_>)>, ListenError> {
        for name in names {
            let held = self.held.iter_mut().find(|held| held.spec.name == *name);
            awake(held.ok_or_else(|| ListenError::Unknown { name: name.clone() })?)?;
        }
        let held = names.iter().filter_map(|name| self.find(name));
        Ok(held
            .flat_map(|held| {
                held.sockets.iter().map(|socket| (held.spec.name.clone(), socket.as_fd()))
            })
            .collect())
    }

    /// Lets deferred listeners that nobody inherits any more listen; returns (name, error) of those that cannot.
    pub(super) fn wake_orphans(
        &mut self,
        is_inherited: impl Fn(&str) -> bool,
    ) -> Vec<(String, Option<ListenError>)> {
        let orphans = self
            .held
            .iter_mut()
            .filter(|held| held.is_deferred() && !is_inherited(&held.spec.name));
        orphans.map(|held| (held.spec.name.clone(), awake(held).err())).collect()
    }

    /// What a former keeper held: sockets given back by `find`, else deferred while somebody inherits it, else opened anew.
    pub(super) fn take_back(
        &mut self,
        stored: Stored,
        found: Option<Vec<OwnedFd>>,
        is_inherited: bool,
    ) -> Result<TakenBack, ListenError> {
        let Stored { spec, inodes } = stored;
        check(&spec)?;
        let (held, how) = match found {
            Some(sockets) => (Held { spec, sockets, lost: Vec::new() }, TakenBack::Whole),
            None if is_inherited => {
                let lost = if inodes.is_empty() { vec![0] } else { inodes };
                (Held { sockets: bind_beside(&spec)?, spec, lost }, TakenBack::Deferred)
            }
            None => (self.open(&spec, |_| false)?, TakenBack::Anew),
        };
        self.held.push(held);
        Ok(how)
    }

    pub(super) fn specs(&self) -> Vec<ListenerSpec> {
        self.held.iter().map(|held| held.spec.clone()).collect()
    }

    pub(super) fn stored(&self) -> Vec<Stored> {
        let inodes = |held: &Held| match held.is_deferred() {
            true => held.lost.clone(),
            false => held.sockets.iter().filter_map(inode).collect(),
        };
        self.held
            .iter()
            .map(|held| Stored { spec: held.spec.clone(), inodes: inodes(held) })
            .collect()
    }

    fn find(&self, name: &str) -> Option<&Held> {
        self.held.iter().find(|held| held.spec.name == name)
    }

    fn open(&self, spec: &ListenerSpec, is_own: impl Fn(i32) -> bool) -> Result<Held, ListenError> {
        let failed = |source| ListenError::Socket { name: spec.name.clone(), source };
        let sockets = match &spec.address {
            ListenAddress::Unix { path, mode, owner } => {
                vec![sockets::open_unix(path, *mode, *owner).map_err(failed)?]
            }
            ListenAddress::Tcp(address) => {
                let sockets = self.bind(*address, spec.sockets, is_own).map_err(failed)?;
                sockets::begin_listening(&sockets, &address.to_string()).map_err(failed)?;
                sockets
            }
            ListenAddress::Udp(address) => {
                let mut own = self.held.iter().filter_map(|held| udp(&held.spec));
                let sharing = match own.any(|it| port_holder::conflicts(it, *address)) {
                    true => Sharing::Own,
                    false => Sharing::Nobody,
                };
                vec![sockets::bind_udp(*address, sharing).map_err(failed)?]
            }
        };
        Ok(Held { spec: spec.clone(), sockets, lost: Vec::new() })
    }

    /// Our own sockets and processes may be in the way (a change from one address to one that includes it, an old edge that drains).
    fn bind(
        &self,
        address: SocketAddr,
        count: u16,
        is_own: impl Fn(i32) -> bool,
    ) -> Result<Vec<OwnedFd>, SocketError> {
        let is_ours =
            |held: &Held| tcp(&held.spec).is_some_and(|ours| port_holder::conflicts(ours, address));
        if self.held.iter().any(is_ours) {
            return sockets::bind_tcp(address, count, Sharing::Own);
        }
        match sockets::bind_tcp(address, count, Sharing::Nobody) {
            Err(SocketError::Taken { holders, .. })
                if !holders.is_empty() && holders.iter().all(|holder| is_own(holder.pid)) =>
            {
                sockets::bind_tcp(address, count, Sharing::Own)
            }
            other => other,
        }
    }
}

/// How a listener came over from a former keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenBack {
    /// The very sockets: nobody noticed.
    Whole,
    /// They are where they were, but not here.
    Deferred,
    /// Nobody had them any more.
    Anew,
}

/// The inode by which `/proc` names a socket.
pub(super) fn inode(socket: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino)
}

fn check(spec: &ListenerSpec) -> Result<(), ListenError> {
    let bad =
        |value: &str| Err(ListenError::Value { name: spec.name.clone(), value: value.to_owned() });
    if !is_name(&spec.name) {
        return Err(ListenError::Name { name: spec.name.clone() });
    }
    match &spec.address {
        ListenAddress::Tcp(address) | ListenAddress::Udp(address) if address.port() == 0 => {
            bad("port 0")
        }
        ListenAddress::Udp(_) if spec.sockets != 1 => bad("UDP with more or less than one socket"),
        ListenAddress::Tcp(_) if !(1..=1024).contains(&spec.sockets) => {
            bad(&format!("a number of {} sockets", spec.sockets))
        }
        ListenAddress::Unix { .. } if spec.sockets != 1 => {
            bad("a unix listener with more or less than one socket")
        }
        ListenAddress::Unix { path, .. } if !path.is_absolute() => bad("a relative path"),
        _ => Ok(()),
    }
}

/// Whether something may be the name of a process or listener: it ends in file names, logs and `LISTEN_FDNAMES`.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}

fn tcp(spec: &ListenerSpec) -> Option<SocketAddr> {
    match spec.address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Udp(_) | ListenAddress::Unix { .. } => None,
    }
}

fn udp(spec: &ListenerSpec) -> Option<SocketAddr> {
    match spec.address {
        ListenAddress::Udp(address) => Some(address),
        ListenAddress::Tcp(_) | ListenAddress::Unix { .. } => None,
    }
}

fn unix(spec: &ListenerSpec) -> Option<&Path> {
    match &spec.address {
        ListenAddress::Tcp(_) | ListenAddress::Udp(_) => None,
        ListenAddress::Unix { path, .. } => Some(path),
    }
}

fn place(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Udp(address) => format!("{address} (UDP)"),
        ListenAddress::Unix { path, .. } => path.display().to_string(),
    }
}

fn is_same_place(one: &ListenerSpec, other: &ListenerSpec) -> bool {
    tcp(one) == tcp(other) && udp(one) == udp(other) && unix(one) == unix(other)
}

/// The address stays; the number of sockets, or mode and owner of the file, change.
fn adjust(held: &mut Held, spec: &ListenerSpec) -> Result<(), ListenError> {
    let failed = |source| ListenError::Socket { name: spec.name.clone(), source };
    match &spec.address {
        ListenAddress::Tcp(address) => {
            let wanted = usize::from(spec.sockets);
            if wanted > held.sockets.len() {
                let more = u16::try_from(wanted - held.sockets.len()).unwrap_or(1);
                let fresh = sockets::bind_tcp(*address, more, Sharing::Own).map_err(failed)?;
                if !held.is_deferred() {
                    sockets::begin_listening(&fresh, &address.to_string()).map_err(failed)?;
                }
                held.sockets.extend(fresh);
            }
            held.sockets.truncate(wanted);
        }
        ListenAddress::Udp(_) => {}
        ListenAddress::Unix { path, mode, owner } => {
            let system = |errno: rustix::io::Errno| SocketError::System {
                address: path.display().to_string(),
                source: errno.into(),
            };
            sockets::allow(path, *mode, *owner).map_err(system).map_err(failed)?;
        }
    }
    held.spec = spec.clone();
    Ok(())
}

/// A unix listener whose path changes moves with its file: the socket stays the one that others inherited. False if there is
/// no file to move (or it is no unix listener), so that it must be opened anew.
fn relocate(held: &mut Held, spec: &ListenerSpec) -> Result<bool, ListenError> {
    let (Some(from), ListenAddress::Unix { path, mode, owner }) = (unix(&held.spec), &spec.address)
    else {
        return Ok(false);
    };
    let moved = sockets::relocate_unix(from, path, *mode, *owner);
    let moved = moved.map_err(|source| ListenError::Socket { name: spec.name.clone(), source })?;
    if moved {
        held.spec = spec.clone();
    }
    Ok(moved)
}

/// What a deferred listener holds meanwhile: TCP sockets that reserve the address; of a unix socket nothing, its file is the
/// inheritor's; of UDP nothing, since datagrams would come to it.
fn bind_beside(spec: &ListenerSpec) -> Result<Vec<OwnedFd>, ListenError> {
    match spec.address {
        ListenAddress::Unix { .. } | ListenAddress::Udp(_) => Ok(Vec::new()),
        ListenAddress::Tcp(address) => sockets::bind_tcp(address, spec.sockets, Sharing::Own)
            .map_err(|source| ListenError::Socket { name: spec.name.clone(), source }),
    }
}

/// Ends the deferral.
fn awake(held: &mut Held) -> Result<(), ListenError> {
    if !held.is_deferred() {
        return Ok(());
    }
    let failed = |source| ListenError::Socket { name: held.spec.name.clone(), source };
    match &held.spec.address {
        ListenAddress::Tcp(address) => {
            sockets::begin_listening(&held.sockets, &address.to_string()).map_err(failed)?;
        }
        ListenAddress::Udp(address) => {
            held.sockets = vec![sockets::bind_udp(*address, Sharing::Own).map_err(failed)?];
        }
        ListenAddress::Unix { path, mode, owner } => {
            let fresh = sockets::open_unix(path, *mode, *owner).map_err(failed)?;
            held.sockets = vec![fresh];
        }
    }
    held.lost.clear();
    Ok(())
}

fn close(held: Held) {
    let path: Option<PathBuf> = unix(&held.spec).map(Path::to_owned);
    drop(held);
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
}
