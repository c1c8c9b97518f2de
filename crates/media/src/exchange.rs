//! What one folder offers and another one wants: the newer version of two, and nothing that was deleted since it was made.
//!
//! A version knows when it was born and which ones it came after. So two that were made apart from each other, on nodes that were
//! cut from each other, are told from one that replaced the other: the older one of two such is not simply overwritten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// So many versions before it a version remembers.
const PAST: usize = 8;

/// A file as it lies on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its bytes.
    pub size: u64,
    /// When it was written last, nanoseconds since 1970; the same on all nodes.
    pub mtime: i64,
}

/// A file as it is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its bytes.
    pub size: u64,
    /// When it was written last, nanoseconds since 1970; the same on all nodes.
    pub mtime: i64,
    /// When it came to be at this path, anywhere, nanoseconds since 1970: later than all that it replaced there.
    pub born: i64,
    /// When those were born that it replaced, the last few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<i64>,
}

impl Version {
    /// It as it lies on a disk.
    pub fn stamp(&self) -> Stamp {
        Stamp { size: self.size, mtime: self.mtime }
    }

    /// What a successor of it remembers.
    pub fn line(&self) -> Vec<i64> {
        let from = (self.past.len() + 1).saturating_sub(PAST);
        self.past.iter().skip(from).copied().chain([self.born]).collect()
    }
}

/// That a file was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// When, nanoseconds since 1970: later than the birth of what was deleted.
    pub at: i64,
    /// When those were born that went with it, the last few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<i64>,
}

/// What a node has to say of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Files by their path below the folder.
    #[serde(default)]
    pub files: BTreeMap<String, Version>,
    /// Files that were deleted.
    #[serde(default)]
    pub deleted: BTreeMap<String, Gone>,
}

/// What the other one says to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Files that it lacks.
    pub files: Vec<String>,
}

/// What becomes of what is here when something is heard of the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Stays,
    /// The bytes are the same, and were born later than it was known here.
    Same,
    /// It gives way.
    GivesWay,
    /// It gives way, but whoever made the other one had not seen it: a copy is kept.
    IsKept,
}

fn give_way(own: &Version, past: &[i64]) -> Verdict {
    let forgotten = past.len() >= PAST && past.iter().all(|born| *born > own.born);
    match past.contains(&own.born) || forgotten {
        true => Verdict::GivesWay,
        false => Verdict::IsKept,
    }
}

/// What becomes of what is here, when a version is offered.
pub fn offered(version: &Version, own: Option<&Version>, gone: Option<&Gone>) -> Verdict {
    let Some(own) = own else {
        return match gone.is_some_and(|gone| gone.at >= version.born) {
            true => Verdict::Stays,
            false => Verdict::GivesWay,
        };
    };
    if own.stamp() == version.stamp() {
        return if version.born > own.born { Verdict::Same } else { Verdict::Stays };
    }
    // Of two that were born at the same moment all nodes choose the same.
    let order = |it: &Version| (it.born, it.mtime, it.size);
    match order(version) > order(own) {
        true => give_way(own, &version.past),
        false => Verdict::Stays,
    }
}

/// What becomes of what is here, when it was deleted elsewhere.
pub fn deleted(gone: &Gone, own: &Version) -> Verdict {
    if own.born > gone.at { Verdict::Stays } else { give_way(own, &gone.past) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(born: i64, past: &[i64]) -> Version {
        Version { size: 5, mtime: born, born, past: past.to_vec() }
    }

    #[test]
    fn the_newer_version_is_wanted_and_what_was_deleted_since_is_not() {
        let gone = |at| Gone { at, past: vec![10] };
        let (old, new) = (version(10, &[]), version(20, &[10]));
        let check = |it: &Version, own: Option<&Version>, gone: Option<Gone>, expected| {
            assert_eq!(offered(it, own, gone.as_ref()), expected, "{it:?} {own:?} {gone:?}");
        };
        check(&new, None, None, Verdict::GivesWay);
        check(&new, Some(&new), None, Verdict::Stays);
        check(&new, Some(&old), None, Verdict::GivesWay);
        check(&new, Some(&version(15, &[10])), None, Verdict::IsKept);
        check(&old, Some(&new), None, Verdict::Stays);
        check(&new, None, Some(gone(25)), Verdict::Stays);
        check(&new, None, Some(gone(15)), Verdict::GivesWay);
        // Put back after it was deleted, with its old time.
        let back = Version { mtime: 10, ..version(30, &[10]) };
        check(&back, None, Some(gone(25)), Verdict::GivesWay);
        check(&Version { born: 90, ..new.clone() }, Some(&new), None, Verdict::Same);
        // A tie is broken the same way everywhere.
        let other = Version { size: 6, ..new.clone() };
        assert_ne!(offered(&new, Some(&other), None), offered(&other, Some(&new), None));
        assert_eq!(deleted(&gone(25), &old), Verdict::GivesWay);
        assert_eq!(deleted(&gone(25), &new), Verdict::IsKept);
        assert_eq!(deleted(&gone(15), &new), Verdict::Stays);
    }

    #[test]
    fn a_version_that_was_replaced_often_knows_its_line_still() {
        let mut it = version(1, &[]);
        let first = it.clone();
        for born in 2..40 {
            it = version(born, &it.line());
        }
        assert_eq!(it.past.len(), PAST);
        assert_eq!(offered(&it, Some(&first), None), Verdict::GivesWay);
    }
}
