//! A media folder. Every path is opened beneath it, without following a link.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    fchmod, fchown, fstat, futimens, mkdirat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::exchange::Stamp;

/// Folders within folders.
const DEPTH: usize = 32;
/// Names that begin so are ours, while a file arrives.
pub const ARRIVING: &str = ".pressroom-arriving-";
const SECOND: i64 = 1_000_000_000;

/// A media folder and whose its files are.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
    owner: Option<(u32, u32)>,
}

/// What is in a media folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its files by their path.
    pub files: BTreeMap<String, Stamp>,
    /// Folders of which nobody knows what is in them, since they could not be read.
    pub unread: Vec<String>,
}

impl Listing {
    /// Whether it is known that a file is not there.
    pub fn lacks(&self, path: &str) -> bool {
        let is_below = |front: &String| {
            front.is_empty()
                || path.strip_prefix(front.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        !self.files.contains_key(path) && !self.unread.iter().any(is_below)
    }
}

/// Whether a path may be used below a folder: plain names, not too deep, none of ours.
pub fn is_good(path: &str) -> bool {
    let parts: Vec<Component<'_>> = Path::new(path).components().collect();
    let is_plain = |part: &Component<'_>| match part {
        Component::Normal(name) => !name.as_bytes().starts_with(ARRIVING.as_bytes()),
        _ => false,
    };
    !path.is_empty() && !path.contains('\0') && parts.len() <= DEPTH && parts.iter().all(is_plain)
}

impl Tree {
    /// The folder at `root`; what is put there is owned by `owner`.
    pub fn new(root: impl Into<PathBuf>, owner: Option<(u32, u32)>) -> Self {
        Self { root: root.into(), owner }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn top(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(CWD, &self.root, flags, Mode::empty(), ResolveFlags::empty())?)
    }

    /// Which folder this is on its file system: another number is another folder, also under the same name.
    pub fn number(&self) -> io::Result<u64> {
        Ok(fstat(self.top()?)?.st_ino)
    }

    /// All files, and which folders could not be read.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        collect(&self.top()?, &mut PathBuf::new(), 0, &mut listing);
        Ok(listing)
    }

    /// A file as it is; `None`: it is not there, or is none.
    pub fn stamp(&self, path: &str) -> io::Result<Option<Stamp>> {
        match self.read(path) {
            Ok((_, stamp)) => Ok(Some(stamp)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file to be read.
    pub fn read(&self, path: &str) -> io::Result<(File, Stamp)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = open(&self.top()?, Path::new(path), flags)?;
        let seen = fstat(&file)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is no file"));
        }
        Ok((File::from(file), of(&seen)))
    }

    /// Puts a file there, whole, with its time. `None`: what came was not what was told.
    pub fn put(&self, path: &str, stamp: Stamp, mut bytes: impl Read) -> io::Result<Option<()>> {
        if !is_good(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path below the folder"));
        }
        let folder = self.folder(Path::new(path).parent().unwrap_or(Path::new("")))?;
        let name = Path::new(path).file_name().unwrap_or(OsStr::new(""));
        let arriving = format!("{ARRIVING}{:016x}", rand::random::<u64>());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fresh = rustix::fs::openat(&folder, &arriving, flags, Mode::RUSR | Mode::WUSR)?;
        let written = (|| {
            let mut file = File::from(fresh);
            let length = io::copy(&mut bytes, &mut file)?;
            file.flush()?;
            if length != stamp.size {
                return Ok(None);
            }
            self.give(&file, 0o644)?;
            let (seconds, nanos) = (stamp.mtime.div_euclid(SECOND), stamp.mtime.rem_euclid(SECOND));
            let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
            futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
            file.sync_data()?;
            renameat(&folder, &arriving, &folder, name)?;
            Ok(Some(()))
        })();
        if !matches!(written, Ok(Some(()))) {
            // Whoever asks again writes another one.
            let _ = unlinkat(&folder, &arriving, AtFlags::empty());
        }
        written
    }

    fn give(&self, made: impl AsFd, mode: u32) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(fchmod(&made, Mode::from_raw_mode(mode))?)
    }

