//! A copy of a site's media for an environment, made in a moment: by reference where that is safe, else byte by byte.
//!
//! A file system that can share extents until one side writes (btrfs, XFS) does all of it. Elsewhere a file becomes a second name
//! of the same file (a hard link), if the environment's user may read it and not write to it: then the kernel refuses a
//! write in place, and replacing or deleting a file is a matter of names, which each side has for itself. So nothing that the
//! environment does can change the site's media. What plugins write in place (style sheets, caches, logs) is copied.
//!
//! The new tree is made beside the old one, where only root can go, and swapped in name by name: the uploads folder
//! itself stays, because the edge has it open.
//!
//! Always: both trees belong to users who may be hostile and quick, and we are root. Folders are opened without following
//! links, files are taken by their folder's descriptor and their name, and what came is looked at again.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchown, ioctl_ficlone,
    linkat, mkdirat, openat, renameat_with, statat, unlinkat,
};

use pressroom_runtime::tree;

use crate::files::naming;

/// Whose the files are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owners {
    /// The site's user, if sites have users of their own.
    pub from: Option<u32>,
    /// User and group of the environment.
    pub to: Option<(u32, u32)>,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files that share their bytes with the site's.
    pub shared: u64,
    /// Files that have bytes of their own.
    pub own: u64,
    /// Those bytes.
    pub bytes: u64,
    /// Links, sockets and the like, and folders that are nested too deep.
    pub left_out: u64,
}

/// Folders within folders.
const DEPTH: usize = 32;

/// Endings of files that nobody writes to in place, but for image editors: see the must-use plugin's `environment.php`.
const MEDIA: &[&str] = &[
    "jpg", "jpeg", "jpe", "png", "gif", "webp", "avif", "heic", "bmp", "tif", "tiff", "ico", "mp4",
    "m4v", "mov", "avi", "wmv", "mkv", "webm", "ogv", "mpg", "mpeg", "mp3", "m4a", "ogg", "oga",
    "wav", "flac", "aac", "pdf", "doc", "docx", "ppt", "pptx", "odt", "odp", "psd", "ai", "eps",
    "zip", "gz", "tgz", "7z", "rar", "woff", "woff2", "ttf", "otf", "eot",
];

/// Makes what is in `from` the contents of `to`; both are folders, `workshop` is a path beside `to` that is free.
pub(crate) fn copy(from: &Path, to: &Path, workshop: &Path, owners: Owners) -> io::Result<Copied> {
    tree::remove(workshop).map_err(|error| naming(workshop, &error))?;
    rustix::fs::mkdir(workshop, Mode::RWXU).map_err(|error| naming(workshop, &error.into()))?;
    let source = open(CWD, from).map_err(|error| naming(from, &error))?;
    let target = open(CWD, to).map_err(|error| naming(to, &error))?;
    let fresh = open(CWD, workshop).map_err(|error| naming(workshop, &error))?;
    let mut work = Work { owners, may_share: true, done: Copied::default() };
    work.folder(&source, &fresh, 0).map_err(|error| naming(from, &error))?;
    swap(&fresh, &target).map_err(|error| naming(to, &error))?;
    // What it was before is in the workshop now.
    tree::remove(workshop).map_err(|error| naming(workshop, &error))?;
    Ok(work.done)
}

fn open<P: rustix::path::Arg>(at: impl AsFd, name: P) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Names in a folder.
fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Each name of `fresh` to `target`, what was there goes the other way; likewise what has no successor.
fn swap(fresh: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let (new, old) = (names(fresh)?, names(target)?);
    for name in &new {
        let exchanged = renameat_with(fresh, name, target, name, RenameFlags::EXCHANGE);
        match exchanged {
            Err(rustix::io::Errno::NOENT) => {
                renameat_with(fresh, name, target, name, RenameFlags::NOREPLACE)?;
            }
            exchanged => exchanged?,
        }
    }
    for name in old.iter().filter(|name| !new.contains(name)) {
        match renameat_with(target, name, fresh, name, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::NOENT) => {}
            moved => moved?,
        }
    }
    Ok(())
}

struct Work {
    owners: Owners,
    /// Until the file system said that it cannot.
    may_share: bool,
    done: Copied,
}

impl Work {
    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
        for name in names(from)? {
            // What is gone meanwhile is gone.
            let Ok(seen) = statat(from, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(seen.st_mode) {
                FileType::Directory if depth < DEPTH => {
                    let Ok(below) = open(from, &name) else { continue };
                    mkdirat(to, &name, Mode::RWXU)?;
                    let made = open(to, &name)?;
                    self.folder(&below, &made, depth + 1)?;
                    self.give(&made, &seen)?;
                }
                FileType::RegularFile => self.file(from, to, &name)?,
                _ => self.done.left_out += 1,
            }
        }
        Ok(())
    }

