//! The child between fork and exec: async-signal-safe calls only, on memory made before the fork.
//!
//! Each step that fails is told to the maker as (step, errno).

use std::os::fd::{AsRawFd, RawFd};

use pressroom_model::process::UserIds;
use rustix::io::Errno;
use rustix::process::Pid;

use super::Parent;
use super::confined::{Confined, Failed};
use super::image::Image;

pub(super) const STEP_PID: i32 = 0;
pub(super) const STEP_WAIT: i32 = 1;
pub(super) const STEP_SESSION: i32 = 2;
pub(super) const STEP_DESCRIPTORS: i32 = 3;
pub(super) const STEP_LIMIT: i32 = 4;
pub(super) const STEP_USER: i32 = 5;
pub(super) const STEP_PRIVILEGES: i32 = 6;
pub(super) const STEP_DIRECTORY: i32 = 7;
pub(super) const STEP_EXEC: i32 = 8;

#[expect(unsafe_code, reason = "fork has no safe wrapper; the child runs only `become_program`")]
pub(super) fn fork_into(image: &Image) -> Result<Pid, Errno> {
    unsafe {
        // No handler of the maker may run in the child: blocked here, reset there.
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut former: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut former);
        let pid = match image.confined.as_ref().is_some_and(Confined::has_own_processes) {
            false => libc::fork(),
            true => first_of_its_own(),
        };
        if pid == 0 {
            become_program(image);
        }
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const former, std::ptr::null_mut());
        // Lazily: after a fork that went well errno may be 0, which is no errno.
        Pid::from_raw(pid.max(0)).ok_or_else(|| Errno::from_raw_os_error(errno))
    }
}

/// A fork whose child has process ids of its own. The C library has no such call and is not told: the child makes no call that
/// would want to know about its threads.
#[expect(unsafe_code, reason = "fork has no safe wrapper, nor has its fuller sister")]
unsafe fn first_of_its_own() -> libc::pid_t {
    let flags = libc::c_ulong::from((libc::CLONE_NEWPID | libc::SIGCHLD).cast_unsigned());
    unsafe {
        libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) as libc::pid_t
    }
}

/// Goes on in a child that has process ids of its own; the caller itself waits for it, and ends as it does.
#[expect(unsafe_code, reason = "async-signal-safe: runs in a forked child before its exec")]
pub(super) unsafe fn stand_before() -> std::io::Result<()> {
    unsafe {
        let pid = first_of_its_own();
        if pid <= 0 {
            return if pid == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
        }
        // The pipes of the command are its own, and whoever started it waits until the last copies are closed.
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        let mut status = 0;
        while libc::waitpid(pid, &raw mut status, 0) < 0 {
            if *libc::__errno_location() != libc::EINTR {
                libc::_exit(127);
            }
        }
        if libc::WIFSIGNALED(status) {
            libc::kill(libc::getpid(), libc::WTERMSIG(status));
        }
        libc::_exit(libc::WEXITSTATUS(status))
    }
}

#[expect(
    unsafe_code,
    reason = "runs between fork and exec: async-signal-safe calls on memory made before the fork, no allocation"
)]
unsafe fn become_program(image: &Image) -> ! {
    unsafe {
        let report = image.report.as_raw_fd();
        require(report, STEP_SESSION, libc::setsid());
        if image.parent == Parent::Nobody {
            match libc::fork() {
                -1 => require(report, STEP_SESSION, -1),
                0 => {}
                _ => libc::_exit(0),
            }
            tell(report, STEP_PID, libc::getpid());
        }
        libc::close(image.makers_go);
        let mut byte = 0_u8;
        if libc::read(image.go.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(127);
        }
        reset_signals();
        for (index, source) in image.descriptors.iter().enumerate() {
            require(report, STEP_DESCRIPTORS, libc::dup2(source.as_raw_fd(), index as RawFd));
        }
        // Whatever else the maker had open without close-on-exec (never the keeper, perhaps a shell's) ends with exec.
        let floor = image.descriptors.len() as libc::c_uint;
        libc::syscall(libc::SYS_close_range, floor, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        reset_oom_score();
        libc::umask(image.umask);
        require(report, STEP_LIMIT, set_open_files(image));
        if let Some(confined) = &image.confined {
            settle(report, confined.enter());
        }
        if let Some(ids) = &image.user {
            require(report, STEP_USER, become_user(ids));
            require(report, STEP_PRIVILEGES, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        }
        if let Some(confined) = &image.confined {
            settle(report, confined.seal());
        }
        require(report, STEP_DIRECTORY, libc::chdir(image.cwd.as_ptr()));
        libc::execve(
            image.program.as_ptr(),
            image.arguments.pointers.as_ptr(),
            image.environment.pointers.as_ptr(),
        );
        require(report, STEP_EXEC, -1);
        libc::_exit(127)
    }
}

#[expect(unsafe_code, reason = "async-signal-safe: write and _exit")]
unsafe fn require(report: RawFd, step: i32, result: libc::c_int) {
    unsafe {
        if result < 0 {
            tell(report, step, *libc::__errno_location());
            libc::_exit(127);
        }
    }
}

#[expect(unsafe_code, reason = "async-signal-safe: write and _exit")]
unsafe fn settle(report: RawFd, result: Result<(), Failed>) {
    if let Err((step, errno)) = result {
        unsafe {
            tell(report, step, errno);
            libc::_exit(127);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "async-signal-safe: one write of eight bytes, which a pipe takes whole"
)]
unsafe fn tell(report: RawFd, step: i32, value: i32) {
    let record = [step, value];
    unsafe { libc::write(report, record.as_ptr().cast(), size_of_val(&record)) };
}

/// By system call: the C library refuses to touch the two signals that it uses itself, which somebody above may have ignored.
#[expect(
    unsafe_code,
    reason = "async-signal-safe; the kernel's structure of four words, all zero, is the default action"
)]
unsafe fn reset_signals() {
    let default = [0_u64; 4];
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0_usize, 8_usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// The keeper's own protection from the out-of-memory killer is not for its children.
#[expect(unsafe_code, reason = "async-signal-safe: open, write, close on a constant path")]
unsafe fn reset_oom_score() {
    unsafe {
        let file =
            libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}

#[expect(unsafe_code, reason = "async-signal-safe: getrlimit and setrlimit")]
unsafe fn set_open_files(image: &Image) -> libc::c_int {
    unsafe {
        let Some(wanted) = image.open_files else {
            return libc::setrlimit(libc::RLIMIT_NOFILE, &raw const image.former_open_files);
        };
        let mut limit = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 {
            return 0;
        }
        // Not allowed to have that many: as many as allowed.
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max.min(wanted);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    }
}

/// By system calls: the C library's functions speak to all threads of the process, and may believe that the maker's are here.
#[expect(
    unsafe_code,
    reason = "async-signal-safe in a single-threaded child: groups first, user last"
)]
pub(super) unsafe fn become_user(ids: &UserIds) -> libc::c_int {
    let (uid, gid) = (ids.uid, ids.gid);
    unsafe {
        match libc::syscall(libc::SYS_setgroups, ids.groups.len(), ids.groups.as_ptr()) {
            0 => {}
            failed => return failed as libc::c_int,
        }
        match libc::syscall(libc::SYS_setresgid, gid, gid, gid) {
            0 => libc::syscall(libc::SYS_setresuid, uid, uid, uid) as libc::c_int,
            failed => failed as libc::c_int,
        }
    }
}
