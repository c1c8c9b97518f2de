//! Fork and exec, in two steps, so that no child ever runs unrecorded.
//!
//! Everything the child touches is made before the fork (the caller may have threads: between fork and exec only async-signal-safe
//! calls are allowed). The forked child first waits for a byte: the keeper writes its process id into the state file, then lets it go. A
//! keeper that dies in between closes the pipe, and the child ends without having run anything. Failures of each step, and of exec
//! itself, come back over a second, close-on-exec pipe as (step, errno).
//!
//! The child gets its own session and group, default signals, the descriptors 0 (`/dev/null`), 1 and 2 (the output file), its sockets
//! from 3 on, and nothing else. One with a confinement enters that ([`confined`], with the kernel's [`filter`]) just before it
//! takes its user; [`confine`] does the same for a command that is no child of a keeper.

mod child;
mod confined;
pub(crate) mod filter;
mod image;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Rlimit, WaitOptions};

use pressroom_model::confinement::Confinement;
use pressroom_model::process::{ProcessSpec, UserIds};

use child::{
    STEP_DESCRIPTORS, STEP_DIRECTORY, STEP_LIMIT, STEP_PID, STEP_PRIVILEGES, STEP_SESSION,
    STEP_USER, STEP_WAIT, become_user, fork_into,
};
use confined::Confined;
use image::Image;

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
    /// Only root may confine.
    #[error("`{name}` is to be confined, which only root can do")]
    CannotConfine {
        /// Which process.
        name: String,
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
    let steps = Steps::of(spec, image.confined.as_ref());
    let raw = fork_into(&image).map_err(failed("fork"))?;
    drop((go_read, report_write, image));
    let mut waiting = Waiting { pid: raw, name: spec.name.clone(), steps, go, report };
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

/// Starts a program that ends by itself and at once, and waits for that: whether it can be started is the question.
pub(crate) fn attempt(spec: &ProcessSpec) -> Result<(), LaunchError> {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let extras = Extras { sockets: Vec::new(), open_files, parent: Parent::Maker };
    let waiting = fork(spec, &extras)?;
    let pid = waiting.pid;
    let started = waiting.go().map(drop);
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    started
}

/// Lets a command enter these groups first ([`super::groups::Groups::doors`]).
#[expect(unsafe_code, reason = "the hook makes async-signal-safe calls on memory made here")]
pub(super) fn enter(command: &mut Command, doors: Vec<File>) {
    let enter = move || {
        for door in &doors {
            rustix::io::write(door, b"0")?;
        }
        Ok(())
    };
    unsafe { command.pre_exec(enter) };
}

/// Confines a command as the keeper confines a process: its view, its user, no privilege, its filter, then its folder.
/// The limits are no part of it.
///
/// With process ids of its own the command has somebody standing before it, who is the process that the caller knows: that one
/// ends as the command does, and when it is killed, the command and all that it started are.
#[expect(unsafe_code, reason = "the hook makes async-signal-safe calls on memory made here")]
pub(crate) fn confine(
    command: &mut Command,
    confinement: &Confinement,
    user: Option<&UserIds>,
    folder: &Path,
) -> io::Result<()> {
    let confined = Confined::new(confinement).map_err(io::Error::other)?;
    let folder = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())?;
    let user = user.cloned();
    let failed = |(_, errno)| io::Error::from_raw_os_error(errno);
    let enter = move || unsafe {
        if confined.has_own_processes() {
            child::stand_before()?;
        }
        confined.enter().map_err(failed)?;
        if let Some(ids) = &user
            && become_user(ids) < 0
        {
            return Err(io::Error::last_os_error());
        }
        confined.seal().map_err(failed)?;
        // Not before: who becomes somebody else loses it.
        if confined.has_own_processes() {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        match libc::chdir(folder.as_ptr()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// The values that make a failed step understandable.
struct Steps {
    program: PathBuf,
    cwd: Option<PathBuf>,
    user: Option<UserIds>,
    /// The steps towards its view.
    view: Vec<String>,
}

impl Steps {
    fn of(spec: &ProcessSpec, confined: Option<&Confined>) -> Self {
        Self {
            program: spec.program.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            view: confined.map(Confined::words).unwrap_or_default(),
        }
    }

    fn describe(&self, step: i32) -> String {
        if let Some(words) = confined::describe(step, &self.view) {
            return words;
        }
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
