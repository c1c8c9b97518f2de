//! Opening listening sockets.
//!
//! TCP sockets always carry SO_REUSEPORT: several may share an address, and a new keeper can bind beside a running edge. That alone would
//! also let two servers of one user share a port by mistake, so a socket without it is bound first as a probe. Blocking mode, as every
//! inheritor expects; the keeper itself never accepts on them. Bound and listening are two steps, see `listeners`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt,
};

use super::port_holder::{self, Holder};

const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Somebody else listens there.
    #[error("{address} is taken by {}; stop it or choose another address", named(holders))]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who has it, as far as can be seen.
        holders: Vec<Holder>,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "listening on {address} needs root or CAP_NET_BIND_SERVICE; choose a port from 1024 on"
    )]
    Forbidden {
        /// The address.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("{address} is not an address of this machine")]
    NotHere {
        /// The address.
        address: SocketAddr,
    },
    /// The path of a unix socket does not fit into the system's structure.
    #[error("the socket path {} is longer than 107 bytes; use a shorter data directory", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Something else is where a socket should be.
    #[error("{} exists and is no socket; move it away", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Any other answer of the system.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// The address or path.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
}

fn named(holders: &[Holder]) -> String {
    match holders {
        [] => "another process".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Whether somebody else may hold the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nobody: anybody found there makes it fail.
    Nobody,
    /// Own processes do.
    Own,
}

/// Binds `count` TCP sockets to one address, not yet listening.
pub(super) fn bind_tcp(
    address: SocketAddr,
    count: u16,
    sharing: Sharing,
) -> Result<Vec<OwnedFd>, SocketError> {
    if sharing == Sharing::Nobody {
        bind_one(address, false)?;
    }
    (0..count.max(1)).map(|_| bind_one(address, true)).collect()
}

/// Binds a UDP socket.
pub(super) fn bind_udp(address: SocketAddr, sharing: Sharing) -> Result<OwnedFd, SocketError> {
    // Without this a second socket would take datagrams of the first.
    if sharing == Sharing::Nobody {
        bind_as(SocketType::DGRAM, address, false)?;
    }
    bind_as(SocketType::DGRAM, address, true)
}

fn bind_one(address: SocketAddr, reuse_port: bool) -> Result<OwnedFd, SocketError> {
    bind_as(SocketType::STREAM, address, reuse_port)
}

fn bind_as(
    kind: SocketType,
    address: SocketAddr,
    reuse_port: bool,
) -> Result<OwnedFd, SocketError> {
    try_bind(kind, address, reuse_port).map_err(|errno| match errno {
        Errno::ADDRINUSE if kind == SocketType::DGRAM => {
            SocketError::Taken { address, holders: Vec::new() }
        }
        Errno::ADDRINUSE => SocketError::Taken { address, holders: port_holder::find(address) },
        Errno::ACCESS | Errno::PERM => SocketError::Forbidden { address },
        Errno::ADDRNOTAVAIL => SocketError::NotHere { address },
        other => SocketError::System { address: address.to_string(), source: other.into() },
    })
}

fn try_bind(kind: SocketType, address: SocketAddr, reuse_port: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if reuse_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// Lets bound sockets take connections (again: harmless on those that do already).
pub(super) fn begin_listening(sockets: &[OwnedFd], address: &str) -> Result<(), SocketError> {
    let failed =
        |errno: Errno| SocketError::System { address: address.to_owned(), source: errno.into() };
    sockets.iter().try_for_each(|socket| listen(socket, BACKLOG).map_err(failed))
}

/// Listens on a unix socket, in place of a stale file of a former one.
pub(super) fn open_unix(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, SocketError> {
    let failed =
        |source: io::Error| SocketError::System { address: path.display().to_string(), source };
    let address =
        SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong { path: path.to_owned() })?;
    if has_socket_or_nothing(path)? {
        fs::remove_file(path).map_err(failed)?;
    }
    let open = || {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &address)?; // nobody can connect before it listens
        allow(path, mode, owner)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|errno: Errno| failed(errno.into()))
}

/// Whether a socket file is there; anything else in its place is refused.
fn has_socket_or_nothing(path: &Path) -> Result<bool, SocketError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(true),
        Ok(_) => Err(SocketError::NotASocket { path: path.to_owned() }),
        Err(_) => Ok(false),
    }
}

/// Moves the file of a listening socket, in place of a stale one: who connects there reaches the same socket. False if there is no file.
pub(super) fn relocate_unix(
    from: &Path,
    to: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<bool, SocketError> {
    let failed =
        |source: io::Error| SocketError::System { address: to.display().to_string(), source };
    SocketAddrUnix::new(to).map_err(|_| SocketError::TooLong { path: to.to_owned() })?;
    has_socket_or_nothing(to)?;
    if !has_socket_or_nothing(from)? {
        return Ok(false);
    }
    // The new rights first: at its new place nobody may find the old ones.
    allow(from, mode, owner).map_err(|errno| failed(errno.into()))?;
    fs::rename(from, to).map_err(failed)?;
    Ok(true)
}

/// Sets owner (root only) and permission bits of a socket file.
pub(super) fn allow(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), Errno> {
    if let (Some((uid, gid)), true) = (owner, rustix::process::geteuid().is_root()) {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode & 0o777), rustix::fs::AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_port_that_is_shared_on_purpose_takes_several_sockets_and_others_are_refused() {
        let free = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let sockets = bind_tcp(free, 3, Sharing::Nobody).expect("a free port");
        begin_listening(&sockets, "test").expect("listens");
        assert_eq!(sockets.len(), 3);
        assert!(
            matches!(bind_tcp(free, 1, Sharing::Nobody), Err(SocketError::Taken { .. })),
            "SO_REUSEPORT alone would allow it"
        );
        assert_eq!(bind_tcp(free, 1, Sharing::Own).expect("beside our own").len(), 1);
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let address = "192.0.2.1:80".parse().expect("an address");
        let error = bind_tcp(address, 1, Sharing::Nobody).expect_err("not ours");
        assert!(error.to_string().contains("192.0.2.1:80"), "{error}");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.sock");
        drop(open_unix(&path, 0o600, None).expect("listens"));
        let socket = open_unix(&path, 0o660, None).expect("replaces the stale one");
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).expect("connects");
        drop(socket);
        let file = folder.path().join("file");
        fs::write(&file, "precious").expect("write");
        assert!(matches!(open_unix(&file, 0o600, None), Err(SocketError::NotASocket { .. })));
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(open_unix(&long, 0o600, None), Err(SocketError::TooLong { .. })));
    }
}
