//! What a media folder had when it was looked at last, and what was deleted in it.
//!
//! It is kept on disk ([`crate::journal`]), so that a file that went while nobody looked is known to have gone, and does not come
//! back from those who have it still. That a file was deleted is forgotten when every other node has heard it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::exchange::{Gone, Offer, Stamp, Version};
use crate::tree::{Listing, is_good};

/// More deleted files than that are not remembered; those that were heard of first go first.
pub const MOST_GONE: usize = 200_000;

/// What is known of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// It is there.
    File(Version),
    /// It was deleted, which was heard here at the second value, nanoseconds since 1970.
    Gone(Gone, i64),
}

/// How something was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// As it happened.
    Now,
    /// Later; nobody knows when it happened.
    Later,
}

/// What is known of a folder.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<String, Entry>,
    /// What we do ourselves at this moment, so that it is not taken for a change that somebody made.
    ours: BTreeMap<String, Entry>,
    /// Which folder it is.
    pub(crate) number: Option<u64>,
    /// What is not on disk yet.
    pub(crate) fresh: BTreeSet<String>,
}

impl Ledger {
    /// Its entries.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The paths of which something is new and not on disk yet.
    pub fn fresh(&self) -> &BTreeSet<String> {
        &self.fresh
    }

    /// The version that is here.
    pub fn file(&self, path: &str) -> Option<&Version> {
        match self.entries.get(path) {
            Some(Entry::File(version)) => Some(version),
            _ => None,
        }
    }

    /// That it was deleted here, or heard to be.
    pub fn gone(&self, path: &str) -> Option<&Gone> {
        match self.entries.get(path) {
            Some(Entry::Gone(gone, _)) => Some(gone),
            _ => None,
        }
    }

    /// Sets what is known of a path; `None`: nothing any more.
    pub fn set(&mut self, path: &str, entry: Option<Entry>) {
        match entry {
            Some(entry) if self.entries.get(path) == Some(&entry) => return,
            Some(entry) => drop(self.entries.insert(path.to_owned(), entry)),
            None => drop(self.entries.remove(path)),
        }
        self.fresh.insert(path.to_owned());
    }

    /// We begin to do this; whether we may: not while something else is done at the same path.
    pub(crate) fn begin(&mut self, path: &str, entry: Entry) -> bool {
        if self.ours.contains_key(path) {
            return false;
        }
        self.ours.insert(path.to_owned(), entry);
        true
    }

    /// We have done it, or have not.
    pub(crate) fn end(&mut self, path: &str, is_done: bool) {
        if let Some(entry) = self.ours.remove(path).filter(|_| is_done) {
            self.set(path, Some(entry));
        }
    }

    /// What is at a path now; whether that is news for others. `now` in nanoseconds since 1970.
    pub fn see(&mut self, path: &str, stamp: Option<Stamp>, noticed: Noticed, now: i64) -> bool {
        let own = self.file(path).cloned();
        if !is_good(path) || own.as_ref().map(Version::stamp) == stamp {
            return false;
        }
        let ours = self.ours.get(path).cloned();
        match (&ours, stamp) {
            (Some(Entry::File(version)), Some(stamp)) if version.stamp() == stamp => {
                self.set(path, ours);
                return false;
            }
            (Some(Entry::Gone(..)), None) => {
                self.set(path, ours);
                return false;
            }
            _ => {}
        }
        let gone = self.gone(path).cloned();
        let floor = own.as_ref().map(|own| own.born).or(gone.as_ref().map(|gone| gone.at));
        let past = own.as_ref().map(Version::line).or(gone.map(|gone| gone.past));
        let (after, past) = (floor.map_or(i64::MIN, |floor| floor + 1), past.unwrap_or_default());
        let entry = match stamp {
            Some(Stamp { size, mtime }) => {
                // What was put back with its old time is as new as it seems to us.
                let born = if mtime >= after { mtime.min(now) } else { now }.max(after);
                Entry::File(Version { size, mtime, born, past })
            }
            // What was made elsewhere since we looked last is newer than what we had.
            None if noticed == Noticed::Later => Entry::Gone(Gone { at: after, past }, now),
            None => Entry::Gone(Gone { at: now.max(after), past }, now),
        };
        self.set(path, Some(entry));
        true
    }

    /// The whole folder as it is now, after a time when nobody looked; how many files went meanwhile.
    ///
    /// Where it is another folder than before, or everything is missing, nothing counts as deleted: its disk was made anew or is
    /// not mounted, and others may fill it.
    pub fn look(&mut self, number: u64, listing: &Listing, now: i64) -> usize {
        let is_same = self.number == Some(number) && !listing.files.is_empty();
        if self.number != Some(number) {
            self.number = Some(number);
            self.fresh.insert(String::new());
        }
        let known = self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        let missing: Vec<String> =
            known.map(|(path, _)| path).filter(|path| listing.lacks(path)).cloned().collect();
        for path in &missing {
            match is_same {
                true => drop(self.see(path, None, Noticed::Later, now)),
                false => self.set(path, None),
            }
        }
        for (path, stamp) in &listing.files {
            self.see(path, Some(*stamp), Noticed::Later, now);
        }
        if is_same { missing.len() } else { 0 }
    }

    /// What there is to say of these paths, or of all, in pieces of at most so many; what was deleted first.
    pub fn offers(&self, paths: Option<&[String]>, most: usize) -> Vec<Offer> {
        let told: Vec<(&String, &Entry)> = match paths {
            None => self.entries.iter().collect(),
            Some(paths) => paths
                .iter()
                .filter_map(|path| self.entries.get(path).map(|it| (path, it)))
                .collect(),
        };
        let (gone, files): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(_, entry)| matches!(entry, Entry::Gone(..)));
        let all: Vec<_> = gone.into_iter().chain(files).collect();
        let offer = |piece: &[(&String, &Entry)]| {
            let mut offer = Offer::default();
            for (path, entry) in piece {
                match (*entry).clone() {
                    Entry::File(it) => drop(offer.files.insert((*path).clone(), it)),
                    Entry::Gone(it, _) => drop(offer.deleted.insert((*path).clone(), it)),
                }
            }
            offer
        };
        all.chunks(most).map(offer).collect()
    }

    /// Forgets what was deleted and heard before `all_heard`, when every other node had heard everything.
    pub fn forget(&mut self, all_heard: i64) {
        let mut gone: Vec<(i64, String)> = Vec::new();
        for (path, entry) in &self.entries {
            if let Entry::Gone(_, heard) = entry {
                gone.push((*heard, path.clone()));
            }
        }
        gone.sort_unstable();
        let surplus = gone.len().saturating_sub(MOST_GONE);
        for (at, (heard, path)) in gone.into_iter().enumerate() {
            if at < surplus || heard < all_heard {
                self.set(&path, None);
            }
        }
    }
}
