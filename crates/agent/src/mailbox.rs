//! Reading the mailbox of an environment: who wrote to whom about what.
//!
//! Always: the folder belongs to the environment's user, who may be hostile, and we are root. So no link is followed, nothing but
//! files is opened, and of each only so much is read as a head may have.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use mail_parser::{Address, MessageParser};
use pressroom_model::text::plain;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

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
/// So many names are looked at: the must-use plugin keeps fewer.
const MOST_NAMES: usize = 10_000;
/// A head is not longer.
const HEAD: u64 = 64 << 10;
/// More of a letter is not read.
const WHOLE: u64 = 1 << 20;

/// The letters in a folder, the last one first; no folder is an empty one.
pub fn letters(folder: &Path) -> io::Result<Vec<Letter>> {
    let opened = match open_folder(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut names: Vec<(i64, CString)> = Vec::new();
    for entry in Dir::read_from(&opened)?.take(MOST_NAMES) {
        let name = entry?.file_name().to_owned();
        if let Ok(seen) = statat(&opened, &name, AtFlags::SYMLINK_NOFOLLOW) {
            names.push((seen.st_mtime, name));
        }
    }
    names.sort_by(|a, b| b.cmp(a));
    let mut letters = Vec::new();
    for (_, name) in names {
        let id = name.to_str().ok().and_then(|name| name.strip_suffix(".eml"));
        let Some(id) = id.filter(|id| letters.len() < MOST && !id.contains(char::is_control))
        else {
            continue;
        };
        let Some((file, at_ms)) = open_letter(&opened, &name)? else { continue };
        let mut head = Vec::new();
        file.take(HEAD).read_to_end(&mut head)?;
        let head = MessageParser::default().parse_headers(&head).unwrap_or_default();
        letters.push(Letter {
            id: id.to_owned(),
            at_ms,
            from: plain(&people(head.from())),
            to: plain(&people(head.to())),
            subject: plain(head.subject().unwrap_or_default()),
        });
    }
    letters.sort_by(|a, b| (b.at_ms, &b.id).cmp(&(a.at_ms, &a.id)));
    Ok(letters)
}

/// What a letter says; of one that has only HTML what is left without the marks. `None`: there is no such letter.
pub fn text(folder: &Path, id: &str) -> io::Result<Option<String>> {
    let opened = match open_folder(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let is_name = !id.contains(['/', '\0']);
    let Ok(name) = CString::new(format!("{id}.eml")) else { return Ok(None) };
    let Some((file, _)) = is_name.then(|| open_letter(&opened, &name)).transpose()?.flatten()
    else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(WHOLE).read_to_end(&mut bytes)?;
    let letter = MessageParser::default().parse(&bytes);
    let body = letter.as_ref().and_then(|letter| letter.body_text(0));
    Ok(Some(body.unwrap_or_else(|| String::from_utf8_lossy(&bytes)).into_owned()))
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, folder, flags, Mode::empty())?)
}

/// A letter's file and when it was written, milliseconds since 1970; `None`: it is no file, or gone.
fn open_letter(folder: &OwnedFd, name: &CStr) -> io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::empty()) else { return Ok(None) };
    let seen = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let at_ms = u64::try_from(seen.st_mtime).unwrap_or(0) * 1000 + seen.st_mtime_nsec / 1_000_000;
    Ok(Some((File::from(file), at_ms)))
}

/// People as a letter names them.
fn people(address: Option<&Address<'_>>) -> String {
    let person = |one: &mail_parser::Addr<'_>| match (one.name(), one.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    };
    let all = address.map(|address| address.iter().map(person).collect::<Vec<_>>());
    all.unwrap_or_default().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_people_mean_them() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let letter = "From: =?UTF-8?B?QWTDqA==?= <ade@x.org>\r\nTo: a@b.org,\r\n\tc@d.org\r\nsubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_an?=\r\n =?utf-8?B?IGFsbGU=?= \u{7}x\r\n\
                      Content-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>Sch=C3=B6n,<br>dass du da bist</p>";
        std::fs::write(place.path().join("a.eml"), letter).expect("written");
        let found = letters(place.path()).expect("read");
        assert_eq!(found[0].from, "Adè <ade@x.org>");
        assert_eq!(found[0].to, "a@b.org, c@d.org");
        assert_eq!(found[0].subject, "Grüße an alle x");
        let said = text(place.path(), "a").expect("read").expect("there");
        assert!(said.contains("Schön,") && said.contains("dass du da bist"), "{said}");
        assert!(!said.contains('<'), "{said}");
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
        assert_eq!(text(place.path(), "a").expect("read").as_deref(), Some("body"));
        std::fs::write(place.path().join("half.txt"), "x").expect("written");
        for none in ["b", "c", "d", "../a", "half.txt", "", "a.eml", "a\0"] {
            assert_eq!(text(place.path(), none).expect("read"), None, "{none}");
        }
    }
}
