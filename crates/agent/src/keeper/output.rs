//! Output files stay bounded although their writers hold them open: the tail is copied to `FILE.1`, then the file is cut to nothing.
//!
//! Writers append (O_APPEND), so they go on at the beginning. A line written between the last copy and the cut is lost; bounded matters
//! more, which is also why the file is cut even when the copy fails (a full disk).

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Permission bits of output files.
pub(super) const MODE: u32 = 0o640;

/// Rotates the file if it is over its limit; true if it did.
pub(super) fn rotate(path: &Path, limit: u64) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() > limit => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut file =
        File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let copied = keep_tail(&mut file, path, limit);
    file.set_len(0)?;
    copied.map(|()| true)
}

fn keep_tail(file: &mut File, path: &Path, limit: u64) -> io::Result<()> {
    let (former, fresh) = (with_suffix(path, ".1"), with_suffix(path, ".1.new"));
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(limit)))?;
    let mut copy = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&fresh)?;
    let copied = io::copy(&mut io::Read::take(file, limit.saturating_mul(2)), &mut copy);
    if let Err(error) = copied {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    fs::rename(&fresh, &former)
}

/// The file that the keeper itself writes to, if its standard error is one.
pub(super) fn own() -> Option<PathBuf> {
    let path = fs::read_link("/proc/self/fd/2").ok()?;
    path.is_file().then_some(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_appending_writer_goes_on_in_the_cut_file_and_the_tail_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.log");
        let mut writer = File::options().append(true).create(true).open(&path).expect("open");
        writer.write_all(b"0123456789").expect("write");
        assert!(!rotate(&path, 10).expect("nothing to do"));
        writer.write_all(b"abcdef").expect("write");
        assert!(rotate(&path, 10).expect("rotates"));
        writer.write_all(b"new").expect("write");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        assert_eq!(fs::read(folder.path().join("x.log.1")).expect("read"), b"6789abcdef");
        assert!(!rotate(&folder.path().join("absent"), 1).expect("an absent file is small"));
    }
}
