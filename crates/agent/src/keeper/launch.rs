//! Fork and exec, in two steps, so that no child ever runs unrecorded.
//!
//! Everything the child touches is made before the fork (the caller may have threads: between fork and exec only async-signal-safe
//! calls are allowed). The forked child first waits for a byte: the keeper writes its process id into the state file, then lets it go. A
//! keeper that dies in between closes the pipe, and the child ends without having run anything. Failures of each step, and of exec
//! itself, come back over a second, close-on-exec pipe as (step, errno).
//!
//! The child gets its own session and group, default signals, the descriptors 0 (`/dev/null`), 1 and 2 (the output file), its sockets
//! from 3 on, and nothing else.

use std::ffi::{CString, NulError, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Rlimit, WaitOptions};

use pressroom_model::process::{ProcessSpec, UserIds};

use super::output;

/// How long exec may take (a slow disk) before the keeper goes on and takes it for started.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why something could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// An argument, path or variable with a NUL byte.
    #[error("`{name}`: its program, arguments or environment hold a NUL byte")]
    Nul {
        /// Which process.
        name: String,
    },
    /// Only root may start a process as somebody else.
    #[error(
        "`{name}` is to run as user {uid}, group {gid}, which only root may do; this is user {own}"
    )]
    NotRoot {
        /// Which process.
        name: String,
        /// The wanted user.
        uid: u32,
        /// The wanted group.
        gid: u32,
        /// The keeper's user.
        own: u32,
    },
    /// The output file.
    #[error("`{name}`: cannot open its output file {}: {source}", path.display())]
    Output {
        /// Which process.
        name: String,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A step between fork and exec, or exec itself.
    #[error("`{name}`: cannot {step}: {source}")]
    Step {
        /// Which process.
        name: String,
        /// What was tried, with its value.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Pipes or fork.
    #[error("`{name}`: cannot {what}: {source}")]
    System {
        /// Which process.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// Whether the new process stays a child of its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// It does, and waits to be let go.
    Maker,
    /// It is forked twice and belongs to whoever reaps orphans.
    Nobody,
}

/// What a launch needs beyond the spec.
pub(super) struct Extras<'a> {
    /// One (listener name, socket) for each descriptor from 3 on.
    pub(super) sockets: Vec<(String, BorrowedFd<'a>)>,
    /// The limit of open files for a spec that names none.
    pub(super) open_files: Rlimit,
    pub(super) parent: Parent,
}

/// A forked child that waits before its exec.
pub(super) struct Waiting {
    /// Its process id.
    pub(super) pid: Pid,
    name: String,
    steps: Steps,
    go: OwnedFd,
    report: OwnedFd,
}

/// Forks; nothing of the program has run when this returns.
pub(super) fn fork(spec: &ProcessSpec, extras: &Extras<'_>) -> Result<Waiting, LaunchError> {
    let failed = |what| {
        move |errno: Errno| LaunchError::System {
            name: spec.name.clone(),
            what,
            source: errno.into(),
        }
    };
    let (go_read, go) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let (report, report_write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let image = Image::new(spec, extras, [go_read.as_fd(), go.as_fd(), report_write.as_fd()])?;
    let raw = fork_into(&image).map_err(failed("fork"))?;
    drop((go_read, report_write, image));
    let mut waiting =
        Waiting { pid: raw, name: spec.name.clone(), steps: Steps::of(spec), go, report };
    if extras.parent == Parent::Nobody {
        let _ = rustix::process::waitpid(Some(raw), WaitOptions::empty());
        waiting.pid = waiting.own_word()?;
    }
    Ok(waiting)
}

impl Waiting {
    /// Lets it go; returns when its program runs, or why it does not (the child has then ended and awaits being reaped).
    pub(super) fn go(self) -> Result<Pid, LaunchError> {
        let sent = rustix::io::write(&self.go, &[1]);
        match self.record() {
            Ok(None) if sent.is_ok() => Ok(self.pid),
            Ok(None) => Err(self.failed(STEP_WAIT, libc::EPIPE)),
            Ok(Some((step, errno))) => Err(self.failed(step, errno)),
            Err(source) => {
                Err(LaunchError::System { name: self.name, what: "hear of its exec", source })
            }
        }
    }

    /// The process id that a twice forked child tells.
    fn own_word(&self) -> Result<Pid, LaunchError> {
        match self.record() {
            Ok(Some((STEP_PID, pid))) if Pid::from_raw(pid).is_some() => {
                Ok(Pid::from_raw(pid).unwrap_or(Pid::INIT))
            }
            Ok(Some((step, errno))) => Err(self.failed(step, errno)),
            Ok(None) => Err(self.failed(STEP_PID, libc::EPIPE)),
            Err(source) => Err(LaunchError::System {
                name: self.name.clone(),
                what: "hear its process id",
                source,
            }),
        }
    }

    /// One record of the child; none when exec closed the pipe, or nothing came in time.
    fn record(&self) -> io::Result<Option<(i32, i32)>> {
        let mut bytes = [0; 8];
        let mut have = 0;
        while have < bytes.len() {
            let mut fds = [PollFd::new(&self.report, PollFlags::IN)];
            let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            match rustix::io::read(&self.report, bytes.get_mut(have..).unwrap_or_default()) {
                Ok(0) => return Ok(None),
                Ok(count) => have += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok(Some((i32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]))))
    }

    fn failed(&self, step: i32, errno: i32) -> LaunchError {
        LaunchError::Step {
            name: self.name.clone(),
            step: self.steps.describe(step),
            source: io::Error::from_raw_os_error(errno),
        }
    }
}

const STEP_PID: i32 = 0;
const STEP_WAIT: i32 = 1;
const STEP_SESSION: i32 = 2;
const STEP_DESCRIPTORS: i32 = 3;
const STEP_LIMIT: i32 = 4;
const STEP_USER: i32 = 5;
const STEP_PRIVILEGES: i32 = 6;
const STEP_DIRECTORY: i32 = 7;
const STEP_EXEC: i32 = 8;

/// The values that make a failed step understandable.
struct Steps {
    program: PathBuf,
    cwd: Option<PathBuf>,
    user: Option<UserIds>,
}

impl Steps {
    fn of(spec: &ProcessSpec) -> Self {
        Self { program: spec.program.clone(), cwd: spec.cwd.clone(), user: spec.user.clone() }
    }

    fn describe(&self, step: i32) -> String {
        match step {
            STEP_WAIT | STEP_PID => "let it start".to_owned(),
            STEP_SESSION => "begin its session".to_owned(),
            STEP_DESCRIPTORS => "give it its descriptors".to_owned(),
            STEP_LIMIT => "set its limit of open files".to_owned(),
            STEP_USER => match &self.user {
                Some(ids) => format!("become user {}, group {}", ids.uid, ids.gid),
                None => "become its user".to_owned(),
            },
            STEP_PRIVILEGES => "give up gaining privileges".to_owned(),
            STEP_DIRECTORY => {
                format!("enter {}", self.cwd.as_deref().unwrap_or(Path::new("/")).display())
            }
            _ => format!("execute {}", self.program.display()),
        }
    }
}

/// All that the child needs, in memory that it only reads.
struct Image {
    program: CString,
    arguments: Pointers,
    environment: Pointers,
    cwd: CString,
    /// What becomes descriptor 0, 1, 2, 3 and so on.
    descriptors: Vec<OwnedFd>,
    go: OwnedFd,
    /// The maker's end of `go` as the child inherits it: closed first, or the child would never see its maker die.
    makers_go: RawFd,
    report: OwnedFd,
    user: Option<UserIds>,
    umask: libc::mode_t,
    open_files: Option<u64>,
    former_open_files: libc::rlimit,
    parent: Parent,
}

impl Image {
    fn new(
        spec: &ProcessSpec,
        extras: &Extras<'_>,
        [go, makers_go, report]: [BorrowedFd<'_>; 3],
    ) -> Result<Self, LaunchError> {
        let nul = |_: NulError| LaunchError::Nul { name: spec.name.clone() };
        let system = |errno: Errno| LaunchError::System {
            name: spec.name.clone(),
            what: "copy a descriptor",
            source: errno.into(),
        };
        // Above everything that the child is to have, so that putting one into its place never overwrites another.
        let floor = RawFd::try_from(extras.sockets.len() + 3).map_err(|_| system(Errno::MFILE))?;
        let lift = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, floor).map_err(system);
        let null = open_null().map_err(|source| LaunchError::System {
            name: spec.name.clone(),
            what: "open /dev/null",
            source,
        })?;
        let output = open_output(spec)?;
        let mut descriptors =
            vec![lift(null.as_fd())?, lift(output.as_fd())?, lift(output.as_fd())?];
        for (_, socket) in &extras.sockets {
            descriptors.push(lift(*socket)?);
        }
        let program = c_string(spec.program.as_os_str()).map_err(nul)?;
        Ok(Self {
            arguments: Pointers::new(arguments(spec).map_err(nul)?),
            environment: Pointers::new(environment(spec, &extras.sockets).map_err(nul)?),
            cwd: c_string(spec.cwd.as_deref().unwrap_or(Path::new("/")).as_os_str())
                .map_err(nul)?,
            program,
            descriptors,
            go: lift(go)?,
            makers_go: makers_go.as_raw_fd(),
            report: lift(report)?,
            user: user_to_become(spec)?,
            umask: spec.umask,
            open_files: spec.open_files,
            former_open_files: limit(extras.open_files),
            parent: extras.parent,
        })
    }
}

/// A NULL-terminated array of C strings that owns them.
struct Pointers {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

fn c_string(text: &OsStr) -> Result<CString, NulError> {
    CString::new(text.as_bytes())
}

fn arguments(spec: &ProcessSpec) -> Result<Vec<CString>, NulError> {
    std::iter::once(spec.program.as_os_str())
        .chain(spec.args.iter().map(OsStr::new))
        .map(c_string)
        .collect()
}

fn environment(
    spec: &ProcessSpec,
    sockets: &[(String, BorrowedFd<'_>)],
) -> Result<Vec<CString>, NulError> {
    let mut variables = spec.env.clone();
    if !sockets.is_empty() {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        variables.insert("LISTEN_FDS".to_owned(), sockets.len().to_string());
        variables.insert("LISTEN_FDNAMES".to_owned(), names.join(":"));
    }
    variables.iter().map(|(name, value)| CString::new(format!("{name}={value}"))).collect()
}

fn open_null() -> io::Result<File> {
    File::options().read(true).open("/dev/null")
}

fn open_output(spec: &ProcessSpec) -> Result<File, LaunchError> {
    let open = File::options()
        .append(true)
        .create(true)
        .mode(output::MODE)
        .custom_flags(libc::O_NOCTTY)
        .open(&spec.output);
    open.map_err(|source| LaunchError::Output {
        name: spec.name.clone(),
        path: spec.output.clone(),
        source,
    })
}

/// Nobody but root can become somebody else; becoming oneself is nothing to do.
fn user_to_become(spec: &ProcessSpec) -> Result<Option<UserIds>, LaunchError> {
    let Some(ids) = &spec.user else { return Ok(None) };
    let (own, group) = (rustix::process::geteuid(), rustix::process::getegid());
    match own.is_root() {
        true => Ok(Some(ids.clone())),
        false if ids.uid == own.as_raw() && ids.gid == group.as_raw() => Ok(None),
        false => Err(LaunchError::NotRoot {
            name: spec.name.clone(),
            uid: ids.uid,
            gid: ids.gid,
            own: own.as_raw(),
        }),
    }
}

fn limit(limit: Rlimit) -> libc::rlimit {
    libc::rlimit {
        rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
    }
}

#[expect(unsafe_code, reason = "fork has no safe wrapper; the child runs only `become_program`")]
fn fork_into(image: &Image) -> Result<Pid, Errno> {
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
        Pid::from_raw(pid.max(0)).ok_or(Errno::from_raw_os_error(errno))
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
