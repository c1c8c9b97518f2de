//! Copies of the cluster's state, on every node that votes: what etcd's own tools take for a snapshot of it. Of an etcd that
//! operators keep every node that may lead copies what is ours, as a file of entries.
//!
//! A copy counts when it is whole on the disk and its digest is right; only then older ones go. It holds the sealed secrets, and
//! not the key to them: that is on the nodes' disks, in the folder of the membership.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pressroom_plan::backup::{is_due, outlived};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::copy::{Entries, from_bytes, lasting, to_bytes};
use pressroom_store::{Store, StoreError};
use sha2::{Digest as _, Sha256};

use super::Cluster;
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::files;
use crate::layout::Layout;

/// Between two looks whether one is due.
const LOOK: Duration = Duration::from_secs(30);
/// Of a snapshot of etcd.
const ENDING: &str = ".db";
/// Of a file of entries.
const ENTRIES: &str = ".entries";
/// The name of one that is not whole yet.
const TAKING: &str = ".taking";
/// Bytes at the end of a snapshot: the SHA-256 of everything before.
const DIGEST: usize = 32;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// This machine is in no cluster: the file of its store can be copied while `pressroom` is down.
    #[error("this machine is in no cluster; its state is in `{0}`")]
    Alone(PathBuf),
    /// etcd.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was read or written is no whole copy.
    #[error("{} is no whole copy: {because}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        because: &'static str,
    },
}

/// Whether a file is a whole copy: its last 32 bytes are the digest of all others.
pub fn check(path: &Path) -> Result<(), BackupError> {
    let damaged = |because| BackupError::Damaged { path: path.to_owned(), because };
    let mut file = File::open(path).map_err(|error| files::naming(path, &error))?;
    let length = file.metadata()?.len();
    let Some(mut left) = length.checked_sub(DIGEST as u64).filter(|left| *left > 0) else {
        return Err(damaged("it is too short"));
    };
    let (mut digest, mut piece) = (Sha256::new(), vec![0; 256 << 10]);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        file.read_exact(&mut piece[..count])?;
        digest.update(&piece[..count]);
        left -= count as u64;
    }
    let mut said = [0; DIGEST];
    file.read_exact(&mut said)?;
    match digest.finalize().as_slice() == said {
        true => Ok(()),
        false => Err(damaged("its digest is another one")),
    }
}

/// Whether a file is a whole snapshot of etcd's.
pub fn check_snapshot(path: &Path) -> Result<(), BackupError> {
    check(path)?;
    match path.to_string_lossy().ends_with(ENTRIES) {
        false => Ok(()),
        true => Err(BackupError::Damaged {
            path: path.to_owned(),
            because: "it is of a cluster whose etcd others keep",
        }),
    }
}

/// The entries of a copy that is a file of them.
pub fn read(path: &Path) -> Result<Entries, BackupError> {
    check(path)?;
    let mut bytes = std::fs::read(path).map_err(|error| files::naming(path, &error))?;
    bytes.truncate(bytes.len() - DIGEST);
    from_bytes(&bytes).ok_or_else(|| BackupError::Damaged {
        path: path.to_owned(),
        because: "it is of a cluster whose etcd Pressroom keeps, or of something else",
    })
}

/// The copies here, by when they were taken (milliseconds since 1970), the oldest first.
pub fn list(layout: &Layout) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(layout.state_backups()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(ENDING) || name.ends_with(ENTRIES) {
            let since = entry.metadata()?.modified()?.duration_since(SystemTime::UNIX_EPOCH);
            let ms = since.unwrap_or_default().as_millis();
            all.push((u64::try_from(ms).unwrap_or(u64::MAX), entry.path()));
        }
    }
    all.sort();
    Ok(all)
}

impl Agent {
    /// Takes copies for as long as the agent runs, where etcd runs here.
    pub(crate) async fn keep_backups(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let mut told = false;
        while !shutdown.is_requested() {
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(LOOK) => {} }
            let (now, layout) = (clock::wall_ms(), self.layout.clone());
            let taken = off_the_loop(move || list(&layout)).await.unwrap_or_default();
            let taken: Vec<u64> = taken.into_iter().map(|(at, _)| at).collect();
            if !cluster.membership().takes_copies() || !is_due(&taken, now) {
                continue;
            }
            match self.back_up().await {
                Ok(_) => told = false,
                // The ones before are kept; the store's own troubles are told elsewhere.
                Err(BackupError::Store(error)) => tracing::debug!(%error, "no copy of the state"),
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        self.notice(format!(
                            "the cluster's state was not copied: {error}; earlier copies stay, and it is tried again"
                        ));
                    }
                }
            }
        }
    }

    /// Takes a copy now; where it is.
    pub async fn back_up(&self) -> Result<PathBuf, BackupError> {
        let (Some(etcd), Some(cluster)) = (&self.etcd, &self.cluster) else {
            return Err(BackupError::Alone(self.layout.store()));
        };
        let _alone = cluster.copying.lock().await;
        let (folder, now) = (self.layout.state_backups(), clock::wall_ms());
        files::folder(&folder, 0o700, None)?;
        let fresh = folder.join(TAKING);
        let mut open = File::options();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let (written, ending) = match self.kept_etcd() {
            Some(etcd) => {
                (etcd.snapshot(&mut file).await.map(drop).map_err(BackupError::from), ENDING)
            }
            None => (write_entries(etcd, &mut file).await, ENTRIES),
        };
        let (layout, path) =
            (self.layout.clone(), folder.join(format!("{}{ending}", clock::stamp(now))));
        let kept = path.clone();
        let ended = match written {
            Err(error) => Err(error),
            Ok(()) => off_the_loop(move || keep(&layout, &file, &path, now)).await,
        };
        if ended.is_err() {
            // The next one writes over it.
            let _ = std::fs::remove_file(&fresh);
        }
        ended.map(|()| kept)
    }
}

/// Writes what lasts of the state, and its digest behind that.
pub async fn write_entries(store: &dyn Store, file: &mut File) -> Result<(), BackupError> {
    let bytes = to_bytes(&lasting(store).await?);
    file.write_all(&bytes)?;
    file.write_all(&Sha256::digest(&bytes))?;
    Ok(())
}

/// Keeps a copy that was written, and deletes those that it outdates.
fn keep(layout: &Layout, file: &File, path: &Path, now_ms: u64) -> Result<(), BackupError> {
    let folder = layout.state_backups();
    file.sync_all()?;
    check(&folder.join(TAKING))?;
    std::fs::rename(folder.join(TAKING), path)?;
    File::open(&folder)?.sync_all()?;
    let all = list(layout)?;
    let times: Vec<u64> = all.iter().map(|(at, _)| *at).collect();
    let gone = outlived(&times, now_ms);
    for (_, path) in all.into_iter().filter(|(at, _)| gone.contains(at)) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_whole_or_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let body = vec![7; 300_000];
        let whole = [body.as_slice(), Sha256::digest(&body).as_slice()].concat();
        std::fs::write(&path, &whole).expect("written");
        check(&path).expect("whole");
        for bad in [&whole[..whole.len() - 1], &whole[1..], &whole[..20], &[]] {
            std::fs::write(&path, bad).expect("written");
            check(&path).expect_err("not whole");
        }
        check(&folder.path().join("none")).expect_err("not there");
    }
}
