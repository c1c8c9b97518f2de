//! Opening the file: who holds it, what version it has, whether it is whole.
//!
//! A file is believed only after the engine's checksums were compared and every entry was read once. The engine may
//! panic over a damaged file; that counts as damage, not as our end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_runtime::clock;
use redb::{Database, DatabaseError, ReadableDatabase, StorageError};

use super::tables::{self, Failure, VERSION};
use crate::LeaseId;
use crate::key::Prefix;

/// Memory for the file's pages; the whole store of a machine is smaller.
const CACHE: usize = 8 << 20;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store `{}` is open in another process", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A later Pressroom wrote it.
    #[error("the store `{}` has version {found}; this Pressroom knows versions up to {VERSION}: use the newer Pressroom", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It is not what we wrote.
    #[error("the store `{}` is damaged: {found}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The file system refused.
    #[error("the store `{}` cannot be opened: {cause}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        cause: io::Error,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Closed,
}

/// A damaged file that was moved aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Where it is kept now.
    pub kept: PathBuf,
    /// What was wrong with it.
    pub found: String,
}

/// Opens, checks and, when new, furnishes the file.
pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    catch_unwind(AssertUnwindSafe(|| open_checked(path))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(OpenError::Damaged {
            path: path.to_owned(),
            found: words.unwrap_or_else(|| "unreadable".into()),
        })
    })
}

fn open_checked(path: &Path) -> Result<Database, OpenError> {
    let is_new = std::fs::metadata(path).map_or(true, |m| m.len() == 0);
    let opened = redb::Builder::new().set_cache_size(CACHE).create(path);
    let mut database = opened.map_err(|error| open_failure(path, error))?;
    if !is_new && !database.check_integrity().map_err(|error| open_failure(path, error))? {
        tracing::warn!(path = %path.display(), "the store was repaired");
    }
    match stamp(path, &database)? {
        Some(found) if found > VERSION => {
            return Err(OpenError::Newer { path: path.to_owned(), found });
        }
        Some(_) => {}
        None => furnish(path, &database)?,
    }
    if is_new {
        sync_folder(path).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    }
    read(path, &database, |t| tables::list(t, &Prefix::all()))?;
    Ok(database)
}

fn furnish(path: &Path, database: &Database) -> Result<(), OpenError> {
    tables::write(database, tables::create).map_err(|failure| damage(path, failure))
}

/// A new file's name must survive a power cut too.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn stamp(path: &Path, database: &Database) -> Result<Option<u64>, OpenError> {
    read(path, database, tables::stamp)
}

/// The leases in the file.
pub(super) fn leases(
    path: &Path,
    database: &Database,
) -> Result<Vec<(LeaseId, Duration)>, OpenError> {
    read(path, database, tables::leases)
}

fn read<T>(
    path: &Path,
    database: &Database,
    work: impl FnOnce(&redb::ReadTransaction) -> Result<T, Failure>,
) -> Result<T, OpenError> {
    let done = database.begin_read().map_err(Failure::from).and_then(|t| work(&t));
    done.map_err(|failure| damage(path, failure))
}

fn open_failure(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { path },
        DatabaseError::Storage(StorageError::Io(cause)) if !is_damage(&cause) => {
            OpenError::Io { path, cause }
        }
        other => OpenError::Damaged { path, found: other.to_string() },
    }
}

fn damage(path: &Path, failure: Failure) -> OpenError {
    let path = path.to_owned();
    match failure {
        Failure::Engine(redb::Error::Io(cause)) if !is_damage(&cause) => {
            OpenError::Io { path, cause }
        }
        other => OpenError::Damaged { path, found: other.doing("opening").to_string() },
    }
}

/// Whether the bytes are wrong, rather than the disk or the rights to it.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Renames the file to `state.redb.corrupt-TIME`; nothing is overwritten.
pub(super) fn move_aside(path: &Path, found: String) -> Result<Replaced, OpenError> {
    let stamp = clock::stamp(clock::wall_ms());
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if n == 0 {
            format!(".corrupt-{stamp}")
        } else {
            format!(".corrupt-{stamp}-{n}")
        });
        PathBuf::from(name)
    };
    let kept = (0..).map(name).find(|name| !name.exists()).expect("some number is free");
    let moved = std::fs::rename(path, &kept).and_then(|()| sync_folder(path));
    moved.map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
    tracing::error!(path = %path.display(), kept = %kept.display(), found, "the store was damaged; starting empty");
    Ok(Replaced { kept, found })
}
