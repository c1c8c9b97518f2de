//! Looking into a folder without ever leaving it: the kernel refuses `..`, absolute links and links that lead out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::route::Kind;

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// What a file is at this moment; two equal marks mean the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Bytes.
    pub length: u64,
    /// Seconds of the last change.
    pub seconds: i64,
    /// Nanoseconds of it.
    pub nanoseconds: u64,
    inode: u64,
}

impl Mark {
    fn of(stat: &Stat) -> Self {
        Self {
            length: u64::try_from(stat.st_size).unwrap_or(0),
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec,
            inode: stat.st_ino,
        }
    }
}

impl Folder {
    /// Opens a folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// What is at a path below.
    pub fn look(&self, path: &str) -> (Kind, Option<Mark>) {
        let path = if path.is_empty() { "." } else { path };
        let Ok(fd) = self.beneath(path, OFlags::PATH | OFlags::CLOEXEC) else {
            return (Kind::Missing, None);
        };
        match rustix::fs::fstat(&fd) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => (Kind::File, Some(Mark::of(&stat))),
                FileType::Directory => (Kind::Directory, None),
                _ => (Kind::Missing, None),
            },
            Err(_) => (Kind::Missing, None),
        }
    }

    /// Opens a regular file below for reading.
    pub fn read(&self, path: &str) -> io::Result<(File, Mark)> {
        let fd = self
            .beneath(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((File::from(fd), Mark::of(&stat)))
    }

    fn beneath(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("sub")).expect("made");
        std::fs::write(dir.path().join("secret"), "x").expect("written");
        std::fs::write(inside.join("a.txt"), "abc").expect("written");
        std::os::unix::fs::symlink("../secret", inside.join("out")).expect("linked");
        std::os::unix::fs::symlink(dir.path().join("secret"), inside.join("absolute"))
            .expect("linked");
        std::os::unix::fs::symlink("a.txt", inside.join("within")).expect("linked");
        let folder = Folder::open(&inside).expect("open");
        for (path, wanted) in [
            ("a.txt", Kind::File),
            ("within", Kind::File),
            ("sub", Kind::Directory),
            ("", Kind::Directory),
            ("out", Kind::Missing),
            ("absolute", Kind::Missing),
            ("../secret", Kind::Missing),
            ("/etc/passwd", Kind::Missing),
            ("none", Kind::Missing),
        ] {
            assert_eq!(folder.look(path).0, wanted, "{path}");
        }
        assert_eq!(folder.read("a.txt").expect("readable").1.length, 3);
        assert!(folder.read("sub").is_err());
    }
}
