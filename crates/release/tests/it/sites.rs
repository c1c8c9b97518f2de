//! Folders as sources, what is left out, damage, and trees of sites.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use pressroom_model::config::Source;
use pressroom_release::ReleaseError;
use pressroom_release::source::fingerprint;

use crate::{Room, build, names, overlay, write};

#[test]
fn the_same_code_is_the_same_release_and_made_once() {
    let room = Room::new();
    let (path, source) = room.source();
    let first = build(&room.releases, &source).expect("a release");
    let second = build(&room.releases, &source).expect("a release");
    assert!(second.was_there && !first.was_there && second.id == first.id);
    write(&path.join("index.php"), "<?php // changed");
    let third = build(&room.releases, &source).expect("a release");
    assert_ne!(third.id, first.id);
    assert_eq!(room.releases.list().expect("a list").len(), 2);
}

#[test]
fn a_changed_source_is_noticed_without_reading_it() {
    let room = Room::new();
    let (path, source) = room.source();
    let before = fingerprint(&source).expect("a fingerprint");
    assert_eq!(fingerprint(&source).expect("a fingerprint"), before);
    write(&path.join("wp-content/uploads/a.jpg"), "data is no code");
    assert_eq!(fingerprint(&source).expect("a fingerprint"), before);
    write(&path.join("index.php"), "<?php // other");
    assert_ne!(fingerprint(&source).expect("a fingerprint"), before);
}

#[test]
fn data_and_secrets_of_a_source_are_left_out_with_a_word() {
    let room = Room::new();
    let (path, source) = room.source();
    for file in [
        "wp-content/uploads/2026/a.jpg",
        ".git/config",
        ".htaccess",
        ".env",
        "wp-content/cache/x",
        "wp-config.php.bak",
    ] {
        write(&path.join(file), "secret");
    }
    write(&path.join("wp-config.php"), "<?php define('DB_PASSWORD', 'secret');");
    symlink("nowhere", path.join("dangling")).expect("a link");
    symlink("..", path.join("wp-content/plugins/circle")).expect("a link");
    let built = build(&room.releases, &source).expect("a release");
    let left: Vec<_> = built.left_out.iter().map(|l| l.path.as_str()).collect();
    for expected in [
        "wp-content/uploads",
        ".git",
        ".htaccess",
        ".env",
        "wp-content/cache",
        "wp-config.php",
        "wp-config.php.bak",
        "dangling",
    ] {
        assert!(left.contains(&expected), "{expected} in {left:?}");
    }
    let manifest = room.releases.manifest(&built.id).expect("a manifest");
    for path in manifest.files.keys() {
        let text = fs::read_to_string(room.releases.tree(&built.id).join(path)).expect("a file");
        assert!(!text.contains("secret"), "{path}");
    }
    assert!(manifest.files.contains_key("wp-content/mu-plugins/pressroom.php"));
}

#[test]
fn a_link_to_a_secret_is_refused_when_we_are_root() {
    let room = Room::new();
    let (path, source) = room.source();
    let secret = room.path("secret");
    write(&secret, "for root only");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
    symlink(&secret, path.join("readme.txt")).expect("a link");
    let is_root = fs::metadata(&secret).expect("it").uid() == 0;
    match build(&room.releases, &source) {
        Err(error) => {
            assert!(is_root && matches!(error, ReleaseError::LinkLeaves { .. }), "{error}");
        }
        Ok(_) => assert!(!is_root, "as an ordinary user we read only what that user may read"),
    }
}

