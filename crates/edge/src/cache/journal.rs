//! A site's purges on disk, so that pages kept over a restart do not come back fresh after they were purged.
//!
//! A file of frames: length, checksum, a JSON record. The first record says after which position the others begin. A
//! record is in the file before its purge is confirmed (so it survives the death of the process) and is synced within
//! some milliseconds; after a power cut nothing on disk is called fresh anyway. Whatever cannot be read makes the whole
//! site stale rather than a page wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pressroom_model::affirmation::Purge;
use serde::{Deserialize, Serialize};

use super::Millis;

/// Larger frames are no frames.
const LARGEST: usize = 8 << 20;

/// One purge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its number in the site's stream.
    pub position: u64,
    /// When it was applied.
    pub at: Millis,
    /// What was purged; nothing in the first record.
    #[serde(flatten)]
    pub purge: Purge,
}

/// What a journal says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The records begin after this position.
    pub base: u64,
    /// All purges after it.
    pub records: Vec<Record>,
    /// All was readable to the end.
    pub whole: bool,
}

impl Past {
    /// The last position.
    pub(super) fn position(&self) -> u64 {
        self.records.iter().map(|record| record.position).fold(self.base, u64::max)
    }
}

/// The journal of one site, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

/// Reads a journal; one that is missing or broken from the start says nothing, and is not whole.
pub(super) fn read(path: &Path) -> Past {
    let Ok(bytes) = std::fs::read(path) else { return Past::default() };
    let mut rest = bytes.as_slice();
    let mut past = Past::default();
    let Some(first) = next(&mut rest) else { return past };
    past.base = first.position;
    while let Some(record) = next(&mut rest) {
        past.records.push(record);
    }
    past.whole = rest.is_empty();
    past
}

fn next(rest: &mut &[u8]) -> Option<Record> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (sum, after) = after.split_first_chunk::<8>()?;
    if length > LARGEST || after.len() < length {
        return None;
    }
    let (payload, after) = after.split_at(length);
    if checksum(payload) != *sum {
        return None;
    }
    let record = serde_json::from_slice(payload).ok()?;
    *rest = after;
    Some(record)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    *blake3::hash(payload).as_bytes().first_chunk().expect("a digest has 32 bytes")
}

fn frame(record: &Record) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)?;
    if payload.len() > LARGEST {
        return Err(io::Error::other("a purge is too large to be journalled"));
    }
    let mut frame = Vec::with_capacity(payload.len() + 12);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&checksum(&payload));
    frame.extend_from_slice(&payload);
    Ok(frame)
}

impl Journal {
    /// Opens a journal that was read as whole.
    pub(super) fn resume(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file: Arc::new(file), length })
    }

    /// Begins anew after a position, in place of whatever was there.
    pub(super) fn begin(path: &Path, base: u64) -> io::Result<Self> {
        let first = frame(&Record { position: base, at: 0, purge: Purge::default() })?;
        replace(path, &first, true)?;
        Self::resume(path)
    }

    /// Appends purges; once it returns they survive the death of the process.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&frame(record)?);
        }
        (&*self.file).write_all(&bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops all records up to a position; only when none after it were appended.
    pub(super) fn restart(&mut self, base: u64) -> io::Result<()> {
        *self = Self::begin(&self.path, base)?;
        Ok(())
    }

    /// The file, to be synced.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Its bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// Writes a file so that it is there whole or not at all; `synced`: also after a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8], synced: bool) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if synced {
            file.sync_data()?;
        }
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) if synced => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    })();
    if written.is_err() {
        // The first failure is what counts; the temporary file is overwritten by the next try.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: u64) -> Record {
        let purge = Purge { tags: vec![format!("post-{position}")], ..Purge::default() };
        Record { position, at: 5, purge }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let folder = folder();
        let path = folder.path().join("blog.journal");
        assert_eq!(read(&path), Past::default(), "missing");
        let mut journal = Journal::begin(&path, 7).expect("begun");
        journal.append(&[record(8), record(9)]).expect("appended");
        drop(journal);
        Journal::resume(&path).expect("resumed").append(&[record(10)]).expect("appended");
        let past = read(&path);
        assert_eq!((past.base, past.position(), past.whole), (7, 10, true));
        assert_eq!(past.records, [record(8), record(9), record(10)]);
        Journal::resume(&path).expect("resumed").restart(10).expect("restarted");
        assert_eq!(read(&path), Past { base: 10, records: vec![], whole: true });
    }

    #[test]
    fn a_torn_or_spoilt_tail_is_noticed_wherever_it_is() {
        let folder = folder();
        let path = folder.path().join("blog.journal");
        Journal::begin(&path, 0).expect("begun").append(&[record(1), record(2)]).expect("appended");
        let bytes = std::fs::read(&path).expect("read");
        let whole = read(&path);
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).expect("written");
            let past = read(&path);
            assert!(past.records.len() < 2, "cut at {end}");
            let at_a_seam = past.whole;
            assert!(
                !at_a_seam
                    || past.records.len() == whole.records.len() - 1
                    || past.records.is_empty()
            );
        }
        for at in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x55;
            std::fs::write(&path, &spoilt).expect("written");
            assert!(!read(&path).whole, "spoilt at {at}");
        }
    }
}
