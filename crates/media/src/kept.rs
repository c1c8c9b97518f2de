//! Versions of files that gave way to others whose makers had not seen them. They lie in a folder of ours outside of all media,
//! with a name that no program takes for a file of its own, readable to us alone: nothing serves them and nothing runs them.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::tree::Tree;

/// So many are kept of a site; the oldest goes.
const MOST: usize = 200;

/// Keeps a copy of a file, and says where. `None`: it is not there any more.
pub fn keep(tree: &Tree, path: &str, born: i64, root: &Path) -> io::Result<Option<PathBuf>> {
    let mut file = match tree.read(path) {
        Ok((file, _)) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    make_room(root)?;
    // Its end, since a name has at most 255 bytes.
    let flat = path.replace('/', "+");
    let end: Vec<char> = flat.chars().rev().take(50).collect();
    let name = format!("{born}-{}.kept", end.into_iter().rev().collect::<String>());
    let at = root.join(name);
    let mut options = OpenOptions::new();
    let mut copy = options.create(true).write(true).truncate(true).mode(0o600).open(&at)?;
    match io::copy(&mut file, &mut copy).and_then(|_| copy.sync_all()) {
        Ok(()) => Ok(Some(at)),
        Err(error) => {
            // Half a copy helps nobody.
            let _ = std::fs::remove_file(&at);
            Err(error)
        }
    }
}

fn make_room(root: &Path) -> io::Result<()> {
    let mut all: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(root)?.flatten() {
        let time = entry.metadata().and_then(|seen| seen.modified());
        all.extend(time.ok().map(|time| (time, entry.path())));
    }
    all.sort_unstable();
    for (_, path) in all.iter().take((all.len() + 1).saturating_sub(MOST)) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
