//! `.tar.gz` and `.zip` files with a whole WordPress.
//!
//! An archive is believed only when its SHA-256 digest is the one in the configuration; the digest is taken from the
//! same open file that is unpacked afterwards. Even so it may not write outside of its folder, hold links that leave
//! it, or unpack to more than [`Limits`] allow.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{ReleaseError, failed};

/// What an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All its files together.
    pub bytes: u64,
    /// How many entries.
    pub entries: u64,
    /// How many times its own size (beyond [`Limits::FREE`]).
    pub ratio: u64,
}

impl Limits {
    /// So much may be unpacked whatever the ratio.
    pub const FREE: u64 = 64 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 500_000, ratio: 100 }
    }
}

/// Checks the digest and unpacks into the empty folder `into`. Returns the folder that holds the WordPress.
pub fn unpack(
    archive: &Path,
    sha256: &str,
    into: &Path,
    limits: Limits,
) -> Result<PathBuf, ReleaseError> {
    let mut file = crate::copy::open_plain(
        &archive.canonicalize().map_err(failed("cannot read the archive", archive))?,
    )
    .map_err(failed("cannot read the archive", archive))?;
    let size = check_digest(archive, &mut file, sha256)?;
    let budget = limits.bytes.min(size.saturating_mul(limits.ratio).max(Limits::FREE));
    let mut unpacking =
        Unpacking { archive, into, bytes_left: budget, entries_left: limits.entries };
    let mut head = [0; 4];
    let is_long_enough = file.read_exact(&mut head).is_ok() && file.rewind().is_ok();
    match head {
        [0x1f, 0x8b, ..] if is_long_enough => unpacking.tar_gz(file)?,
        [b'P', b'K', ..] if is_long_enough => unpacking.zip(file)?,
        _ => return Err(unpacking.refuse("it is neither a `.tar.gz` nor a `.zip` file")),
    }
    inner_folder(into)
}

/// The SHA-256 of a file, as hexadecimal digits.
pub fn digest(path: &Path) -> Result<String, ReleaseError> {
    let mut file = File::open(path).map_err(failed("cannot read the archive", path))?;
    hash(path, &mut file).map(|(digest, _)| digest)
}

fn hash(path: &Path, file: &mut File) -> Result<(String, u64), ReleaseError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer).map_err(failed("cannot read the archive", path))? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
    Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size))
}

fn check_digest(path: &Path, file: &mut File, expected: &str) -> Result<u64, ReleaseError> {
    let (found, size) = hash(path, file)?;
    if !found.eq_ignore_ascii_case(expected.trim()) {
        return Err(ReleaseError::WrongDigest {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        });
    }
    file.seek(SeekFrom::Start(0)).map_err(failed("cannot read the archive", path))?;
    Ok(size)
}

/// WordPress's own archives hold everything in one folder.
fn inner_folder(into: &Path) -> Result<PathBuf, ReleaseError> {
    if into.join("wp-includes").is_dir() {
        return Ok(into.to_owned());
    }
    let entries = fs::read_dir(into).map_err(failed("cannot read the folder", into))?;
    let mut folders: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|path| path.join("wp-includes").is_dir())
        .collect();
    Ok(if folders.len() == 1 { folders.remove(0) } else { into.to_owned() })
}

struct Unpacking<'a> {
    archive: &'a Path,
    into: &'a Path,
    bytes_left: u64,
    entries_left: u64,
}

