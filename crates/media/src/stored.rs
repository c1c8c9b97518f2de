//! What an object store is known to have of a site, on disk: so that it is known after a restart what it lacks, also when it does
//! not answer.
//!
//! It may lag behind: whoever is about to send or delete asks the store first.

use std::io;
use std::path::PathBuf;

use crate::exchange::Version;
use crate::journal::Journal;
use crate::ledger::{Entry, Ledger};

/// What a store is known to have of a site.
#[derive(Debug)]
pub struct Stored {
    journal: Journal,
    ledger: Ledger,
}

impl Stored {
    /// Reads what is kept at `path`. `store` names the store: of another one nothing is known.
    pub fn read(path: impl Into<PathBuf>, store: &str) -> io::Result<Self> {
        let digest = blake3::hash(store.as_bytes());
        let number = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("it is longer"));
        let (journal, mut ledger) = Journal::read(path)?;
        if ledger.number != Some(number) {
            ledger = Ledger::default();
            ledger.number = Some(number);
        }
        Ok(Self { journal, ledger })
    }

    /// The newest version that the store is known to have.
    pub fn version(&self, path: &str) -> Option<&Version> {
        self.ledger.file(path)
    }

    /// The paths of which it is known to have something.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.ledger.entries().keys()
    }

    /// It has this; `None`: nothing.
    pub fn set(&mut self, path: &str, version: Option<Version>) {
        self.ledger.set(path, version.map(Entry::File));
    }

    /// Puts on disk what is new.
    pub fn write(&mut self) -> io::Result<()> {
        self.journal.write(&mut self.ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_store_outlives_the_agent_and_is_not_taken_for_another_one() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("blog.stored");
        let version = Version { size: 1, mtime: 2, born: 3, past: Vec::new() };
        let mut stored = Stored::read(&path, "s3://a").expect("read");
        stored.set("x", Some(version.clone()));
        stored.set("y", Some(version.clone()));
        stored.write().expect("written");
        stored.set("y", None);
        stored.write().expect("written");
        let stored = Stored::read(&path, "s3://a").expect("read");
        assert_eq!((stored.version("x"), stored.version("y")), (Some(&version), None));
        let mut other = Stored::read(&path, "s3://b").expect("read");
        assert_eq!(other.version("x"), None);
        other.write().expect("written");
        assert_eq!(Stored::read(&path, "s3://a").expect("read").version("x"), None);
    }
}
