//! The private MariaDB's option file, sized from the memory it is given.

use std::path::Path;

use pressroom_model::unit::ByteSize;
use serde::Serialize;

use crate::template::fill;

/// Where things are, and how large it may be.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// Folder for temporary tables.
    pub tmp: &'a Path,
    /// The socket that writes go to.
    pub socket: &'a Path,
    /// Its own process id file.
    pub pid_file: &'a Path,
    /// All the memory it should use.
    pub memory: ByteSize,
    /// PHP workers of all sites: each may hold a connection.
    pub workers: u32,
}

#[derive(Serialize)]
struct Fields<'a> {
    data: &'a Path,
    tmp: &'a Path,
    socket: &'a Path,
    pid_file: &'a Path,
    buffer_pool_mib: u64,
    log_file_mib: u64,
    connections: u32,
}

/// The option file.
pub fn options(facts: &Facts<'_>) -> String {
    let memory = facts.memory.whole_mib();
    // The rest is for connections, the dictionary and sorting.
    let buffer_pool_mib = (memory * 3 / 4).max(64);
    fill(
        include_str!("../templates/my.cnf.j2"),
        Fields {
            data: facts.data,
            tmp: facts.tmp,
            socket: facts.socket,
            pid_file: facts.pid_file,
            buffer_pool_mib,
            log_file_mib: (buffer_pool_mib / 4).clamp(48, 1024),
            connections: (facts.workers * 2 + 32).max(100),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_pool_follows_the_memory_and_commits_reach_the_disk() {
        let text = options(&Facts {
            data: Path::new("/d/data"),
            tmp: Path::new("/d/tmp"),
            socket: Path::new("/d/run/writer.sock"),
            pid_file: Path::new("/d/run/pid"),
            memory: ByteSize::mib(512),
            workers: 8,
        });
        assert!(text.contains("innodb_buffer_pool_size = 384M"), "{text}");
        assert!(text.contains("innodb_flush_log_at_trx_commit = 1"), "{text}");
        assert!(text.contains("skip-networking"), "{text}");
    }
}
