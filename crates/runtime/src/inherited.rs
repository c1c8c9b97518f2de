//! Listening sockets that were inherited: `LISTEN_FDS`, `LISTEN_FDNAMES`, from descriptor 3 on (systemd's `sd_listen_fds(3)`).

use std::os::fd::{FromRawFd as _, OwnedFd};

/// A listening socket and what it was called.
#[derive(Debug)]
pub struct Inherited {
    /// Its name.
    pub name: String,
    /// The socket.
    pub fd: OwnedFd,
}

/// Takes the sockets that the environment names. To be called once, before anything else opens descriptors.
pub fn inherited() -> Vec<Inherited> {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<i32>().ok()).unwrap_or(0);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (3..3 + count.clamp(0, 4096))
        .map(|fd| {
            let name = names.next().unwrap_or("").to_owned();
            #[expect(unsafe_code, reason = "the parent says that these descriptors are ours")]
            // SAFETY: by the protocol of LISTEN_FDS nobody else in this process owns them; this is called once.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            // Children of ours, if there ever are any, shall not inherit them.
            let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
            Inherited { name, fd }
        })
        .collect()
}
