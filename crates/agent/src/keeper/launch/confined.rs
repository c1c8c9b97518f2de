//! A confinement, ready to be entered between fork and exec.
//!
//! Everything is decided and in memory before the fork: which folders to make, what to mount where, in which order. The child
//! gets mounts of its own, puts the view together on an empty file system in memory, makes that its root and lets go of all
//! the rest; then it can have no capability any more. What is named on the machine is found by root, so all of it must lie in
//! folders of root; what is named in the view lies in folders that the child has just made or that are read-only.
//!
//! `/proc` is mounted anew, so its options count for this view alone; an old kernel stumbles over the first option before it
//! could apply the second to everybody.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, NulError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libc::{c_int, c_ulong, sock_filter};
use pressroom_model::confinement::{Access, Confinement, Place, View};

use super::filter;

/// A step that failed, and the system's answer.
pub(super) type Failed = (i32, i32);

const STEP_NAMESPACES: i32 = 20;
const STEP_PRIVATE: i32 = 21;
const STEP_ROOT: i32 = 22;
const STEP_CAPABILITIES: i32 = 23;
const STEP_GAIN: i32 = 24;
const STEP_FILTER: i32 = 25;
/// The first step of the view.
const STEP_VIEW: i32 = 100;

const HARMLESS: c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// The root of a view has folders and links only.
const ROOT_OPTIONS: &CStr = c"size=1m,nr_inodes=10k,mode=755";
const HIDDEN_OPTIONS: &CStr = c"size=1m,nr_inodes=10k,mode=755";
const PROCESSES_OPTIONS: &CStr = c"subset=pid,hidepid=invisible";

/// One step towards a view; all paths of the view are below its stage.
enum Step {
    Folder(CString),
    File(CString),
    Link {
        target: CString,
        at: CString,
    },
    Bind {
        from: CString,
        to: CString,
        flags: c_ulong,
    },
    Memory {
        at: CString,
        options: CString,
        flags: c_ulong,
    },
    Processes(CString),
    /// From here on nothing can be made in it.
    Close(CString),
}

/// All that a child needs to confine itself.
pub(crate) struct Confined {
    own_processes: bool,
    namespaces: c_int,
    stage: Option<CString>,
    steps: Vec<Step>,
    filter: Vec<sock_filter>,
}

impl Confined {
    /// Looks at the machine for what is there and whether it is a file or a folder.
    pub(crate) fn new(confinement: &Confinement) -> Result<Self, NulError> {
        let view = confinement.view.as_ref();
        let filter = confinement.filters_calls.then(filter::program).flatten().unwrap_or_default();
        Ok(Self {
            own_processes: confinement.own_processes,
            namespaces: if confinement.own_ipc { libc::CLONE_NEWIPC } else { 0 }
                | if view.is_some() { libc::CLONE_NEWNS } else { 0 },
            stage: view.map(|view| c_path(&view.stage)).transpose()?,
            steps: view.map(Plan::of).transpose()?.unwrap_or_default(),
            filter,
        })
    }

    /// Whether the fork itself must begin it: nobody can change the ids that it has.
    pub(super) fn has_own_processes(&self) -> bool {
        self.own_processes
    }

