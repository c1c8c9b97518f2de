//! The stream that `git fast-import` reads: one commit with the files that changed, and nothing else.

use std::io::{self, Write};

/// Whoever made a commit, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    name: String,
    email: String,
    at_ms: u64,
}

impl Person {
    /// Names are cleaned of what git has a meaning for; an empty one becomes `unknown`.
    pub(super) fn new(name: &str, email: &str, at_ms: u64) -> Self {
        Self { name: clean(name, "unknown"), email: clean(email, "unknown@localhost"), at_ms }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn email(&self) -> &str {
        &self.email
    }

    pub(super) fn seconds(&self) -> u64 {
        self.at_ms / 1000
    }
}

fn clean(text: &str, instead: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).collect();
    // Git takes these away at the ends, and a name of nothing else is none.
    let text = text.trim_matches(|c: char| c.is_whitespace() || ".,:;\"'\\".contains(c));
    if text.is_empty() { instead.to_owned() } else { text.to_owned() }
}

/// The beginning of a commit on `name`.
pub(super) fn head(
    out: &mut dyn Write,
    name: &str,
    parent: Option<&str>,
    (author, committer): (&Person, &Person),
    message: &str,
) -> io::Result<()> {
    // The name may stand for the commit of somebody who was killed.
    writeln!(out, "reset {name}\n\ncommit {name}")?;
    for (role, who) in [("author", author), ("committer", committer)] {
        writeln!(out, "{role} {} <{}> {} +0000", who.name, who.email, who.seconds())?;
    }
    writeln!(out, "data {}\n{message}", message.len())?;
    match parent {
        Some(parent) => writeln!(out, "from {parent}"),
        None => Ok(()),
    }
}

/// A file that is new or different.
pub(super) fn file(
    out: &mut dyn Write,
    path: &str,
    is_executable: bool,
    bytes: &[u8],
) -> io::Result<()> {
    let mode = if is_executable { "100755" } else { "100644" };
    writeln!(out, "M {mode} inline {}\ndata {}", quoted(path), bytes.len())?;
    out.write_all(bytes)?;
    writeln!(out)
}

/// A file that is gone.
pub(super) fn gone(out: &mut dyn Write, path: &str) -> io::Result<()> {
    writeln!(out, "D {}", quoted(path))
}

/// The end of the stream: without it git takes nothing of it.
pub(super) fn done(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "done")
}

fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_into_the_stream_by_his_name_or_a_path() {
        let evil = Person::new("Eve <e@x>\nfrom 0", "e@x>\ndone", 1_700_000_000_123);
        assert_eq!((evil.name(), evil.email()), ("Eve e@xfrom 0", "e@xdone"));
        assert_eq!(Person::new(" . ", "", 0).name(), "unknown");
        let mut out = Vec::new();
        head(&mut out, "refs/x", Some("abc"), (&evil, &evil), "a\nb").expect("written");
        file(&mut out, "a \"b\\c", true, b"x").expect("written");
        gone(&mut out, "d").expect("written");
        done(&mut out).expect("written");
        let expected = "reset refs/x\n\ncommit refs/x\n\
            author Eve e@xfrom 0 <e@xdone> 1700000000 +0000\n\
            committer Eve e@xfrom 0 <e@xdone> 1700000000 +0000\n\
            data 3\na\nb\nfrom abc\n\
            M 100755 inline \"a \\\"b\\\\c\"\ndata 1\nx\n\
            D \"d\"\ndone\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
