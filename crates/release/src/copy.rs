//! Reading, hashing and copying many files on all cores.
//!
//! Files are opened at the place that the walk found, following no link: what was judged is what is read.

use std::fs::{self, File as Handle};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::manifest::{File, mode};
use crate::source::Found;
use crate::{ReleaseError, failed};

/// Where a file's bytes come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bytes<'a> {
    Source(&'a Found),
    Ours(&'a [u8]),
}

impl Bytes<'_> {
    /// Hashes the file without keeping it, unless it is known.
    pub(crate) fn digest(self) -> Result<File, ReleaseError> {
        match self {
            Bytes::Source(Found { known: Some(file), .. }) => Ok(file.clone()),
            other => other.feed(|_| Ok(())),
        }
    }

    /// A file of a release, which may be linked.
    pub(crate) fn there(&self) -> Option<(&Path, &File)> {
        match self {
            Bytes::Source(Found { known: Some(file), from, .. }) => Some((from, file)),
            _ => None,
        }
    }

    /// Writes the file to `to`, which is not there yet, and hashes what it wrote.
    pub(crate) fn copy(self, to: &Path) -> Result<File, ReleaseError> {
        let mut out = Handle::create_new(to).map_err(failed("cannot write", to))?;
        let file = self.feed(|bytes| out.write_all(bytes).map_err(failed("cannot write", to)))?;
        out.set_permissions(fs::Permissions::from_mode(file.mode()))
            .map_err(failed("cannot write", to))?;
        Ok(file)
    }

    fn feed(
        self,
        mut take: impl FnMut(&[u8]) -> Result<(), ReleaseError>,
    ) -> Result<File, ReleaseError> {
        let found = match self {
            Bytes::Source(found) => found,
            Bytes::Ours(bytes) => {
                take(bytes)?;
                return Ok(File {
                    is_executable: false,
                    size: bytes.len() as u64,
                    digest: blake3::hash(bytes),
                });
            }
        };
        let mut handle = open_plain(&found.from).map_err(failed("cannot read", &found.from))?;
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 128 << 10]);
        loop {
            match handle.read(&mut buffer).map_err(failed("cannot read", &found.from))? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    take(&buffer[..n])?;
                }
            }
        }
        Ok(File {
            is_executable: found.is_executable,
            size: hasher.count(),
            digest: hasher.finalize(),
        })
    }
}

/// Opens a plain file without following any link on the way; kernels without `openat2` check the last name only.
pub(crate) fn open_plain(path: &Path) -> io::Result<Handle> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = match rustix::fs::openat2(
        rustix::fs::CWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    ) {
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    };
    let handle = Handle::from(opened?);
    if handle.metadata()?.is_file() {
        Ok(handle)
    } else {
        Err(io::Error::other("it is not a plain file"))
    }
}

/// Runs `work` on every item, on all cores, and returns the results in order; stops at the first error.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, ReleaseError> + Sync,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<R>, ReleaseError> {
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let first_error = Mutex::new(None);
    let run = || {
        let mut mine = Vec::new();
        loop {
            let at = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(at) else { return mine };
            match work(item) {
                Ok(result) => mine.push((at, result)),
                Err(error) => {
                    next.store(items.len(), Relaxed);
                    first_error
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .get_or_insert(error);
                    return mine;
                }
            }
            done(finished.fetch_add(1, Relaxed) + 1);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for other in others {
            all.extend(other.join().expect("reading files does not panic"));
        }
        all
    });
    match first_error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            results.sort_unstable_by_key(|(at, _)| *at);
            Ok(results.into_iter().map(|(_, result)| result).collect())
        }
    }
}

/// The mode and digest of a file that is part of a tree.
pub(crate) fn existing(path: &Path) -> Result<File, ReleaseError> {
    let meta = fs::symlink_metadata(path).map_err(failed("cannot read", path))?;
    let permissions = meta.permissions().mode() & 0o7777;
    let found =
        Found { from: path.to_owned(), is_executable: permissions == mode(true), known: None };
    if permissions != mode(found.is_executable) {
        let cause = io::Error::other(format!("it has the mode {permissions:o}"));
        return Err(ReleaseError::Io {
            doing: "the permissions were changed of",
            path: path.to_owned(),
            cause,
        });
    }
    Bytes::Source(&found).digest()
}