    /// Mounts, namespaces and capabilities, as root; the user is taken afterwards.
    #[expect(unsafe_code, reason = "async-signal-safe calls on memory made before the fork")]
    pub(super) unsafe fn enter(&self) -> Result<(), Failed> {
        unsafe {
            if self.namespaces != 0 {
                check(STEP_NAMESPACES, libc::unshare(self.namespaces))?;
            }
            if let Some(stage) = &self.stage {
                let umask = libc::umask(0o022);
                self.build(stage)?;
                libc::umask(umask);
            }
            for capability in 0..64 {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                    // The first number that is no capability.
                    match *libc::__errno_location() {
                        libc::EINVAL => break,
                        errno => return Err((STEP_CAPABILITIES, errno)),
                    }
                }
            }
            Ok(())
        }
    }

    #[expect(unsafe_code, reason = "async-signal-safe calls on memory made before the fork")]
    unsafe fn build(&self, stage: &CStr) -> Result<(), Failed> {
        unsafe {
            let none = std::ptr::null();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            check(STEP_PRIVATE, libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            let memory = mount_memory(stage, ROOT_OPTIONS, HARMLESS);
            check(STEP_ROOT, memory)?;
            for (step, number) in self.steps.iter().zip(STEP_VIEW..) {
                check(number, step.take())?;
            }
            check(STEP_ROOT, close(stage))?;
            // The old root ends up on top of the new one and is let go, with everything that is not in the view.
            check(STEP_ROOT, libc::chdir(stage.as_ptr()))?;
            let here = c".".as_ptr();
            check(STEP_ROOT, libc::syscall(libc::SYS_pivot_root, here, here) as c_int)?;
            check(STEP_ROOT, libc::umount2(here, libc::MNT_DETACH))?;
            check(STEP_ROOT, libc::chdir(c"/".as_ptr()))
        }
    }

    /// The last thing before exec, when the process is who it shall be.
    #[expect(unsafe_code, reason = "async-signal-safe calls on memory made before the fork")]
    pub(super) unsafe fn seal(&self) -> Result<(), Failed> {
        unsafe {
            check(STEP_GAIN, libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            if self.filter.is_empty() {
                return Ok(());
            }
            let program = libc::sock_fprog {
                len: self.filter.len() as u16,
                filter: self.filter.as_ptr().cast_mut(),
            };
            // Older kernels would otherwise switch a guess of the processor off, which makes PHP slower by a tenth.
            let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            let set = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program);
            check(STEP_FILTER, set as c_int)
        }
    }

    /// What the steps do, for messages.
    pub(super) fn words(&self) -> Vec<String> {
        self.steps.iter().map(Step::words).collect()
    }
}

/// What a failed step was to do; `view` is what [`Confined::words`] said.
pub(super) fn describe(step: i32, view: &[String]) -> Option<String> {
    let words = match step {
        STEP_NAMESPACES => "have mounts and shared memory of its own",
        STEP_PRIVATE => "keep its mounts to itself",
        STEP_ROOT => "have a root of its own",
        STEP_CAPABILITIES => "give up its capabilities",
        STEP_GAIN => "give up gaining privileges",
        STEP_FILTER => "filter its system calls",
        _ => usize::try_from(step - STEP_VIEW).ok().and_then(|index| view.get(index))?,
    };
    Some(words.to_owned())
}

#[expect(unsafe_code, reason = "async-signal-safe: reads errno")]
unsafe fn check(step: i32, result: c_int) -> Result<(), Failed> {
    match result {
        0.. => Ok(()),
        _ => Err((step, unsafe { *libc::__errno_location() })),
    }
}

#[expect(unsafe_code, reason = "async-signal-safe: mount")]
unsafe fn mount_memory(at: &CStr, options: &CStr, flags: c_ulong) -> c_int {
    let kind = c"tmpfs".as_ptr();
    unsafe { libc::mount(kind, at.as_ptr(), kind, flags, options.as_ptr().cast()) }
}

/// Makes a mount read-only.
#[expect(unsafe_code, reason = "async-signal-safe: mount")]
unsafe fn close(at: &CStr) -> c_int {
    let none = std::ptr::null();
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | HARMLESS;
    unsafe { libc::mount(none, at.as_ptr(), none, flags, none.cast()) }
}

