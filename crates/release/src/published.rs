//! Archives of WordPress as wordpress.org publishes them, against the digests that are published for them.
//!
//! Two digests are published: SHA-1 of the archive and MD5 of each file. Neither withstands somebody who may choose both files
//! that are to have the same one; they tell what was cut off or changed on a mirror from what is not. Where both come from is
//! vouched for by TLS. What was believed once is known by its SHA-256 from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use md5::Md5;
use sha1::Sha1;
use sha2::Digest;

use crate::{ReleaseError, archive, failed, source};

/// The digests of all files of a version, by path.
pub type Checksums = BTreeMap<String, String>;

/// Reads the list as `core/checksums/1.0/` answers it: `{"checksums": {"index.php": "…"}}`; `None`: there is none.
pub fn checksums(json: &[u8]) -> Option<Checksums> {
    let answer: serde_json::Value = serde_json::from_slice(json).ok()?;
    let list = answer.get("checksums")?.as_object()?;
    let list = list.iter().filter_map(|(path, md5)| Some((path.clone(), md5.as_str()?.to_owned())));
    Some(list.collect()).filter(|list: &Checksums| !list.is_empty())
}

/// The digest in a file like `wordpress-6.5.2.tar.gz.sha1`: 40 hexadecimal digits, perhaps with a name behind them.
pub fn sha1(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    let is_digest = word.len() == 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| word.to_ascii_lowercase())
}

/// Believes an archive by its published digests; its SHA-256. It is unpacked below `scratch` meanwhile, an empty folder.
pub fn believe(
    path: &Path,
    sha1: &str,
    checksums: Option<&Checksums>,
    scratch: &Path,
) -> Result<String, ReleaseError> {
    let found = digest::<Sha1>(path)?;
    if found != sha1 {
        let expected = sha1.to_owned();
        return Err(ReleaseError::NotPublished { path: path.to_owned(), expected, found });
    }
    let sha256 = archive::digest(path)?;
    let inner = archive::unpack(path, &sha256, scratch, archive::Limits::default())?;
    if let Some(checksums) = checksums {
        files(path, &inner, checksums)?;
    }
    Ok(sha256)
}

/// Every file that is published is there as it is published, and beside `wp-content` there is no other.
fn files(archive: &Path, inner: &Path, checksums: &Checksums) -> Result<(), ReleaseError> {
    let foreign = |file: &str, why| ReleaseError::ForeignFile {
        path: archive.to_owned(),
        file: file.to_owned(),
        why,
    };
    let tree = source::folder(inner)?;
    let known: BTreeSet<&String> = checksums.keys().collect();
    for (path, md5) in checksums {
        // Files that are never code are not in the tree, and never in a release.
        let Some(found) = tree.files.get(path) else {
            match source::not_code(path) {
                Some(_) => continue,
                None => return Err(foreign(path, "is missing, and is published")),
            }
        };
        let from: &PathBuf = &found.from;
        if !digest::<Md5>(from)?.eq_ignore_ascii_case(md5) {
            return Err(foreign(path, "is not the file that is published"));
        }
    }
    let mut others = tree.files.keys().filter(|path| !known.contains(path));
    match others.find(|path| !path.starts_with("wp-content/")) {
        Some(path) => Err(foreign(path, "is not among the files that are published")),
        None => Ok(()),
    }
}

fn digest<D: Digest>(path: &Path) -> Result<String, ReleaseError> {
    let mut file = File::open(path).map_err(failed("cannot read", path))?;
    let (mut hasher, mut buffer) = (D::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).map_err(failed("cannot read", path))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_digests_are_read_as_they_are_published() {
        let list = checksums(br#"{"checksums":{"index.php":"aa","n":3}}"#).expect("a list");
        assert_eq!(list, BTreeMap::from([("index.php".to_owned(), "aa".to_owned())]));
        for none in [&br#"{"checksums":false}"#[..], b"{}", b"<html>", br#"{"checksums":{}}"#] {
            assert_eq!(checksums(none), None);
        }
        let digits = "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709";
        assert_eq!(sha1(&format!("{digits}  x.tar.gz\n")), Some(digits.to_ascii_lowercase()));
        assert_eq!(sha1("<html>"), None);
        assert_eq!(sha1(""), None);
    }
}
