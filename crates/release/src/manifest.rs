//! What a release consists of: every file's mode, size and BLAKE3 digest, sorted by path.
//!
//! The text form is canonical: same files, same bytes. Its digest names the release.
//!
//! ```text
//! pressroom-release 1
//! wordpress 6.1.9
//! 444 405 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b index.php
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pressroom_model::id::ReleaseId;
use pressroom_model::writes::SCRATCH;

/// First line of the text form.
const HEAD: &str = "pressroom-release 1";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Whether the source may run it.
    pub is_executable: bool,
    /// Its bytes.
    pub size: u64,
    /// Their digest.
    pub digest: blake3::Hash,
}

/// By digest: an order for maps and sets, without a meaning.
impl Ord for File {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |file: &Self| (*file.digest.as_bytes(), file.size, file.is_executable);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for File {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl File {
    /// Its permissions in a release: nobody writes.
    pub fn mode(&self) -> u32 {
        mode(self.is_executable)
    }

    /// What the canonical text has before its path: the same for the same file, wherever it is.
    pub(crate) fn head(&self) -> String {
        format!("{:o} {} {}", self.mode(), self.size, self.digest.to_hex())
    }
}

/// A line of the canonical text as [`File::head`] and the path.
pub(crate) fn split(line: &str) -> Option<(&str, &str)> {
    let (at, _) = line.match_indices(' ').nth(2)?;
    Some((&line[..at], &line[at + 1..]))
}

/// The name of the release that has this canonical text.
pub(crate) fn id_of(text: &str) -> ReleaseId {
    let digest = blake3::hash(text.as_bytes()).to_hex();
    digest[..32].parse().expect("32 hexadecimal digits are a release id")
}

pub(crate) fn mode(is_executable: bool) -> u32 {
    if is_executable { 0o555 } else { 0o444 }
}

/// All files of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// WordPress's version.
    pub wordpress: String,
    /// By path, with `/` between names.
    pub files: BTreeMap<String, File>,
}

impl Manifest {
    /// The canonical text.
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\nwordpress {}\n", self.wordpress);
        for (path, file) in &self.files {
            let _infallible = writeln!(text, "{} {path}", file.head());
        }
        text
    }

    /// The release's name.
    pub fn id(&self) -> ReleaseId {
        id_of(&self.text())
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// The folders that plugins may keep for themselves beside it: those that hold no code of it.
    pub fn scratch(&self) -> impl Iterator<Item = &'static str> {
        let has = |folder: &str| {
            let mut from = self.files.range(folder.to_owned()..).map(|(path, _)| path);
            from.any(|path| path == folder || path.starts_with(&format!("{folder}/")))
        };
        SCRATCH.iter().map(|scratch| scratch.path).filter(move |folder| !has(folder))
    }

    /// Reads the canonical text; what is wrong otherwise.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(format!("it does not begin with `{HEAD}`"));
        }
        let wordpress = lines
            .next()
            .and_then(|line| line.strip_prefix("wordpress "))
            .ok_or("it names no version")?;
        let mut files = BTreeMap::new();
        for line in lines {
            let (path, file) =
                parse_line(line).ok_or_else(|| format!("cannot read the line `{line}`"))?;
            files.insert(path, file);
        }
        Ok(Self { wordpress: wordpress.to_owned(), files })
    }
}

fn parse_line(line: &str) -> Option<(String, File)> {
    let mut words = line.splitn(4, ' ');
    let is_executable = match words.next()? {
        "444" => false,
        "555" => true,
        _ => return None,
    };
    let size = words.next()?.parse().ok()?;
    let digest = blake3::Hash::from_hex(words.next()?).ok()?;
    let path = words.next()?;
    check_path(path).ok()?;
    Some((path.to_owned(), File { is_executable, size, digest }))
}

/// Paths are relative, of plain names, and fit on a line.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > 1024 {
        return Err("a path has between 1 and 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return Err("a path has no control characters");
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err("a path is relative and has no `.`, `..` or empty names");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let file = |text: &str, is_executable| File {
            is_executable,
            size: text.len() as u64,
            digest: blake3::hash(text.as_bytes()),
        };
        let files = [
            ("b with space.php".to_owned(), file("b", false)),
            ("a/x".to_owned(), file("a", true)),
        ];
        Manifest { wordpress: "6.1.9".into(), files: files.into() }
    }

    #[test]
    fn the_text_comes_back_and_names_the_release() {
        let manifest = sample();
        let read = Manifest::parse(&manifest.text()).expect("it reads its own text");
        assert_eq!(read, manifest);
        assert_eq!(read.id(), manifest.id());
        assert!(
            manifest
                .text()
                .lines()
                .nth(2)
                .is_some_and(|line| line.starts_with("555 1 ") && line.ends_with(" a/x"))
        );
    }

    #[test]
    fn any_difference_is_another_release() {
        let mut other = sample();
        other.files.get_mut("a/x").expect("it is there").is_executable = false;
        assert_ne!(other.id(), sample().id());
        let mut other = sample();
        other.wordpress = "6.2".into();
        assert_ne!(other.id(), sample().id());
    }

    #[test]
    fn a_manifest_that_leads_out_is_not_read() {
        for path in ["../x", "/etc/passwd", "a//b", "a/./b", "a/../../b", ""] {
            let text = sample().text().replace("a/x", path);
            assert!(Manifest::parse(&text).is_err(), "{path}");
        }
        assert!(Manifest::parse("").is_err());
    }
}
