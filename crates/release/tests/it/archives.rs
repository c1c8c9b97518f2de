//! Archives, good and hostile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use pressroom_model::config::Source;
use pressroom_release::ReleaseError;
use pressroom_release::archive::{Limits, unpack};
use sha2::{Digest, Sha256};

use crate::{Room, SMALL, build};

type Tar = tar::Builder<flate2::write::GzEncoder<fs::File>>;

fn tar_gz(path: &Path, fill: impl FnOnce(&mut Tar)) {
    let file = fs::File::create(path).expect("a file");
    let mut tar =
        tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    fill(&mut tar);
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("an archive");
}

/// An entry as a hostile archiver would write it: the name is not checked.
fn raw(tar: &mut Tar, name: &str, kind: tar::EntryType, link: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, bytes).expect("an entry");
}

fn small(tar: &mut Tar, folder: &str) {
    for (path, text) in SMALL {
        raw(tar, &format!("{folder}{path}"), tar::EntryType::Regular, "", text.as_bytes());
    }
}

fn digest(path: &Path) -> String {
    Sha256::digest(fs::read(path).expect("the archive"))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn source(path: PathBuf) -> Source {
    Source::Archive { sha256: digest(&path), path }
}

#[test]
fn tar_zip_and_folder_of_the_same_code_are_the_same_release() {
    let room = Room::new();
    let (_, folder) = room.source();
    let (tar, zip) = (room.path("wp.tar.gz"), room.path("wp.zip"));
    tar_gz(&tar, |tar| {
        raw(tar, "wordpress/", tar::EntryType::Directory, "", b"");
        small(tar, "wordpress/");
    });
    let mut writer = zip::ZipWriter::new(fs::File::create(&zip).expect("a file"));
    for (path, text) in SMALL {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(format!("wordpress/{path}"), options).expect("an entry");
        writer.write_all(text.as_bytes()).expect("bytes");
    }
    writer.finish().expect("an archive");

    let built = build(&room.releases, &folder).expect("a release");
    assert_eq!(built.wordpress, "6.2.3");
    for archive in [tar, zip] {
        let other = build(&room.releases, &source(archive)).expect("a release");
        assert!(other.id == built.id && other.was_there);
    }
}

#[test]
fn an_archive_with_another_digest_is_not_even_unpacked() {
    let room = Room::new();
    let path = room.path("wp.tar.gz");
    tar_gz(&path, |tar| small(tar, ""));
    let error = build(&room.releases, &Source::Archive { path, sha256: "00".repeat(32) })
        .expect_err("it is another");
    assert!(matches!(error, ReleaseError::WrongDigest { .. }), "{error}");
}

/// Builds from an archive with a whole WordPress and `more`; it must be refused for `why`, and nothing be left.
fn refused(more: impl FnOnce(&mut Tar), why: &str) {
    let room = Room::new();
    let path = room.path("wp.tar.gz");
    tar_gz(&path, |tar| {
        small(tar, "");
        more(tar);
    });
    let error = build(&room.releases, &source(path)).expect_err("it is hostile");
    assert!(matches!(error, ReleaseError::BadArchive { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(crate::names(&room.path("releases")), [".lock"]);
    assert_eq!(crate::names(room.folder.path()), ["releases", "wp.tar.gz"]);
}

#[test]
fn an_archive_cannot_write_outside() {
    use tar::EntryType::{Link, Regular, Symlink};
    refused(|tar| raw(tar, "../evil.php", Regular, "", b"x"), "leads out");
    refused(|tar| raw(tar, "/evil.php", Regular, "", b"x"), "leads out");
    refused(|tar| raw(tar, "wp-content/../../evil.php", Regular, "", b"x"), "leads out");
    refused(|tar| raw(tar, "evil", Symlink, "/etc/passwd", b""), "leads out");
    refused(|tar| raw(tar, "wp-content/evil", Symlink, "../../etc", b""), "leads out");
    refused(|tar| raw(tar, "evil", Link, "/etc/passwd", b""), "leads out");
    let through = |tar: &mut Tar| {
        raw(tar, "inner", Symlink, "wp-admin", b"");
        raw(tar, "inner/evil.php", Regular, "", b"x");
    };
    refused(through, "used as a folder");
    refused(|tar| raw(tar, "index.php", Regular, "", b"twice"), "twice");
    refused(|tar| raw(tar, "device", tar::EntryType::Char, "", b""), "neither a file");
}

#[test]
fn a_bomb_does_not_unpack() {
    let room = Room::new();
    let (path, into) = (room.path("bomb.tar.gz"), room.path("into"));
    tar_gz(&path, |tar| raw(tar, "zeros", tar::EntryType::Regular, "", &vec![0; 70 << 20]));
    fs::create_dir(&into).expect("a folder");
    let error = unpack(&path, &digest(&path), &into, Limits::default()).expect_err("a bomb");
    assert!(error.to_string().contains("far more"), "{error}");
    let few = Limits { entries: 3, ..Limits::default() };
    tar_gz(&path, |tar| small(tar, ""));
    let error = unpack(&path, &digest(&path), &room.path("releases"), few);
    assert!(error.is_err());
}

#[test]
fn links_inside_an_archive_are_followed() {
    let room = Room::new();
    let path = room.path("wp.tar.gz");
    tar_gz(&path, |tar| {
        small(tar, "");
        raw(tar, "wp-content/plugins/linked", tar::EntryType::Symlink, "hello", b"");
        raw(tar, "again.php", tar::EntryType::Link, "index.php", b"");
    });
    let built = build(&room.releases, &source(path)).expect("a release");
    let tree = room.releases.tree(&built.id);
    assert!(tree.join("wp-content/plugins/linked/hello.php").is_file());
    assert_eq!(
        fs::read(tree.join("again.php")).expect("it"),
        fs::read(tree.join("index.php")).expect("it")
    );
}

#[test]
fn what_is_no_archive_is_refused() {
    let room = Room::new();
    for (name, bytes) in [
        ("a.txt", b"some words".as_slice()),
        ("b.zip", b"PK\x03\x04 cut off"),
        ("c.gz", b"\x1f\x8b\x08\x00rubbish"),
        ("d", b""),
    ] {
        let path = room.path(name);
        fs::write(&path, bytes).expect("written");
        let error = build(&room.releases, &source(path)).expect_err("no archive");
        assert!(
            matches!(error, ReleaseError::BadArchive { .. } | ReleaseError::NotWordPress { .. }),
            "{error}"
        );
    }
}
