//! What one folder offers and another one wants: the newer file of two, and nothing that was deleted since it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file as it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its bytes.
    pub size: u64,
    /// When it was written last, nanoseconds since 1970; the same on all nodes.
    pub mtime: i64,
    /// When it came to where it is offered, nanoseconds since 1970.
    pub since: i64,
}

/// What a node has to say of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Files by their path below the folder.
    #[serde(default)]
    pub files: BTreeMap<String, Stamp>,
    /// When files were deleted, nanoseconds since 1970.
    #[serde(default)]
    pub deleted: BTreeMap<String, i64>,
}

/// What the other one says to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Files that it lacks.
    pub files: Vec<String>,
}

/// Whether an offered file is wanted where there is `own`, or where it was deleted at `deleted`.
pub fn is_wanted(offered: Stamp, own: Option<Stamp>, deleted: Option<i64>) -> bool {
    if deleted.is_some_and(|at| at > offered.since) {
        return false;
    }
    match own {
        None => true,
        Some(own) if (own.size, own.mtime) == (offered.size, offered.mtime) => false,
        // Of two that were written at the same moment all nodes choose the same.
        Some(own) => (offered.mtime, offered.size) > (own.mtime, own.size),
    }
}

/// Whether a file goes that was deleted elsewhere at `at`.
pub fn goes(own: Stamp, at: i64) -> bool {
    own.mtime < at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size: u64, mtime: i64, since: i64) -> Stamp {
        Stamp { size, mtime, since }
    }

    #[test]
    fn the_newer_file_is_wanted_and_what_was_deleted_since_is_not() {
        let check = |offered, own, deleted, expected| {
            assert_eq!(
                is_wanted(offered, own, deleted),
                expected,
                "{offered:?} {own:?} {deleted:?}"
            );
        };
        let new = stamp(5, 20, 20);
        check(new, None, None, true);
        check(new, Some(stamp(5, 20, 90)), None, false);
        check(new, Some(stamp(4, 10, 10)), None, true);
        check(new, Some(stamp(4, 30, 30)), None, false);
        check(new, None, Some(25), false);
        // Put back after it was deleted, with its old time.
        check(stamp(5, 20, 30), None, Some(25), true);
        // A tie is broken the same way everywhere.
        assert_ne!(
            is_wanted(stamp(5, 20, 20), Some(stamp(6, 20, 20)), None),
            is_wanted(stamp(6, 20, 20), Some(stamp(5, 20, 20)), None)
        );
        assert!(goes(new, 25) && !goes(new, 15));
    }
}