    /// A folder below, made where it is missing.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.top()?;
        for part in path.components() {
            let name = part.as_os_str();
            let made = match mkdirat(&at, name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            at = open(&at, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
            if made {
                self.give(&at, 0o755)?;
            }
        }
        Ok(at)
    }

    /// Deletes a file, and the folders that are empty then; what is not there is no failure.
    pub fn delete(&self, path: &str) -> io::Result<()> {
        if !is_good(path) {
            return Ok(());
        }
        let mut path = Path::new(path);
        let mut flags = AtFlags::empty();
        while let (Some(name), Some(above)) = (path.file_name(), path.parent()) {
            let top = self.top()?;
            let folder = match above.as_os_str().is_empty() {
                true => top,
                false => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    match open(&top, above, flags) {
                        Ok(folder) => folder,
                        Err(error) if is_missing(&error) => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            };
            match unlinkat(&folder, name, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(_) if flags == AtFlags::REMOVEDIR => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            path = above;
            flags = AtFlags::REMOVEDIR;
        }
        Ok(())
    }
}

fn is_missing(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    error.kind() == io::ErrorKind::NotFound
        || matches!(code, Some(Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
}

fn open(at: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(openat2(at, path, flags, Mode::empty(), resolve)?)
}

fn of(seen: &rustix::fs::Stat) -> Stamp {
    let nanos = |seconds: i64, nanos: u64| seconds * SECOND + i64::try_from(nanos).unwrap_or(0);
    Stamp {
        size: u64::try_from(seen.st_size).unwrap_or_default(),
        mtime: nanos(seen.st_mtime, seen.st_mtime_nsec),
    }
}

fn collect(folder: &OwnedFd, path: &mut PathBuf, depth: usize, listing: &mut Listing) {
    let unread = |path: &PathBuf, listing: &mut Listing| {
        listing.unread.extend(path.to_str().map(str::to_owned));
    };
    let Ok(entries) = Dir::read_from(folder) else { return unread(path, listing) };
    for entry in entries {
        let Ok(entry) = entry else { return unread(path, listing) };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." || name.as_bytes().starts_with(ARRIVING.as_bytes()) {
            continue;
        }
        let seen = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => seen,
            Err(Errno::NOENT) => continue,
            Err(_) => {
                unread(path, listing);
                continue;
            }
        };
        path.push(name);
        match FileType::from_raw_mode(seen.st_mode) {
            FileType::RegularFile => {
                if let Some(path) = path.to_str() {
                    listing.files.insert(path.to_owned(), of(&seen));
                }
            }
            FileType::Directory if depth < DEPTH => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                match open(folder, Path::new(name), flags) {
                    Ok(below) => collect(&below, path, depth + 1, listing),
                    Err(error) if is_missing(&error) => {}
                    Err(_) => unread(path, listing),
                }
            }
            _ => {}
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_arrives_whole_with_its_time_and_goes_with_its_empty_folders() {
        let place = tempfile::tempdir().expect("a folder");
        let tree = Tree::new(place.path(), None);
        let stamp = Stamp { size: 5, mtime: 1_700_000_000_123_456_789 };
        let path = "2026/11/a.jpg";
        assert!(tree.put(path, stamp, &b"hello"[..]).expect("put").is_some());
        let (mut file, seen) = tree.read(path).expect("read");
        assert_eq!((seen.size, seen.mtime), (stamp.size, stamp.mtime));
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        // Half a file replaces nothing and leaves nothing.
        assert!(tree.put(path, Stamp { size: 9, ..stamp }, &b"half"[..]).expect("put").is_none());
        assert_eq!(tree.list().expect("listed").files.len(), 1);
        assert_eq!(std::fs::read_dir(place.path().join("2026/11")).expect("there").count(), 1);
        tree.delete(path).expect("deleted");
        tree.delete(path).expect("deleted twice");
        assert!(!place.path().join("2026").exists() && place.path().exists());
        assert_eq!(tree.stamp(path).expect("looked"), None);
    }

    #[test]
    fn nothing_is_reached_through_a_link_or_above_the_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let (root, outside) = (place.path().join("uploads"), place.path().join("outside"));
        std::fs::create_dir(&root).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("secret"), "secret").expect("written");
        symlink(&outside, root.join("way")).expect("linked");
        symlink(outside.join("secret"), root.join("file")).expect("linked");
        let tree = Tree::new(&root, None);
        let stamp = Stamp { size: 1, mtime: 0 };
        for bad in ["", "/etc/x", "../outside/x", "a/../../x", ".pressroom-arriving-1"] {
            assert!(tree.put(bad, stamp, &b"x"[..]).is_err(), "{bad}");
        }
        assert!(tree.put("way/x", stamp, &b"x"[..]).is_err());
        assert!(tree.read("way/secret").is_err() && tree.read("file").is_err());
        tree.delete("way/secret").expect("passed over");
        assert!(outside.join("secret").exists() && !outside.join("x").exists());
        assert!(tree.list().expect("listed").files.is_empty());
    }
}
