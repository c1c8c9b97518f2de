//! The child between fork and exec: async-signal-safe calls only, on memory made before the fork.
//!
//! Each step that fails is told to the maker as (step, errno).

use std::os::fd::{AsRawFd, RawFd};

use pressroom_model::process::UserIds;
use rustix::io::Errno;
use rustix::process::Pid;

use super::Parent;
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
        let pid = libc::fork();
        if pid == 0 {
            become_program(image);
        }
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const former, std::ptr::null_mut());
        // Lazily: after a fork that went well errno may be 0, which is no errno.
        Pid::from_raw(pid.max(0)).ok_or_else(|| Errno::from_raw_os_error(errno))
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
        if let Some(ids) = &image.user {
            require(report, STEP_USER, become_user(ids));
            require(report, STEP_PRIVILEGES, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
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

#[expect(
    unsafe_code,
    reason = "async-signal-safe in a single-threaded child: groups first, user last"
)]
unsafe fn become_user(ids: &UserIds) -> libc::c_int {
    unsafe {
        match libc::setgroups(ids.groups.len(), ids.groups.as_ptr()) {
            0 => {}
            failed => return failed,
        }
        match libc::setresgid(ids.gid, ids.gid, ids.gid) {
            0 => libc::setresuid(ids.uid, ids.uid, ids.uid),
            failed => failed,
        }
    }
}
