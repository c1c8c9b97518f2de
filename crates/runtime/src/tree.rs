//! Deleting a folder whose owner may be hostile: however deep it is, whatever its owner does meanwhile.
//!
//! The standard library goes down by recursion, one open folder for each level, so a deep enough folder ends the whole process. Here
//! what lies too deep is moved up first: two open folders are enough.
//!
//! Always: no link is followed; nothing is opened or deleted but through the folder that was given.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// So many names are deleted at most: whoever makes them faster than that is left to another time.
const MOST: u64 = 50_000_000;

/// Deletes a file, a link, or a folder with all that is in it; nothing there is no failure.
pub fn remove(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Which of them it is for a folder is the file system's choice.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    empty(path)?;
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes all that is in a folder.
pub fn empty(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut left = MOST;
    while pass(&top, &mut left)? {}
    Ok(())
}

/// Deletes what is in a folder and in its folders, and moves what is deeper up; whether there may be more.
fn pass(top: &OwnedFd, left: &mut u64) -> Result<bool, Errno> {
    let mut is_more = false;
    each(top, left, |name| {
        if is_gone(top, name)? {
            return Ok(());
        }
        is_more = true;
        let below = match open(top, name) {
            Ok(below) => below,
            // It is something else by now; the next pass sees what.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut inside = MOST;
        each(&below, &mut inside, |name| {
            if is_gone(&below, name)? {
                return Ok(());
            }
            match renameat(&below, name, top, format!(".{:032x}", rand::random::<u128>())) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error),
            }
        })
    })?;
    Ok(is_more)
}

/// Whether a name could be deleted; no: it is a folder with something in it.
fn is_gone(folder: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn each(
    folder: &OwnedFd,
    left: &mut u64,
    mut act: impl FnMut(&CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::BUSY)?;
        act(name)?;
    }
    Ok(())
}

fn open<P: rustix::path::Arg>(at: impl AsFd, path: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use rustix::fs::mkdirat;

    use super::*;

    /// A folder of this test's own.
    fn place(name: &str) -> std::path::PathBuf {
        let path =
            std::env::temp_dir().join(format!("pressroom-tree-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder");
        path
    }

    #[test]
    fn a_folder_that_is_deeper_than_a_stack_goes() {
        let path = place("deep");
        let mut at = open(CWD, &path).expect("opened");
        for _ in 0..20_000 {
            mkdirat(&at, "d", Mode::RWXU).expect("made");
            at = open(&at, "d").expect("opened");
        }
        drop(at);
        std::fs::create_dir_all(path.join("wide/of/these")).expect("made");
        std::fs::write(path.join("wide/of/file"), "x").expect("written");
        remove(&path).expect("deleted");
        assert!(!path.exists());
        remove(&path).expect("deleted twice");
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let path = place("links");
        let kept = path.join("kept");
        std::fs::create_dir(&kept).expect("made");
        std::fs::write(kept.join("file"), "x").expect("written");
        let gone = path.join("gone");
        std::fs::create_dir_all(gone.join("in")).expect("made");
        std::os::unix::fs::symlink(&kept, gone.join("in/link")).expect("linked");
        std::os::unix::fs::symlink(&kept, path.join("link")).expect("linked");
        remove(&gone).expect("deleted");
        remove(&path.join("link")).expect("deleted");
        assert!(!gone.exists() && kept.join("file").exists());
        empty(&path).expect("emptied");
        assert_eq!(std::fs::read_dir(&path).expect("there").count(), 0);
        remove(&path).expect("deleted");
    }
}
