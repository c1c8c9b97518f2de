//! A writable copy of a release, and how it is brought back into agreement with one.
//!
//! The copy belongs to somebody who may be hostile and quick, and we may be root. So every folder is opened beneath the
//! copy's own without following a link, and whatever is written or removed is so by its folder's descriptor and its name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File as Handle;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pressroom_model::id::ReleaseId;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::copy::Bytes;
use crate::manifest::{File, Manifest};
use crate::releases::Releases;
use crate::source::Found;
use crate::{ReleaseError, copy, failed};

/// Folders within folders.
const DEPTH: usize = 40;
/// The link to the media.
const UPLOADS: &str = "wp-content/uploads";
/// Something in each folder that WordPress installs into and does not make: a release has no empty ones.
const INSTALLED: [&str; 2] = ["wp-content/plugins/any", "wp-content/themes/any"];

/// A part of a release that somebody changes on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// WordPress itself: everything outside of `wp-content`.
    Core,
    /// A file, or a folder with everything in it.
    Path(String),
}

impl Part {
    /// Whether a path of a release belongs to it.
    pub fn has(&self, path: &str) -> bool {
        match self {
            Self::Core => path != "wp-content" && !path.starts_with("wp-content/"),
            Self::Path(part) => path
                .strip_prefix(part.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }
}

/// What a file looked like when its digest was taken. Its owner cannot set the time of the last change of its inode.
type Stamp = (u64, i64, i64, u64);

/// A writable copy of a release.
#[derive(Debug, Default)]
pub struct Worktree {
    /// Digests that need not be taken again.
    known: BTreeMap<String, (Stamp, File)>,
}

/// Where a copy is, and whose.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Its folder.
    pub root: &'a Path,
    /// Who may write it; `None`: we ourselves.
    pub owner: Option<(u32, u32)>,
    /// Where `wp-content/uploads` leads.
    pub uploads: &'a Path,
}

impl Worktree {
    /// Makes the copy equal to the release, or only these parts of it; returns the paths that were put right.
    pub fn renew(
        &mut self,
        releases: &Releases,
        id: &ReleaseId,
        place: &Place<'_>,
        only: Option<&[Part]>,
    ) -> Result<Vec<String>, ReleaseError> {
        let manifest = releases.manifest(id)?;
        let from = releases.tree(id);
        let from = from.canonicalize().map_err(failed("cannot find", &from))?;
        let real = place.root.canonicalize().map_err(failed("cannot find", place.root))?;
        let is_meant = |path: &str| only.is_none_or(|parts| parts.iter().any(|p| p.has(path)));
        let mut work = || -> io::Result<Vec<String>> {
            let top = open_folder(CWD, &real, ResolveFlags::empty())?;
            let mut seen = Seen { folders: folders_of(&manifest), ..Seen::default() };
            seen.look(&top, Path::new(""), 0)?;
            let (mut mended, mut last) = (Vec::new(), None);
            for stranger in seen.strangers(&manifest).into_iter().filter(|path| is_meant(path)) {
                remove(&top, &stranger)?;
                mended.push(stranger);
            }
            for (path, file) in manifest.files.iter().filter(|(path, _)| is_meant(path)) {
                let stamp = seen.files.get(path).copied();
                if self.is_good(&real, path, file, stamp) {
                    continue;
                }
                let folder = folder_for(&top, path, &mut last, place.owner)?;
                let stamp = put((&top, folder), path, &from.join(path), file, place.owner)?;
                self.known.insert(path.clone(), (stamp, file.clone()));
                mended.push(path.clone());
            }
            for path in INSTALLED {
                make_folders(&top, path, place.owner)?;
            }
            if only.is_none() {
                self.known.retain(|path, _| manifest.files.contains_key(path));
                link_uploads(&top, place.uploads)?;
            }
            Ok(mended)
        };
        work().map_err(failed("cannot bring the author's copy up to date in", place.root))
    }

    /// Whether a file of the copy is that of the release; takes its digest where that is not known.
    fn is_good(&mut self, root: &Path, path: &str, wanted: &File, stamp: Option<Stamp>) -> bool {
        let Some(stamp) = stamp else { return false };
        if let Some((known, file)) = self.known.get(path)
            && *known == stamp
        {
            return same(file, wanted);
        }
        let found =
            Found { from: root.join(path), is_executable: wanted.is_executable, known: None };
        let Ok(file) = Bytes::Source(&found).digest() else { return false };
        let is_same = same(&file, wanted);
        self.known.insert(path.to_owned(), (stamp, file));
        is_same
    }
}

/// Equal but for the permission to run it, which a copy's owner sets as he likes.
fn same(one: &File, other: &File) -> bool {
    (one.size, one.digest) == (other.size, other.digest)
}

fn folders_of(manifest: &Manifest) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for path in manifest.files.keys().map(String::as_str).chain([UPLOADS]).chain(INSTALLED) {
        let mut rest = path;
        while let Some((folder, _)) = rest.rsplit_once('/') {
            if !folders.insert(folder.to_owned()) {
                break;
            }
            rest = folder;
        }
    }
    folders
}

/// What is in a copy.
#[derive(Default)]
struct Seen {
    /// Folders that belong there.
    folders: BTreeSet<String>,
    files: BTreeMap<String, Stamp>,
    /// Everything else: links, sockets, folders of nobody.
    others: Vec<String>,
}

