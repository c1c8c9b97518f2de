//! One peer on the keeper's socket: lines in, lines out, never blocking. Answers come in the order of the requests: while one is being
//! waited for (a watch) or not yet taken by the peer, its next request waits.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use pressroom_model::process::{Reply, Request};
use rustix::event::PollFlags;

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The process that connected; 0 if it is outside of our view of processes.
    pub(super) pid: i32,
    pub(super) uid: u32,
}

/// What the kernel says of the peer.
#[expect(
    unsafe_code,
    reason = "safe wrappers take a process id of 0 (a peer outside of a container) for impossible; the structure is plain numbers"
)]
pub(super) fn peer(stream: &UnixStream) -> Option<Peer> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = libc::socklen_t::try_from(size_of_val(&peer)).ok()?;
    let answer = unsafe {
        let place = (&raw mut peer).cast();
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            place,
            &raw mut size,
        )
    };
    (answer == 0).then_some(Peer { pid: peer.pid, uid: peer.uid })
}

/// The longest request.
const LONGEST: usize = 1 << 20;

/// A request that is answered when something changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pub(super) seen: u64,
    pub(super) until: Instant,
}

/// A peer.
pub(super) struct Connection {
    stream: UnixStream,
    /// The process that connected.
    pub(super) pid: i32,
    /// Its unanswered watch.
    pub(super) watch: Option<Watch>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    has_no_more: bool,
    is_over: bool,
}

impl Connection {
    /// `stream` must not block.
    pub(super) fn new(stream: UnixStream, pid: i32) -> Self {
        Self {
            stream,
            pid,
            watch: None,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            has_no_more: false,
            is_over: false,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What to wait for; a hang-up is always reported.
    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.has_no_more && self.incoming.len() <= LONGEST);
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        flags
    }

    /// Reads and writes what can be.
    pub(super) fn exchange(&mut self, ready: PollFlags) {
        if ready.contains(PollFlags::OUT) {
            self.flush();
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.fill();
        }
        if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            self.watch = None; // nobody is there to hear it
            self.outgoing.clear();
            // What was asked before hanging up is still done.
            self.is_over |= !self.has_no_more || !self.incoming.contains(&b'\n');
        }
    }

    /// The next request whose turn it is; an error is the text of a refusal.
    pub(super) fn next_request(&mut self) -> Option<Result<Request, String>> {
        if self.watch.is_some() || !self.outgoing.is_empty() || self.is_over {
            return None;
        }
        let Some(end) = self.incoming.iter().position(|byte| *byte == b'\n') else {
            if self.incoming.len() > LONGEST {
                self.incoming.clear();
                self.has_no_more = true;
                return Some(Err(format!("a request may have {LONGEST} bytes at most")));
            }
            self.is_over |= self.has_no_more;
            return None;
        };
        let line: Vec<u8> = self.incoming.drain(..=end).collect();
        Some(
            serde_json::from_slice(&line)
                .map_err(|error| format!("this is not a request that this keeper knows: {error}")),
        )
    }

    pub(super) fn answer(&mut self, reply: &Reply) {
        self.watch = None;
        if serde_json::to_writer(&mut self.outgoing, reply).is_err() {
            self.is_over = true;
        }
        self.outgoing.push(b'\n');
        self.flush();
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count @ 1..) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }

    fn fill(&mut self) {
        let mut chunk = [0; 16 << 10];
        while self.incoming.len() <= LONGEST && !self.has_no_more {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.has_no_more = true,
                Ok(count) => {
                    self.incoming.extend_from_slice(chunk.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.has_no_more = true,
            }
        }
    }
}
