//! A file in an object store: its name there says which version it is, and what is to be done where store and folder differ.
//!
//! `SITE/PATH/BORN.MTIME.DIGEST`: no name ever has other bytes than before. So it does not matter who sends a version, how often,
//! and who is last: a slow sender of an old version overwrites nothing. A listing tells everything but what a version came after.

use crate::exchange::{Stamp, Verdict, Version, offered};
use crate::ledger::Entry;

/// A version that a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The version; what it came after is known only to whoever fetches it.
    pub version: Version,
    /// BLAKE3 of its bytes, the first half, in hexadecimal.
    pub digest: String,
}

/// So many digits of a digest.
pub const DIGITS: usize = 32;

impl Object {
    /// The last part of its name.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.version.born, self.version.mtime, self.digest)
    }

    /// What has this name and size; `None`: nothing of ours.
    pub fn named(name: &str, size: u64) -> Option<Self> {
        let mut parts = name.split('.');
        let (born, mtime) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let digest = parts.next().filter(|digest| digest.len() == DIGITS)?.to_owned();
        let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = Version { size, mtime, born, past: Vec::new() };
        (is_hex && parts.next().is_none()).then_some(Self { version, digest })
    }

    fn order(&self) -> (i64, i64, u64) {
        (self.version.born, self.version.mtime, self.version.size)
    }
}

/// Writes a path so that a store takes it: control characters and `%` as `%` and two digits.
pub fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '%' | '\0'..='\x1f' | '\x7f' => text += &format!("%{:02X}", u32::from(c)),
            c => text.push(c),
        }
    }
    text
}

/// The path that was written so; `None`: it was not.
pub fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut path = pieces.next()?.to_owned();
    for piece in pieces {
        let code = u8::from_str_radix(piece.get(..2)?, 16).ok()?;
        path.push(char::from(code));
        path += piece.get(2..)?;
    }
    (escaped(&path) == text).then_some(path)
}

/// What is to be done about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The version that is here is to be sent.
    Send(Version),
    /// This one is to be fetched.
    Fetch(Object),
    /// The store has what is here, or what is here knows of nothing that it should have.
    Nothing,
}

/// What is to be done, when the store has these objects of a path; and which of them go afterwards.
pub fn plan(own: Option<&Entry>, objects: &[Object]) -> (Step, Vec<Object>) {
    let newest = objects.iter().max_by_key(|object| object.order());
    let (file, gone) = match own {
        Some(Entry::File(version)) => (Some(version), None),
        Some(Entry::Gone(gone, _)) => (None, Some(gone)),
        None => (None, None),
    };
    let step = match (newest, file) {
        (Some(newest), _) if is_wanted(own, &newest.version) => Step::Fetch(newest.clone()),
        (_, Some(file)) if !objects.iter().any(|it| is_it_or_later(file, &it.version)) => {
            Step::Send(file.clone())
        }
        _ => Step::Nothing,
    };
    let is_old = |object: &&Object| match (&step, file, gone) {
        (Step::Fetch(_), ..) => false,
        (_, Some(file), _) => object.version.born < file.born,
        (_, None, Some(gone)) => object.version.born <= gone.at,
        (_, None, None) => false,
    };
    let old = objects.iter().filter(is_old).cloned().collect();
    (step, old)
}

fn is_it(file: &Version, version: &Version) -> bool {
    let same = |it: &Version| -> (i64, Stamp) { (it.born, it.stamp()) };
    same(file) == same(version)
}

/// Whether these are the same bytes, born then or, as the store knows, later.
fn is_it_or_later(file: &Version, version: &Version) -> bool {
    file.stamp() == version.stamp() && file.born <= version.born
}

/// Whether a store that has this version of a path (or none) is to hear of it.
pub fn is_behind(own: Option<&Entry>, has: Option<&Version>) -> bool {
    match (own, has) {
        (Some(Entry::File(_)), None) => true,
        (Some(Entry::File(file)), Some(has)) => !is_it(file, has) && has.born <= file.born,
        (Some(Entry::Gone(gone, _)), Some(has)) => has.born <= gone.at,
        (Some(Entry::Gone(..)) | None, _) => false,
    }
}

