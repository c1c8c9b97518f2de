//! Files and folders of this machine: written whole or not at all, with owner and mode from the first byte on.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;

use parking_lot::Mutex;

/// Who owns a file; `None` where we are not root and everything is ours.
pub type Owner = Option<(u32, u32)>;

/// Held while a file is written, since several actions may write the same one at once.
static ALONE: Mutex<()> = Mutex::new(());

/// Writes `contents` so that a reader sees the old file or the new one, also after a crash.
/// Returns whether anything changed.
pub fn write(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<bool> {
    write_as(path, contents, mode, owner, Lasting::Synced)
}

/// The same for what is written anew every few seconds anyway: after a power cut it may be gone.
pub fn write_passing(path: &Path, contents: &[u8], mode: u32, owner: Owner) -> io::Result<bool> {
    write_as(path, contents, mode, owner, Lasting::Passing)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Synced,
    Passing,
}

fn write_as(
    path: &Path,
    contents: &[u8],
    mode: u32,
    owner: Owner,
    lasting: Lasting,
) -> io::Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == contents) && own(path, mode, owner).is_ok() {
        return Ok(false);
    }
    let fresh = path.with_file_name(format!(
        ".{}.new",
        path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
    ));
    let _alone = ALONE.lock();
    let _ = std::fs::remove_file(&fresh);
    let written = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(contents)?;
        // By the open file: in an engine's own folder the name may mean something else by now.
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        if lasting == Lasting::Synced {
            file.sync_all()?;
        }
        std::fs::rename(&fresh, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written.map_err(|error| naming(path, &error))?;
    Ok(true)
}

/// Makes a folder (and those above it) with this mode and owner; mends both where it is there.
pub fn folder(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    if !path.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(|error| naming(path, &error))?;
    }
    own(path, mode, owner).map_err(|error| naming(path, &error))
}

fn own(path: &Path, mode: u32, owner: Owner) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The same error with the path in its text: the system's own words do not say which file.
pub fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_are_not_written_twice_and_the_mode_holds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        assert!(write(&path, b"one", 0o600, None).expect("written"));
        assert!(!write(&path, b"one", 0o600, None).expect("kept"));
        assert!(write(&path, b"two", 0o640, None).expect("replaced"));
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o640);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
