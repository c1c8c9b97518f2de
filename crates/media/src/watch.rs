//! What changes in media folders, as it changes: one inotify for all of them, a watch for each folder.
//!
//! A folder that is new is read once more after it is watched, since files may have come before. When the kernel lost events, or
//! there are too many folders for it, everything counts as changed: [`Seen::Everything`].

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::tree::ARRIVING;

/// Something that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen<K> {
    /// This file of this folder is new, another one, or gone.
    File(K, String),
    /// Anything below this path of this folder may be.
    Below(K, String),
    /// Anything anywhere may be.
    Everything,
}

/// Watches folders; `K` tells them apart.
pub struct Watch<K> {
    inotify: Inotify,
    folders: BTreeMap<WatchDescriptor, (K, PathBuf)>,
    roots: BTreeMap<K, PathBuf>,
    buffer: Vec<u8>,
}

impl<K> std::fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("folders", &self.folders.len()).finish_non_exhaustive()
    }
}

fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CREATE
        | WatchMask::ONLYDIR
        | WatchMask::DONT_FOLLOW
}

impl<K: Clone + Ord> Watch<K> {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Self> {
        let (folders, roots) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { inotify: Inotify::init()?, folders, roots, buffer: vec![0; 64 << 10] })
    }

    /// Whether this folder is watched.
    pub fn watches(&self, key: &K) -> bool {
        self.roots.contains_key(key)
    }

    /// Watches a folder with everything below.
    pub fn add(&mut self, key: &K, root: &Path) -> io::Result<()> {
        self.roots.insert(key.clone(), root.to_owned());
        let added = self.add_below(key, root, Path::new(""));
        if added.is_err() {
            self.roots.remove(key);
        }
        added
    }

    /// Watches these folders no more.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.roots.retain(|key, _| keep(key));
        let gone: Vec<WatchDescriptor> = self
            .folders
            .iter()
            .filter(|(_, (key, _))| !keep(key))
            .map(|(wd, _)| wd.clone())
            .collect();
        for wd in gone {
            self.folders.remove(&wd);
            // It may have gone by itself.
            let _ = self.inotify.watches().remove(wd);
        }
    }

    fn add_below(&mut self, key: &K, root: &Path, path: &Path) -> io::Result<()> {
        let at = root.join(path);
        let wd = self.inotify.watches().add(&at, mask())?;
        self.folders.insert(wd, (key.clone(), path.to_owned()));
        for entry in std::fs::read_dir(&at)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                match self.add_below(key, root, &path.join(entry.file_name())) {
                    // It went meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    added => added?,
                }
            }
        }
        Ok(())
    }

    /// What was seen since the last call; waits for something at most so long. Blocks.
    pub fn next(&mut self, patience: Duration) -> io::Result<Vec<Seen<K>>> {
        let limit = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let ready = {
            let fd = self.inotify.as_fd();
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit))?
        };
        if ready == 0 {
            return Ok(Vec::new());
        }
        let mut seen = Vec::new();
        let mut fresh = Vec::new();
        loop {
            let events = match self.inotify.read_events(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                events => events?,
            };
            let mut is_empty = true;
            for event in events {
                is_empty = false;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    seen.push(Seen::Everything);
                    continue;
                }
                if event.mask.contains(EventMask::IGNORED) {
                    self.folders.remove(&event.wd);
                    continue;
                }
                let (Some((key, folder)), Some(name)) = (self.folders.get(&event.wd), event.name)
                else {
                    continue;
                };
                let path = folder.join(name);
                let Some(text) = path.to_str() else { continue };
                if name.to_string_lossy().starts_with(ARRIVING) {
                    continue;
                }
                match event.mask.contains(EventMask::ISDIR) {
                    true => {
                        if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
                            fresh.push((key.clone(), path.clone()));
                        }
                        seen.push(Seen::Below(key.clone(), text.to_owned()));
                    }
                    // A file that was made is seen again when it is closed.
                    false if event.mask.contains(EventMask::CREATE) => {}
                    false => seen.push(Seen::File(key.clone(), text.to_owned())),
                }
            }
            if is_empty {
                break;
            }
        }
        for (key, path) in fresh {
            let Some(root) = self.roots.get(&key).cloned() else { continue };
            if let Err(error) = self.add_below(&key, &root, &path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "a media folder cannot be watched");
                seen.push(Seen::Everything);
            }
        }
        seen.sort();
        seen.dedup();
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_seen_as_they_come_and_go_also_in_new_folders() {
        let place = tempfile::tempdir().expect("a folder");
        let mut watch: Watch<u8> = Watch::new().expect("inotify");
        watch.add(&1, place.path()).expect("watched");
        let all = |watch: &mut Watch<u8>, wanted: &Seen<u8>| {
            let mut seen = Vec::new();
            for _ in 0..100 {
                seen.extend(watch.next(Duration::from_millis(50)).expect("read"));
                if seen.contains(wanted) {
                    return;
                }
            }
            panic!("{wanted:?} was not seen: {seen:?}");
        };
        std::fs::write(place.path().join("a"), "a").expect("written");
        all(&mut watch, &Seen::File(1, "a".into()));
        std::fs::create_dir(place.path().join("2026")).expect("made");
        all(&mut watch, &Seen::Below(1, "2026".into()));
        std::fs::write(place.path().join("2026/b"), "b").expect("written");
        all(&mut watch, &Seen::File(1, "2026/b".into()));
        std::fs::remove_file(place.path().join("2026/b")).expect("deleted");
        all(&mut watch, &Seen::File(1, "2026/b".into()));
        watch.retain(|_| false);
        assert!(!watch.watches(&1));
    }
}