/// Whether the store's version is to be fetched.
pub fn is_wanted(own: Option<&Entry>, has: &Version) -> bool {
    let (file, gone) = match own {
        Some(Entry::File(version)) => (Some(version), None),
        Some(Entry::Gone(gone, _)) => (None, Some(gone)),
        None => (None, None),
    };
    // Of two that were born at the same moment the one that is here is sent; the other nodes choose between them.
    let is_tie = file.is_some_and(|file| file.born == has.born);
    !is_tie && matches!(offered(has, file, gone), Verdict::GivesWay | Verdict::IsKept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Gone;

    fn object(born: i64) -> Object {
        let version = Version { size: 5, mtime: born, born, past: Vec::new() };
        Object { version, digest: "0".repeat(DIGITS) }
    }

    fn file(born: i64) -> Entry {
        Entry::File(object(born).version)
    }

    #[test]
    fn a_name_says_which_version_it_is_and_nothing_else_passes_for_one() {
        let it = Object { version: Version { mtime: -7, ..object(12).version }, ..object(12) };
        assert_eq!(Object::named(&it.name(), 5), Some(it));
        for bad in ["", "a.jpg", "1.2", "1.2.zz", "1.2.0123", "1.2.3.4"] {
            assert_eq!(Object::named(bad, 5), None, "{bad}");
        }
        for path in ["2026/11/ä 100% [x]\n.jpg", "a", "%41", "x~{}|\\^\u{7f}"] {
            assert_eq!(unescaped(&escaped(path)).as_deref(), Some(path));
            assert!(!escaped(path).chars().any(|c| c.is_ascii_control()));
        }
        for bad in ["%", "%4", "%zz", "%41"] {
            assert_eq!(unescaped(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_newer_side_counts_and_what_is_old_goes_only_when_the_new_is_there() {
        let gone = |at| Entry::Gone(Gone { at, past: Vec::new() }, 0);
        let check = |own: Option<Entry>, store: &[i64], step: Step, old: &[i64]| {
            let objects: Vec<Object> = store.iter().map(|born| object(*born)).collect();
            let expected = (step, old.iter().map(|born| object(*born)).collect());
            assert_eq!(plan(own.as_ref(), &objects), expected, "{own:?} {store:?}");
        };
        let send = |born| Step::Send(object(born).version);
        check(Some(file(10)), &[], send(10), &[]);
        check(Some(file(10)), &[10], Step::Nothing, &[]);
        check(Some(file(20)), &[10], send(20), &[10]);
        check(Some(file(20)), &[10, 20], Step::Nothing, &[10]);
        check(Some(file(10)), &[10, 20], Step::Fetch(object(20)), &[]);
        check(None, &[10, 20], Step::Fetch(object(20)), &[]);
        check(None, &[], Step::Nothing, &[]);
        check(Some(gone(15)), &[10], Step::Nothing, &[10]);
        let mut later = object(20);
        later.version.mtime = 10;
        let same = plan(Some(&file(10)), std::slice::from_ref(&later));
        assert_eq!(same, (Step::Nothing, Vec::new()), "the same bytes, as is heard soon");
        check(Some(gone(15)), &[10, 20], Step::Fetch(object(20)), &[]);
        // Whoever is to hear of something is one for whom there is something to do.
        for own in [None, Some(file(10)), Some(file(20)), Some(gone(15)), Some(gone(25))] {
            for store in [10, 20] {
                let has = object(store);
                let (step, old) = plan(own.as_ref(), std::slice::from_ref(&has));
                let is_fetched = matches!(step, Step::Fetch(_));
                let is_told = matches!(step, Step::Send(_)) || !old.is_empty();
                assert_eq!(is_wanted(own.as_ref(), &has.version), is_fetched, "{own:?} {store}");
                assert_eq!(is_behind(own.as_ref(), Some(&has.version)), is_told, "{own:?} {store}");
            }
        }
    }
}