    /// Owner and mode, in this order: changing the owner takes bits away.
    fn give(&self, made: impl AsFd, like: &Stat) -> io::Result<()> {
        if let Some((uid, gid)) = self.owners.to {
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(like.st_mode & 0o777))?)
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(source) = openat(from, name, flags, Mode::empty()) else { return Ok(()) };
        let seen = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            self.done.left_out += 1;
            return Ok(());
        }
        if self.may_share {
            let made = create(to.as_fd(), name)?;
            match ioctl_ficlone(&made, &source) {
                Ok(()) => {
                    self.done.shared += 1;
                    return self.give(&made, &seen);
                }
                Err(_) => {
                    self.may_share = false;
                    unlinkat(to, name, AtFlags::empty())?;
                }
            }
        }
        if self.may_link(name, &seen) && self.link(from, to, name, &seen)? {
            self.done.shared += 1;
            return Ok(());
        }
        let made = create(to.as_fd(), name)?;
        let (mut source, mut target) = (File::from(source), File::from(made));
        self.done.bytes += io::copy(&mut source, &mut target)?;
        self.done.own += 1;
        self.give(&target, &seen)
    }

    /// Whether the environment's user may read a file of the site's and not write to it.
    fn may_link(&self, name: &CStr, seen: &Stat) -> bool {
        let (Some(from), Some((to, _))) = (self.owners.from, self.owners.to) else { return false };
        let is_media = name
            .to_str()
            .ok()
            .and_then(|name| name.rsplit_once('.'))
            .is_some_and(|(_, ending)| MEDIA.contains(&ending.to_ascii_lowercase().as_str()));
        let is_safe = seen.st_mode & 0o002 == 0 && seen.st_mode & 0o004 != 0;
        is_media && is_safe && from != to && (seen.st_uid == from || seen.st_uid == 0)
    }

    /// Whether it is there now, and is what was looked at.
    fn link(&self, from: &OwnedFd, to: &OwnedFd, name: &CStr, seen: &Stat) -> io::Result<bool> {
        // Too many names of one file, or a file system without them.
        if linkat(from, name, to, name, AtFlags::empty()).is_err() {
            return Ok(false);
        }
        let came = statat(to, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (came.st_dev, came.st_ino, came.st_mode, came.st_uid)
            == (seen.st_dev, seen.st_ino, seen.st_mode, seen.st_uid)
        {
            return Ok(true);
        }
        unlinkat(to, name, AtFlags::empty())?;
        Ok(false)
    }
}

fn create(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
    }

    #[test]
    fn a_second_copy_replaces_the_first_and_follows_no_link() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| place.path().join(name);
        write(&at("from/2026/01/a.jpg"), "a");
        write(&at("from/cache/style.css"), "css");
        write(&at("secret"), "secret");
        symlink(at("secret"), at("from/2026/link.jpg")).expect("linked");
        fs::create_dir(at("to")).expect("made");
        let owners = Owners { from: None, to: None };
        let folder = fs::metadata(at("to")).expect("there").ino();
        let copied = copy(&at("from"), &at("to"), &at("work"), owners).expect("copied");
        assert_eq!((copied.shared + copied.own, copied.left_out), (2, 1));
        assert_eq!(fs::read_to_string(at("to/2026/01/a.jpg")).expect("there"), "a");
        assert!(!at("to/2026/link.jpg").exists());
        // Independent, both ways of writing.
        fs::write(at("to/2026/01/a.jpg"), "changed").expect("written");
        assert_eq!(fs::read_to_string(at("from/2026/01/a.jpg")).expect("there"), "a");
        write(&at("to/own.txt"), "own");
        copy(&at("from"), &at("to"), &at("work"), owners).expect("copied");
        assert_eq!(fs::read_to_string(at("to/2026/01/a.jpg")).expect("there"), "a");
        assert!(!at("to/own.txt").exists() && !at("work").exists());
        assert_eq!(fs::metadata(at("to")).expect("there").ino(), folder, "the folder stays");
    }

    #[test]
    fn only_what_the_other_user_cannot_write_becomes_a_second_name() {
        let work = Work {
            owners: Owners { from: Some(1), to: Some((2, 2)) },
            may_share: false,
            done: Copied::default(),
        };
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("a");
        write(&path, "a");
        let check = |name: &CStr, mode: u32, uid: u32, wanted: bool| {
            let mut seen = rustix::fs::stat(&path).expect("there");
            seen.st_mode = 0o100_000 | mode;
            seen.st_uid = uid;
            assert_eq!(work.may_link(name, &seen), wanted, "{name:?} {mode:o} {uid}");
        };
        check(c"a.JPG", 0o644, 1, true);
        check(c"a.jpg", 0o664, 0, true);
        check(c"a.jpg", 0o666, 1, false);
        check(c"a.jpg", 0o640, 1, false);
        check(c"a.jpg", 0o644, 2, false);
        check(c"a.css", 0o644, 1, false);
        check(c"a", 0o644, 1, false);
    }
}
