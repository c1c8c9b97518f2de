//! One keeper per data directory: an exclusive lock on `run/keeper.lock`, which names its holder.
//!
//! The descriptor is close-on-exec, so no child can keep the lock of a dead keeper; a child between fork and exec holds it for a moment,
//! hence the short patience.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Error;

const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Takes the lock or says who has it. It is held until the file is dropped.
pub(super) fn take(data: &Path) -> Result<File, Error> {
    let path = data.join("run/keeper.lock");
    fs::create_dir_all(data.join("run"))
        .map_err(|source| Error::file("make", &data.join("run"), source))?;
    let open =
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(|source| Error::file("open", &path, source))?;
    for _ in 0..TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // The lock is what counts; on a full disk it names nobody.
                let _ = write_pid(&mut file);
                return Ok(file);
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(PAUSE),
            Err(source) => return Err(Error::file("lock", &path, source)),
        }
    }
    Err(Error::AlreadyRuns { pid: read_pid(&mut file), data: data.to_owned() })
}

/// The process id of the keeper that runs on a data directory, if one does.
pub fn running(data: &Path) -> Option<i32> {
    let mut file = File::open(data.join("run/keeper.lock")).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => read_pid(&mut file),
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
