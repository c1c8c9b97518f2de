//! All that a child needs between fork and exec, made before the fork.

use std::ffi::{CString, NulError, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pressroom_model::process::{ProcessSpec, UserIds};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Rlimit;

use super::confined::Confined;
use super::{Extras, LaunchError, Parent};
use crate::keeper::output;

/// All that the child needs, in memory that it only reads.
pub(super) struct Image {
    pub(super) program: CString,
    pub(super) arguments: Pointers,
    pub(super) environment: Pointers,
    pub(super) cwd: CString,
    /// What becomes descriptor 0, 1, 2, 3 and so on.
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) go: OwnedFd,
    /// The maker's end of `go` as the child inherits it: closed first, or the child would never see its maker die.
    pub(super) makers_go: RawFd,
    pub(super) report: OwnedFd,
    pub(super) user: Option<UserIds>,
    pub(super) confined: Option<Confined>,
    pub(super) umask: libc::mode_t,
    pub(super) open_files: Option<u64>,
    pub(super) former_open_files: libc::rlimit,
    pub(super) parent: Parent,
}

impl Image {
    pub(super) fn new(
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
            confined: confined(spec)?,
            umask: spec.umask,
            open_files: spec.open_files,
            former_open_files: limit(extras.open_files),
            parent: extras.parent,
        })
    }
}

/// A NULL-terminated array of C strings that owns them.
pub(super) struct Pointers {
    pub(super) pointers: Vec<*const libc::c_char>,
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

/// Neither through a link nor waiting for a pipe's reader: others may be able to write into the folder.
fn open_output(spec: &ProcessSpec) -> Result<File, LaunchError> {
    let flags = libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = File::options();
    options.append(true).create(true).mode(output::MODE).custom_flags(flags);
    let open = options.open(&spec.output).and_then(|file| {
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?; // its writers may block again
        Ok(file)
    });
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

/// Only root can build walls that its child cannot take down.
fn confined(spec: &ProcessSpec) -> Result<Option<Confined>, LaunchError> {
    let Some(confinement) = &spec.confinement else { return Ok(None) };
    if !rustix::process::geteuid().is_root() {
        return Err(LaunchError::CannotConfine { name: spec.name.clone() });
    }
    let confined = Confined::new(confinement);
    confined.map(Some).map_err(|_| LaunchError::Nul { name: spec.name.clone() })
}

fn limit(limit: Rlimit) -> libc::rlimit {
    libc::rlimit {
        rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
        rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
    }
}
