//! A media folder that hears what others offer: what it wants of that, what goes, and what is kept.
//!
//! Always: before anything gives way, the disk is looked at, so that what somebody wrote a moment ago is never taken for what was
//! known before; and where a copy is to be kept, it is there before the file gives way.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::exchange::{Gone, Offer, Verdict, Version, Wanted, deleted, offered};
use crate::kept;
use crate::ledger::{Entry, Ledger, Noticed};
use crate::tree::{Tree, is_good};

/// A folder with what is known of it. Its calls block.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The files.
    pub tree: Tree,
    /// What is known of them.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Where versions are kept that gave way unseen.
    pub kept: PathBuf,
}

/// What came of something heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What is wanted of it.
    pub wanted: Wanted,
    /// Copies that were kept, each with the path of its file.
    pub kept: Vec<(String, PathBuf)>,
    /// Paths that turned out to have changed here, which others are to hear.
    pub changed: Vec<String>,
}

/// What came of a file that was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// It is there.
    There(Heard),
    /// What is here is newer, or what came was not what was told: the next offer shows it.
    Not(Heard),
}

impl Folder {
    /// Whether this is the folder that was looked at, and not one that came into its place since.
    pub fn is_known(&self) -> io::Result<bool> {
        Ok(self.ledger.lock().number == Some(self.tree.number()?))
    }

    fn check(&self) -> io::Result<()> {
        match self.is_known()? {
            true => Ok(()),
            false => Err(io::Error::other(
                "another folder lies where the media were; it is looked at first",
            )),
        }
    }

    /// Looks at all of it, after a time when nobody did; how many files went meanwhile.
    pub fn look(&self, now: i64) -> io::Result<usize> {
        let (number, listing) = (self.tree.number()?, self.tree.list()?);
        Ok(self.ledger.lock().look(number, &listing, now))
    }

    /// Looks at a path; whether it changed.
    pub fn see(&self, path: &str, now: i64) -> io::Result<bool> {
        let stamp = self.tree.stamp(path)?;
        Ok(self.ledger.lock().see(path, stamp, Noticed::Now, now))
    }

    fn begin(&self, path: &str, entry: Entry) -> io::Result<()> {
        match self.ledger.lock().begin(path, entry) {
            true => Ok(()),
            // Of the kind that is tried again, and that nobody needs to hear of.
            false => Err(io::Error::new(io::ErrorKind::WouldBlock, "it arrives from another node")),
        }
    }

    fn see_for(&self, path: &str, now: i64, heard: &mut Heard) -> io::Result<()> {
        if self.see(path, now)? {
            heard.changed.push(path.to_owned());
        }
        Ok(())
    }

    fn keep(&self, path: &str, heard: &mut Heard) -> io::Result<()> {
        let Some(born) = self.ledger.lock().file(path).map(|own| own.born) else { return Ok(()) };
        let at = kept::keep(&self.tree, path, born, &self.kept)?;
        heard.kept.extend(at.map(|at| (path.to_owned(), at)));
        Ok(())
    }

    /// Hears what another node offers: deletes what was deleted there, and says what it wants. What had come of it before a
    /// failure is in `heard`.
    pub fn hear(&self, offer: &Offer, now: i64, heard: &mut Heard) -> io::Result<()> {
        self.check()?;
        for (path, gone) in offer.deleted.iter().filter(|(path, _)| is_good(path)) {
            self.see_for(path, now, heard)?;
            self.hear_gone(path, gone, now, heard)?;
        }
        for (path, version) in offer.files.iter().filter(|(path, _)| is_good(path)) {
            self.see_for(path, now, heard)?;
            let mut ledger = self.ledger.lock();
            match offered(version, ledger.file(path), ledger.gone(path)) {
                Verdict::Stays => {}
                Verdict::Same => ledger.set(path, Some(Entry::File(version.clone()))),
                Verdict::GivesWay | Verdict::IsKept => heard.wanted.files.push(path.clone()),
            }
        }
        Ok(())
    }

    fn hear_gone(&self, path: &str, gone: &Gone, now: i64, heard: &mut Heard) -> io::Result<()> {
        let verdict = {
            let mut ledger = self.ledger.lock();
            let Some(own) = ledger.file(path) else {
                if ledger.gone(path).is_none_or(|own| own.at < gone.at) {
                    ledger.set(path, Some(Entry::Gone(gone.clone(), now)));
                }
                return Ok(());
            };
            deleted(gone, own)
        };
        match verdict {
            Verdict::Stays | Verdict::Same => return Ok(()),
            Verdict::IsKept => self.keep(path, heard)?,
            Verdict::GivesWay => {}
        }
        self.begin(path, Entry::Gone(gone.clone(), now))?;
        let went = self.tree.delete(path);
        self.ledger.lock().end(path, went.is_ok());
        // Somebody may have written it meanwhile.
        self.see_for(path, now, heard)?;
        went
    }

    /// Takes a file that another node sends.
    pub fn receive(
        &self,
        path: &str,
        version: &Version,
        bytes: impl Read,
        now: i64,
    ) -> io::Result<Received> {
        let mut heard = Heard::default();
        if !is_good(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path below the folder"));
        }
        self.check()?;
        self.see_for(path, now, &mut heard)?;
        let verdict = {
            let ledger = self.ledger.lock();
            offered(version, ledger.file(path), ledger.gone(path))
        };
        match verdict {
            Verdict::Stays | Verdict::Same => return Ok(Received::Not(heard)),
            Verdict::IsKept => self.keep(path, &mut heard)?,
            Verdict::GivesWay => {}
        }
        self.begin(path, Entry::File(version.clone()))?;
        let put = self.tree.put(path, version.stamp(), bytes);
        self.ledger.lock().end(path, matches!(put, Ok(Some(()))));
        self.see_for(path, now, &mut heard)?;
        Ok(match put? {
            Some(()) => Received::There(heard),
            None => Received::Not(heard),
        })
    }
}