impl Seen {
    fn look(&mut self, folder: &OwnedFd, inside: &Path, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = inside.join(name);
            let text = path.to_string_lossy().into_owned();
            let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    self.files.insert(text, stamp(&stat));
                }
                FileType::Directory if self.folders.contains(&text) && depth < DEPTH => {
                    let below = open_folder(folder, Path::new(name), ResolveFlags::BENEATH)?;
                    self.look(&below, &path, depth + 1)?;
                }
                FileType::Symlink if text == UPLOADS => {}
                _ => self.others.push(text),
            }
        }
        Ok(())
    }

    fn strangers(&self, manifest: &Manifest) -> Vec<String> {
        let files = self.files.keys().filter(|path| !manifest.files.contains_key(*path));
        self.others.iter().chain(files).cloned().collect()
    }
}

fn open_folder(
    at: impl std::os::fd::AsFd,
    path: &Path,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat2(at, path, flags, Mode::empty(), resolve | ResolveFlags::NO_SYMLINKS)?)
}

/// The folder that a path is in, and its name there.
fn parent<'a>(top: &OwnedFd, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    Ok((open_folder(top, Path::new(folder), ResolveFlags::BENEATH)?, name))
}

fn remove(top: &OwnedFd, path: &str) -> io::Result<()> {
    let (folder, name) = parent(top, path)?;
    // By the descriptor: the folder's name may mean something else by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    pressroom_runtime::tree::remove(&path)
}

/// Writes one file of the release into the copy, under its name at once and whole.
fn put(
    (top, folder): (&OwnedFd, &OwnedFd),
    path: &str,
    from: &Path,
    file: &File,
    owner: Option<(u32, u32)>,
) -> io::Result<Stamp> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let before = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    if before.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
        remove(top, path)?;
    }
    let fresh = format!(".{name}.pressroom");
    let _none = rustix::fs::unlinkat(folder, &fresh, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = if file.is_executable { 0o755 } else { 0o644 };
    let to = rustix::fs::openat(folder, &fresh, flags, Mode::from_raw_mode(mode))?;
    let mut to = Handle::from(to);
    let mut from = copy::open_plain(from)?;
    io::copy(&mut from, &mut to)?;
    give(&to, mode, owner)?;
    keep_time(&from, &to, before.as_ref())?;
    rustix::fs::renameat(folder, &fresh, folder, name)?;
    Ok(stamp(&rustix::fs::fstat(&to)?))
}

/// The folder that a file of the copy is put into, made where it is missing; files of one folder come one after the other.
fn folder_for<'a>(
    top: &OwnedFd,
    path: &str,
    last: &'a mut Option<(String, OwnedFd)>,
    owner: Option<(u32, u32)>,
) -> io::Result<&'a OwnedFd> {
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    if last.as_ref().is_none_or(|(of, _)| of != above) {
        make_folders(top, path, owner)?;
        *last = Some((above.to_owned(), parent(top, path)?.0));
    }
    let found = last.as_ref().map(|(_, folder)| folder);
    found.ok_or_else(|| io::Error::other("it was opened a moment ago"))
}

/// PHP knows compiled code by the time of its file: the copy has that of the release, so that it need not wait until the file is a few
/// seconds old, nor compile it again. What stood there before had another time.
fn keep_time(from: &Handle, to: &Handle, before: Option<&rustix::fs::Stat>) -> io::Result<()> {
    let mut time = rustix::fs::fstat(from)?.st_mtime;
    if before.is_some_and(|before| before.st_mtime == time) {
        time -= 1;
    }
    let time = rustix::fs::Timespec { tv_sec: time, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::futimens(to, &times)?)
}

fn stamp(stat: &rustix::fs::Stat) -> Stamp {
    let seconds = stat.st_ctime.wrapping_mul(1_000_000_000);
    let changed = seconds.wrapping_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0));
    (stat.st_ino, stat.st_size, changed, stat.st_dev)
}

fn make_folders(top: &OwnedFd, path: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut folder = rustix::io::dup(top)?;
    let Some((folders, _)) = path.rsplit_once('/') else { return Ok(()) };
    for name in folders.split('/') {
        let below = match open_folder(&folder, Path::new(name), ResolveFlags::BENEATH) {
            Ok(below) => below,
            Err(_) => {
                // Missing, or something that is no folder.
                let _none = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
                rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755))?;
                let below = open_folder(&folder, Path::new(name), ResolveFlags::BENEATH)?;
                give(&below, 0o755, owner)?;
                below
            }
        };
        folder = below;
    }
    Ok(())
}

fn give(to: impl std::os::fd::AsFd, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&to, Some(uid), Some(gid))?;
    }
    Ok(rustix::fs::fchmod(&to, Mode::from_raw_mode(mode))?)
}

fn link_uploads(top: &OwnedFd, uploads: &Path) -> io::Result<()> {
    let (folder, name) = parent(top, UPLOADS)?;
    if rustix::fs::readlinkat(&folder, name, Vec::new())
        .is_ok_and(|to| to.to_bytes() == uploads.as_os_str().as_bytes())
    {
        return Ok(());
    }
    remove(top, UPLOADS)?;
    Ok(rustix::fs::symlinkat(uploads, &folder, name)?)
}

#[cfg(test)]
mod tests;