impl Step {
    #[expect(unsafe_code, reason = "async-signal-safe calls on memory made before the fork")]
    unsafe fn take(&self) -> c_int {
        let none = std::ptr::null();
        unsafe {
            match self {
                Self::Folder(at) => there(libc::mkdir(at.as_ptr(), 0o755)),
                Self::File(at) => there(libc::mknod(at.as_ptr(), libc::S_IFREG | 0o444, 0)),
                Self::Link { target, at } => libc::symlink(target.as_ptr(), at.as_ptr()),
                Self::Bind { from, to, flags } => {
                    let bind = libc::MS_BIND;
                    match libc::mount(from.as_ptr(), to.as_ptr(), none, bind, none.cast()) {
                        0 => {}
                        failed => return failed,
                    }
                    let flags = libc::MS_REMOUNT | libc::MS_BIND | flags;
                    libc::mount(none, to.as_ptr(), none, flags, none.cast())
                }
                Self::Memory { at, options, flags } => mount_memory(at, options, *flags),
                Self::Processes(at) => {
                    let (kind, flags) = (c"proc".as_ptr(), libc::MS_RDONLY | HARMLESS);
                    libc::mount(kind, at.as_ptr(), kind, flags, PROCESSES_OPTIONS.as_ptr().cast())
                }
                Self::Close(at) => close(at),
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Folder(at) => format!("make the folder {}", show(at)),
            Self::File(at) => format!("make the file {}", show(at)),
            Self::Link { at, .. } => format!("make the link {}", show(at)),
            Self::Bind { from, to, .. } => format!("bind {} to {}", show(from), show(to)),
            Self::Memory { at, .. } => format!("mount memory at {}", show(at)),
            Self::Processes(at) => format!("mount a /proc of its own at {}", show(at)),
            Self::Close(at) => format!("make {} read-only", show(at)),
        }
    }
}

fn show(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// What is there already will do.
#[expect(unsafe_code, reason = "async-signal-safe: reads errno")]
unsafe fn there(result: c_int) -> c_int {
    match result {
        0.. => 0,
        _ if unsafe { *libc::__errno_location() } == libc::EEXIST => 0,
        failed => failed,
    }
}

/// From places to steps.
struct Plan<'a> {
    stage: &'a Path,
    made: BTreeSet<PathBuf>,
    steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    fn of(view: &'a View) -> Result<Vec<Step>, NulError> {
        let mut plan = Plan { stage: &view.stage, made: BTreeSet::new(), steps: Vec::new() };
        for place in &view.places {
            plan.place(place)?;
        }
        for place in &view.places {
            if let Place::Hidden { to } = place {
                plan.steps.push(Step::Close(plan.staged(to)?));
            }
        }
        Ok(plan.steps)
    }

    fn place(&mut self, place: &Place) -> Result<(), NulError> {
        match place {
            Place::Bind { from, to, access, if_there } => {
                if !*if_there || from.exists() {
                    self.bind(from, to, flags(*access))?;
                }
            }
            Place::Memory { to, bytes } => {
                let options = CString::new(format!("size={bytes},mode=1777"))?;
                self.memory(to, options)?;
            }
            Place::Hidden { to } => self.memory(to, HIDDEN_OPTIONS.to_owned())?,
            Place::Processes => {
                self.folder(place.to())?;
                let at = self.staged(place.to())?;
                self.steps.push(Step::Processes(at));
            }
            Place::Devices => {
                for name in DEVICES {
                    let device = Path::new("/dev").join(name);
                    self.bind(&device, &device, libc::MS_NOSUID | libc::MS_NOEXEC)?;
                }
                for (name, target) in LINKS {
                    let at = self.staged(&Path::new("/dev").join(name))?;
                    self.steps.push(Step::Link { target: CString::new(target)?, at });
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self, from: &Path, to: &Path, flags: c_ulong) -> Result<(), NulError> {
        if from.is_dir() {
            self.folder(to)?;
        } else {
            self.folders_above(to)?;
            let at = self.staged(to)?;
            self.steps.push(Step::File(at));
        }
        let (from, to) = (c_path(from)?, self.staged(to)?);
        self.steps.push(Step::Bind { from, to, flags });
        Ok(())
    }

    fn memory(&mut self, to: &Path, options: CString) -> Result<(), NulError> {
        self.folder(to)?;
        let at = self.staged(to)?;
        self.steps.push(Step::Memory { at, options, flags: HARMLESS });
        Ok(())
    }

    fn folder(&mut self, to: &Path) -> Result<(), NulError> {
        self.folders_above(to)?;
        if self.made.insert(to.to_owned()) {
            let at = self.staged(to)?;
            self.steps.push(Step::Folder(at));
        }
        Ok(())
    }

    fn folders_above(&mut self, to: &Path) -> Result<(), NulError> {
        let mut above: Vec<&Path> = to.ancestors().skip(1).collect();
        above.reverse();
        for folder in above.into_iter().filter(|folder| folder.parent().is_some()) {
            if self.made.insert(folder.to_owned()) {
                let at = self.staged(folder)?;
                self.steps.push(Step::Folder(at));
            }
        }
        Ok(())
    }

    fn staged(&self, to: &Path) -> Result<CString, NulError> {
        c_path(&self.stage.join(to.strip_prefix("/").unwrap_or(to)))
    }
}

fn flags(access: Access) -> c_ulong {
    match access {
        Access::Read => libc::MS_RDONLY | HARMLESS,
        Access::Run => libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV,
        Access::Write => HARMLESS,
    }
}

fn c_path(path: &Path) -> Result<CString, NulError> {
    CString::new(path.as_os_str().as_bytes())
}
