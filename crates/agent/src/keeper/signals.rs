//! The keeper's own signals and its place in the process tree.
//!
//! Handlers write one byte into a pipe that the loop polls; they work whichever thread the kernel picks. SIGHUP and SIGPIPE are ignored.
//! `launch` blocks signals around fork and resets everything in the child, so a handler never runs in a child.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Resource;

use super::Error;

static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Own session, reaper of every orphan below, hardly ever chosen by the out-of-memory killer.
pub(super) fn become_keeper() -> Result<(), Error> {
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {} // PERM: it leads a group already
        Err(source) => return Err(Error::system("begin a session", source)),
    }
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))
        .map_err(|source| Error::system("become the reaper of orphans", source))?;
    // Only a privileged keeper may, and it is a precaution.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    // What it creates is not for others, unless it says so.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    Ok(())
}

/// Raises the keeper's own limit of open files to what is allowed; returns the former one, which children get.
pub(super) fn raise_open_files() -> rustix::process::Rlimit {
    let former = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: former.maximum, maximum: former.maximum };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    former
}

/// Installs the handlers; the returned descriptor becomes readable, one byte (the signal's number) each.
pub(super) fn install() -> Result<OwnedFd, Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|source| Error::system("make a pipe", source))?;
    // The write end lives as long as the process: a handler may run at any time.
    WAKE.store(write.as_raw_fd(), Ordering::SeqCst);
    std::mem::forget(write);
    for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
        handle(signal, handler as *const () as libc::sighandler_t)?;
    }
    for signal in [libc::SIGHUP, libc::SIGPIPE] {
        handle(signal, libc::SIG_IGN)?;
    }
    Ok(read)
}

/// Empties the pipe; true when one of the signals asks the keeper to shut down.
pub(super) fn drain(wake: &OwnedFd) -> bool {
    let mut asked = false;
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = rustix::io::read(wake, &mut bytes) {
        let asks = |byte: &u8| [libc::SIGTERM, libc::SIGINT].contains(&i32::from(*byte));
        asked |= bytes.iter().take(count).any(asks);
    }
    asked
}

#[expect(
    unsafe_code,
    reason = "sigaction has no safe wrapper; the structure is fully written and the handler is async-signal-safe"
)]
fn handle(signal: i32, handler: libc::sighandler_t) -> Result<(), Error> {
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if done == 0 {
        Ok(())
    } else {
        Err(Error::system("set a signal handler", io::Error::last_os_error()))
    }
}

#[expect(
    unsafe_code,
    reason = "only async-signal-safe calls on a descriptor that is never closed; errno is restored"
)]
extern "C" fn handler(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or(0);
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(WAKE.load(Ordering::SeqCst), (&raw const byte).cast(), 1);
        *errno = saved;
    }
}