#[test]
fn what_is_not_a_wordpress_says_what_is_missing() {
    let room = Room::new();
    let (path, _) = room.source();
    fs::remove_file(path.join("wp-load.php")).expect("removed");
    let error = build(&room.releases, &Source::Path(path)).expect_err("incomplete").to_string();
    assert!(error.contains("wp-load.php") && !error.contains("index.php"), "{error}");
    let error = build(&room.releases, &Source::Path(room.folder.path().to_owned()))
        .expect_err("nested")
        .to_string();
    assert!(error.contains("did you mean its folder `src`"), "{error}");
    let error =
        build(&room.releases, &Source::Path(room.path("none"))).expect_err("absent").to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn a_tree_without_its_manifest_is_made_anew() {
    let room = Room::new();
    let (_, source) = room.source();
    let built = build(&room.releases, &source).expect("a release");
    let tree = room.releases.tree(&built.id);
    // As if the process had died between the two renames, and another in the middle of copying.
    fs::remove_file(room.path(&format!("releases/{}.manifest", built.id))).expect("removed");
    fs::remove_file(tree.join("index.php")).expect("removed");
    write(&room.path("releases/.tmp-tree/half.php"), "half");
    assert!(room.releases.list().expect("a list").is_empty());
    assert!(matches!(room.releases.manifest(&built.id), Err(ReleaseError::Unknown(_))));
    let again = build(&room.releases, &source).expect("a release");
    assert!(again.id == built.id && !again.was_there && tree.join("index.php").exists());
    assert_eq!(
        names(&room.path("releases")),
        [".lock".to_owned(), built.id.to_string(), format!("{}.manifest", built.id)]
    );
}

#[test]
fn verify_finds_what_was_changed_removed_and_added() {
    let room = Room::new();
    let (_, source) = room.source();
    let built = build(&room.releases, &source).expect("a release");
    let tree = room.releases.tree(&built.id);
    assert_eq!(room.releases.verify(&built.id).expect("an answer"), []);
    fs::remove_file(tree.join("index.php")).expect("removed");
    write(&tree.join("index.php"), "<?php // evil!");
    fs::set_permissions(tree.join("index.php"), fs::Permissions::from_mode(0o444)).expect("a mode");
    fs::set_permissions(tree.join("wp-load.php"), fs::Permissions::from_mode(0o666))
        .expect("a mode");
    fs::remove_file(tree.join("wp-login.php")).expect("removed");
    write(&tree.join("wp-admin/shell.php"), "<?php");
    let mut faults: Vec<_> =
        room.releases.verify(&built.id).expect("an answer").into_iter().map(|f| f.path).collect();
    faults.sort();
    assert_eq!(faults, ["index.php", "wp-admin/shell.php", "wp-load.php", "wp-login.php"]);
}

#[test]
fn a_damaged_manifest_is_not_believed() {
    let room = Room::new();
    let (_, source) = room.source();
    let built = build(&room.releases, &source).expect("a release");
    let path = room.path(&format!("releases/{}.manifest", built.id));
    let text = fs::read_to_string(&path).expect("a manifest");
    fs::remove_file(&path).expect("removed");
    write(&path, &text.replace("444", "555"));
    assert!(matches!(room.releases.manifest(&built.id), Err(ReleaseError::BadManifest { .. })));
}

#[test]
fn a_site_gets_the_same_files_and_its_own_uploads() {
    let room = Room::new();
    let (_, source) = room.source();
    let built = build(&room.releases, &source).expect("a release");
    let site = room.path("sites/blog");
    fs::create_dir_all(site.join("uploads")).expect("a folder");
    let tree = room.releases.materialise(&built.id, &site).expect("a tree");
    assert_eq!(tree, site.join("releases").join(built.id.as_str()));
    let inode = |path: std::path::PathBuf| fs::metadata(path).expect("a file").ino();
    assert_eq!(
        inode(tree.join("index.php")),
        inode(room.releases.tree(&built.id).join("index.php"))
    );
    assert_eq!(
        fs::read_link(tree.join("wp-content/uploads")).expect("a link"),
        site.join("uploads")
    );
    assert_eq!(
        fs::read_link(tree.join("wp-content/cache")).expect("a link"),
        site.join("scratch").join(built.id.as_str()).join("wp-content/cache")
    );
    assert_eq!(room.releases.materialise(&built.id, &site).expect("again"), tree);
    assert_eq!(names(&site.join("releases")), [built.id.to_string()]);
    assert_eq!(room.releases.verify(&built.id).expect("an answer"), []);
}

#[test]
fn an_overlay_stands_in_the_place_of_the_source() {
    let room = Room::new();
    let (path, source) = room.source();
    write(&path.join("wp-content/object-cache.php"), "<?php // theirs");
    let built = build(&room.releases, &source).expect("a release");
    let text =
        fs::read_to_string(room.releases.tree(&built.id).join("wp-content/object-cache.php"))
            .expect("ours");
    assert!(text.contains("ours"));
    write(&path.join("wp-content/mu-plugins/pressroom.php/inner.php"), "<?php");
    let clash = room.releases.build(&source, &overlay(), &|_| ()).expect_err("a file and a folder");
    assert!(matches!(clash, ReleaseError::BadPath { .. }), "{clash}");
}
