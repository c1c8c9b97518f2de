//! Who listens on a taken port, as far as `/proc` shows it: the socket's inode from `/proc/net/tcp`, its owner from `/proc/PID/fd`.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::proc_stat;

/// A process that listens on an address somebody else wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process id.
    pub(super) pid: i32,
    /// Its program's short name.
    pub(super) program: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (pid {})", self.program, self.pid)
    }
}

/// Everybody who holds a socket that listens on this address or on one that includes it.
pub(super) fn find(address: SocketAddr) -> Vec<Holder> {
    let tables = [fs::read_to_string("/proc/net/tcp"), fs::read_to_string("/proc/net/tcp6")];
    let inodes: Vec<u64> =
        tables.iter().flatten().flat_map(|table| listening_inodes(table, address)).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let holds = |pid: i32| descriptors(pid).into_iter().any(|(_, inode)| inodes.contains(&inode));
    let holders = proc_stat::all().filter(|(pid, _)| holds(*pid));
    holders
        .map(|(pid, _)| Holder { pid, program: proc_stat::program(pid).unwrap_or_default() })
        .collect()
}

/// The sockets that a process has open: descriptor and inode. Empty when they may not be seen.
pub(super) fn descriptors(pid: i32) -> Vec<(i32, u64)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let socket = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    entries.filter_map(socket).collect()
}

/// The inodes of listening sockets in one `/proc/net/tcp*` table whose address stands in the way of `wanted`.
fn listening_inodes(table: &str, wanted: SocketAddr) -> Vec<u64> {
    const LISTENING: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let held = SocketAddr::new(parse_ip(address)?, u16::from_str_radix(port, 16).ok()?);
        let is_in_the_way = *fields.get(3)? == LISTENING && conflicts(held, wanted);
        is_in_the_way.then(|| fields.get(9)?.parse().ok())?
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Whether two listening addresses exclude each other.
pub(super) fn conflicts(held: SocketAddr, wanted: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    held.port() == wanted.port() && (held.ip() == wanted.ip() || any(held) || any(wanted))
}

/// The kernel prints each 32-bit word of an address in the machine's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        Some(u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
   garbage\n";

    fn check(wanted: &str, inodes: &[u64]) {
        assert_eq!(
            listening_inodes(TABLE, wanted.parse().expect("an address")),
            inodes,
            "{wanted}"
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_in_the_way_are_found_and_connections_are_not() {
        check("127.0.0.1:8080", &[4711]);
        check("0.0.0.0:8080", &[4711]);
        check("127.0.0.2:8080", &[]);
        check("127.0.0.1:80", &[4712]);
        check("[::]:80", &[4712]);
    }

    #[test]
    fn this_process_is_found_by_its_listening_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let holders = find(listener.local_addr().expect("address"));
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(holders.iter().any(|holder| holder.pid == own), "{holders:?}");
    }
}
