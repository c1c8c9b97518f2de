//! Facts about this machine: memory, cores, our own program, the state of processes in `/proc`.

use std::io;
use std::path::PathBuf;

use pressroom_model::unit::ByteSize;

/// All memory of this machine; a container's limit counts where it is lower.
pub fn memory() -> ByteSize {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib << 10);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .unwrap_or(u64::MAX);
    ByteSize::bytes(total.min(limit))
}

/// Cores that we may use.
pub fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX))
}

/// The path of this program, also after the file was replaced under it.
pub fn own_program() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or(path.clone(), PathBuf::from))
}

/// The address by which this machine reaches others, if it has a route to anywhere.
pub fn own_address() -> Option<std::net::IpAddr> {
    let reach = |from: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        // Nothing is sent: the system chooses the route (the addresses are of RFC 5737 and RFC 3849), and with it ours.
        socket.connect(to).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_loopback()).then_some(address)
    };
    reach("0.0.0.0:0", "192.0.2.1:9").or_else(|| reach("[::]:0", "[2001:db8::1]:9"))
}

/// This machine's name.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcStat {
    /// The kernel's letter: `R`, `S`, `D`, `T` (stopped), `Z` …
    pub state: char,
    /// Its parent.
    pub parent: i32,
}

impl ProcStat {
    /// Stopped by a signal.
    pub fn is_stopped(self) -> bool {
        self.state == 'T'
    }
}

/// Reads a process's state; `None`: it is gone.
pub fn stat(pid: i32) -> Option<ProcStat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, also `) `.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some(ProcStat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default()
}

/// Free bytes of the file system that holds `path`.
pub fn free_space(path: &std::path::Path) -> io::Result<ByteSize> {
    let facts = rustix::fs::statvfs(path)?;
    Ok(ByteSize::bytes(facts.f_bavail * facts.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_see_ourselves_running() {
        let own = i32::try_from(std::process::id()).expect("process ids are small");
        let seen = stat(own).expect("we are there");
        assert!(!seen.is_stopped() && seen.parent > 0);
        assert!(memory().whole_mib() > 64 && cores() >= 1);
    }
}
