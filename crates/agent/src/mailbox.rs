//! Reading the mailbox of an environment: who wrote to whom about what.
//!
//! Always: the folder belongs to the environment's user, who may be hostile, and we are root. So no link is followed, nothing but
//! files is opened, and of each only so much is read as a head may have.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};

/// A letter that an environment wanted to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The name of its file, without `.eml`.
    pub id: String,
    /// When it was written, milliseconds since 1970.
    pub at_ms: u64,
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What it is about.
    pub subject: String,
}

/// So many letters are shown.
const MOST: usize = 1000;
/// A head is not longer.
const HEAD: u64 = 64 << 10;
/// A line is shown up to here.
const LINE: usize = 500;

/// The letters in a folder, the last one first; no folder is an empty one.
pub fn letters(folder: &Path) -> io::Result<Vec<Letter>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match openat(CWD, folder, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut letters = Vec::new();
    for entry in Dir::read_from(&opened)? {
        let name: CString = entry?.file_name().to_owned();
        let Some(id) = name.to_str().ok().and_then(|name| name.strip_suffix(".eml")) else {
            continue;
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&opened, &name, flags, Mode::empty()) else { continue };
        let seen = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            continue;
        }
        let mut head = Vec::new();
        File::from(file).take(HEAD).read_to_end(&mut head)?;
        let head = String::from_utf8_lossy(&head);
        let field = |name: &str| shown(&field(&head, name));
        let at_ms =
            u64::try_from(seen.st_mtime).unwrap_or(0) * 1000 + seen.st_mtime_nsec / 1_000_000;
        letters.push(Letter {
            id: id.to_owned(),
            at_ms,
            from: field("From"),
            to: field("To"),
            subject: field("Subject"),
        });
    }
    letters.sort_by(|a, b| (b.at_ms, &b.id).cmp(&(a.at_ms, &a.id)));
    letters.truncate(MOST);
    Ok(letters)
}

/// A field of a head, its lines joined.
fn field(head: &str, name: &str) -> String {
    let mut found: Option<String> = None;
    for line in head.lines().take_while(|line| !line.is_empty()) {
        let goes_on = line.starts_with([' ', '\t']);
        match &mut found {
            Some(found) if goes_on => {
                found.push(' ');
                found.push_str(line.trim());
            }
            Some(_) => break,
            None => {
                let pair = line.split_once(':').filter(|_| !goes_on);
                found = pair
                    .filter(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim().to_owned());
            }
        }
    }
    found.unwrap_or_default()
}

/// A field as people read it (RFC 2047), on one line and not too long.
fn shown(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, word, after)) = encoded_word(rest) {
        // White space between two encoded words is none.
        if text.is_empty() || !before.trim().is_empty() {
            text.push_str(before);
        }
        text.push_str(&word);
        rest = after;
    }
    text.push_str(rest);
    text.chars().filter(|c| !c.is_control()).take(LINE).collect()
}

/// What is before the first encoded word in UTF-8 or ASCII, the word, and what is behind.
fn encoded_word(text: &str) -> Option<(&str, String, &str)> {
    let start = text.find("=?")?;
    let mut parts = text[start + 2..].splitn(4, '?');
    let (charset, kind, word) = (parts.next()?, parts.next()?, parts.next()?);
    let after = parts.next()?.strip_prefix('=')?;
    let charset = charset.to_ascii_lowercase();
    if !matches!(charset.as_str(), "utf-8" | "us-ascii") {
        return None;
    }
    let bytes = match kind {
        "B" | "b" => STANDARD.decode(word).ok()?,
        "Q" | "q" => quoted(word)?,
        _ => return None,
    };
    Some((&text[..start], String::from_utf8_lossy(&bytes).into_owned(), after))
}

fn quoted(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_people_mean_it() {
        let head = "To: a@b,\r\n\tc@d\r\nsubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_an?=\r\n =?utf-8?B?IGFsbGU=?= \u{7}x\r\n\r\nFrom: body";
        assert_eq!(shown(&field(head, "To")), "a@b, c@d");
        assert_eq!(shown(&field(head, "Subject")), "Grüße an alle x");
        assert_eq!(field(head, "From"), "");
        assert_eq!(shown("=?UTF-8?Q?=C?="), "=?UTF-8?Q?=C?=");
    }

    #[test]
    fn a_mailbox_has_letters_and_follows_no_link() {
        let place = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(letters(&place.path().join("none")).expect("read"), []);
        std::fs::write(place.path().join("a.eml"), "Subject: one\n\nbody").expect("written");
        std::fs::write(place.path().join("half"), "Subject: two\n").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", place.path().join("b.eml")).expect("linked");
        std::fs::create_dir(place.path().join("c.eml")).expect("made");
        let found = letters(place.path()).expect("read");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), found[0].subject.as_str()), ("a", "one"));
    }
}