impl Unpacking<'_> {
    fn refuse(&self, why: impl Into<String>) -> ReleaseError {
        ReleaseError::BadArchive { path: self.archive.to_owned(), why: why.into() }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> ReleaseError {
        self.refuse(format!("it cannot be read: {error}"))
    }

    fn tar_gz(&mut self, file: File) -> Result<(), ReleaseError> {
        let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)));
        let archive = self.archive;
        let broken = |error: io::Error| ReleaseError::BadArchive {
            path: archive.to_owned(),
            why: format!("it cannot be read: {error}"),
        };
        for entry in tar.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.into_owned();
            let is_executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
            let target = entry.link_name().map_err(broken)?.map(std::borrow::Cow::into_owned);
            match entry.header().entry_type() {
                tar::EntryType::Directory => drop(self.folder(&name)?),
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    self.file(&name, is_executable, &mut entry)?;
                }
                tar::EntryType::Symlink => self.link(&name, &target.unwrap_or_default())?,
                tar::EntryType::Link => self.same_file(&name, &target.unwrap_or_default())?,
                tar::EntryType::XGlobalHeader => {}
                _ => {
                    return Err(self.refuse(format!(
                        "`{}` is neither a file, a folder nor a link",
                        name.display()
                    )));
                }
            }
        }
        Ok(())
    }

    fn zip(&mut self, file: File) -> Result<(), ReleaseError> {
        let mut zip =
            zip::ZipArchive::new(BufReader::new(file)).map_err(|error| self.broken(&error))?;
        for n in 0..zip.len() {
            let mut entry = zip.by_index(n).map_err(|error| self.broken(&error))?;
            let name = entry.name().map_err(|error| self.broken(&error))?;
            let name = PathBuf::from(name.into_owned());
            let is_executable = entry.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
            if entry.is_dir() {
                self.folder(&name)?;
            } else if entry.is_symlink() {
                let mut target = String::new();
                let read = entry.by_ref().take(4096).read_to_string(&mut target);
                read.map_err(|error| self.broken(&error))?;
                self.link(&name, Path::new(&target))?;
            } else {
                self.file(&name, is_executable, &mut entry)?;
            }
        }
        Ok(())
    }

    /// Where an entry goes. Its folders are made; none of them is a link.
    fn place(&mut self, name: &Path) -> Result<PathBuf, ReleaseError> {
        self.entries_left = self
            .entries_left
            .checked_sub(1)
            .ok_or_else(|| self.refuse("it has too many entries"))?;
        let mut place = self.into.to_owned();
        for part in name.components() {
            match part {
                Component::Normal(part) if !part.as_encoded_bytes().contains(&b'\\') => {
                    self.need_folder(&place)?;
                    place.push(part);
                }
                Component::CurDir => {}
                _ => return Err(self.refuse(format!("`{}` leads out of it", name.display()))),
            }
        }
        Ok(place)
    }

    fn need_folder(&self, path: &Path) -> Result<(), ReleaseError> {
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => {
                Err(self.refuse(format!("`{}` is used as a folder and is none", path.display())))
            }
            Err(_) => fs::create_dir(path).map_err(failed("cannot make the folder", path)),
        }
    }

    fn folder(&mut self, name: &Path) -> Result<(), ReleaseError> {
        let place = self.place(name)?;
        self.need_folder(&place)
    }

    fn file(
        &mut self,
        name: &Path,
        is_executable: bool,
        from: &mut impl Read,
    ) -> Result<(), ReleaseError> {
        use std::os::unix::fs::OpenOptionsExt;
        let place = self.place(name)?;
        let mode = if is_executable { 0o700 } else { 0o600 };
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        let mut out = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                self.refuse(format!("`{}` is in it twice", name.display()))
            }
            _ => failed("cannot write", &place)(error),
        })?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) => return Err(self.broken(&error)),
            };
            let left = self.bytes_left.checked_sub(n as u64);
            self.bytes_left =
                left.ok_or_else(|| self.refuse("it unpacks to far more than its size allows"))?;
            out.write_all(&buffer[..n]).map_err(failed("cannot write", &place))?;
        }
    }

    /// A link must stay inside; it is followed when the tree is walked.
    fn link(&mut self, name: &Path, target: &Path) -> Result<(), ReleaseError> {
        let place = self.place(name)?;
        let mut depth = name.parent().map_or(0, |parent| {
            parent.components().filter(|c| matches!(c, Component::Normal(_))).count()
        });
        for part in target.components() {
            let inside = match part {
                Component::Normal(_) => Some(depth + 1),
                Component::CurDir => Some(depth),
                Component::ParentDir => depth.checked_sub(1),
                _ => None,
            };
            depth = inside.ok_or_else(|| {
                self.refuse(format!(
                    "the link `{}` leads out of it to `{}`",
                    name.display(),
                    target.display()
                ))
            })?;
        }
        std::os::unix::fs::symlink(target, &place).map_err(failed("cannot make the link", &place))
    }

    /// tar's hard link: the same bytes as an earlier entry.
    fn same_file(&mut self, name: &Path, earlier: &Path) -> Result<(), ReleaseError> {
        let from = self.place(earlier)?;
        let from = crate::copy::open_plain(&from)
            .map_err(|_| self.refuse(format!("`{}` links to nothing", name.display())))?;
        self.file(name, false, &mut BufReader::new(from))
    }
}
