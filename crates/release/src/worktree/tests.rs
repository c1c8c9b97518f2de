//! A copy in a folder of its own, written by somebody else, and put right.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::overlay::Overlay;
use pressroom_model::config::Source;

struct Bench {
    folder: tempfile::TempDir,
    releases: Releases,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let releases = Releases::at(folder.path().join("releases"));
        fs::create_dir(folder.path().join("copy")).expect("made");
        fs::create_dir(folder.path().join("uploads")).expect("made");
        Self { folder, releases }
    }

    fn release(&self, extra: &[(&str, &str)]) -> ReleaseId {
        let source = self.folder.path().join("source");
        let _none = fs::remove_dir_all(&source);
        for (path, text) in [
            ("wp-includes/version.php", "<?php\n$wp_version = '6.1';"),
            ("wp-settings.php", "<?php"),
            ("wp-load.php", "<?php"),
            ("wp-login.php", "<?php"),
            ("wp-includes/functions.php", "<?php"),
            ("wp-admin/admin.php", "<?php"),
            ("index.php", "<?php"),
            ("wp-content/index.php", "<?php"),
            ("wp-content/plugins/one/one.php", "<?php // one"),
            ("wp-content/plugins/single.php", "<?php // single"),
        ]
        .iter()
        .chain(extra)
        {
            let path = source.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        self.build(&source)
    }

    fn build(&self, source: &Path) -> ReleaseId {
        let overlay = Overlay::new(std::iter::empty::<(String, Vec<u8>)>()).expect("an overlay");
        let built = self.releases.build(&Source::Path(source.to_owned()), &overlay, &|_| ());
        built.expect("built").id
    }

    fn copy(&self) -> PathBuf {
        self.folder.path().join("copy")
    }

    fn renew(&self, copy: &mut Worktree, id: &ReleaseId, only: Option<&[Part]>) -> Vec<String> {
        let (root, uploads) = (self.copy(), self.folder.path().join("uploads"));
        let place = Place { root: &root, owner: None, uploads: &uploads };
        let mut mended = copy.renew(&self.releases, id, &place, only).expect("renewed");
        mended.sort();
        mended
    }
}

#[test]
fn a_copy_can_be_written_and_is_put_right_again() {
    let bench = Bench::new();
    let id = bench.release(&[]);
    let mut copy = Worktree::default();
    assert_eq!(bench.renew(&mut copy, &id, None).len(), 10);
    assert!(bench.renew(&mut copy, &id, None).is_empty(), "nothing to do");
    assert!(bench.renew(&mut Worktree::default(), &id, None).is_empty(), "nothing to do either");
    let root = bench.copy();
    assert_eq!(
        fs::read_link(root.join(UPLOADS)).expect("a link"),
        bench.folder.path().join("uploads")
    );
    fs::write(root.join("index.php"), "<?php evil();").expect("it can be written");
    fs::remove_dir_all(root.join("wp-content/plugins/one")).expect("removed");
    fs::create_dir_all(root.join("wp-content/upgrade/x")).expect("made");
    fs::write(root.join("wp-content/upgrade/x/y.php"), "x").expect("written");
    fs::write(root.join(".maintenance"), "x").expect("written");
    let mended = bench.renew(&mut copy, &id, None);
    let expected =
        [".maintenance", "index.php", "wp-content/plugins/one/one.php", "wp-content/upgrade"];
    assert_eq!(mended, expected);
    assert_eq!(fs::read_to_string(root.join("index.php")).expect("read"), "<?php");
    assert!(!root.join("wp-content/upgrade").exists());
}

#[test]
fn the_first_plugin_has_a_folder_to_come_into() {
    let bench = Bench::new();
    let id = bench.release(&[]);
    let (root, mut copy) = (bench.copy(), Worktree::default());
    bench.renew(&mut copy, &id, None);
    // The release has no theme, and no folder for one.
    fs::remove_dir(root.join("wp-content/themes")).expect("an empty folder");
    assert!(bench.renew(&mut copy, &id, None).is_empty());
    fs::remove_dir(root.join("wp-content/themes")).expect("made again");
}

#[test]
fn links_in_a_copy_lead_nowhere() {
    let bench = Bench::new();
    let id = bench.release(&[]);
    let mut copy = Worktree::default();
    bench.renew(&mut copy, &id, None);
    let (root, outside) = (bench.copy(), bench.folder.path().join("outside"));
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("one.php"), "theirs").expect("written");
    fs::remove_dir_all(root.join("wp-content/plugins/one")).expect("removed");
    symlink(&outside, root.join("wp-content/plugins/one")).expect("linked");
    fs::remove_file(root.join("index.php")).expect("removed");
    symlink(outside.join("one.php"), root.join("index.php")).expect("linked");
    bench.renew(&mut copy, &id, None);
    assert_eq!(fs::read_to_string(outside.join("one.php")).expect("still there"), "theirs");
    assert!(!root.join("index.php").is_symlink());
    assert!(root.join("wp-content/plugins/one/one.php").is_file());
}

#[test]
fn a_release_takes_only_the_parts_that_were_meant() {
    let bench = Bench::new();
    let id = bench.release(&[]);
    let mut copy = Worktree::default();
    bench.renew(&mut copy, &id, None);
    let root = bench.copy();
    fs::write(root.join("wp-content/plugins/one/one.php"), "<?php // two").expect("written");
    fs::write(root.join("wp-content/plugins/one/new.php"), "<?php").expect("written");
    fs::write(root.join("wp-settings.php"), "<?php evil();").expect("written");
    let parts = [Part::Path("wp-content/plugins/one".into())];
    let overlay = Overlay::new(std::iter::empty::<(String, Vec<u8>)>()).expect("an overlay");
    let built = bench.releases.build_edited(&id, &root, &parts, &overlay, &|_| ()).expect("built");
    let diff = bench.releases.diff(&id, &built.id).expect("both are there");
    assert_eq!(diff.added, ["wp-content/plugins/one/new.php"]);
    assert_eq!(diff.changed, ["wp-content/plugins/one/one.php"]);
    assert!(diff.removed.is_empty());
    assert_eq!(bench.renew(&mut copy, &built.id, None), ["wp-settings.php"]);

    fs::remove_dir_all(root.join("wp-content/plugins/one")).expect("removed");
    let gone =
        bench.releases.build_edited(&built.id, &root, &parts, &overlay, &|_| ()).expect("built");
    let diff = bench.releases.diff(&built.id, &gone.id).expect("both are there");
    assert_eq!(diff.removed.len(), 2);
    assert!(bench.renew(&mut copy, &built.id, Some(&[Part::Core])).is_empty());
    assert_eq!(bench.renew(&mut copy, &built.id, Some(&parts)).len(), 2);
}

#[test]
fn damage_in_a_release_does_not_become_part_of_the_next_one() {
    let bench = Bench::new();
    let id = bench.release(&[]);
    let mut copy = Worktree::default();
    bench.renew(&mut copy, &id, None);
    let damaged = bench.releases.tree(&id).join("wp-login.php");
    fs::remove_file(&damaged).expect("removed");
    fs::write(&damaged, "<?php evil();").expect("written");
    let root = bench.copy();
    fs::write(root.join("wp-content/plugins/single.php"), "<?php // two").expect("written");
    let parts = [Part::Path("wp-content/plugins/single.php".into())];
    let overlay = Overlay::new(std::iter::empty::<(String, Vec<u8>)>()).expect("an overlay");
    let built = bench.releases.build_edited(&id, &root, &parts, &overlay, &|_| ()).expect("built");
    assert_eq!(
        bench.releases.diff(&id, &built.id).expect("both are there").changed,
        ["wp-content/plugins/single.php"]
    );
    let faults = bench.releases.verify(&built.id).expect("verified");
    assert!(faults.iter().any(|fault| fault.path == "wp-login.php"), "{faults:?}");
}

#[test]
fn parts_are_whole_names() {
    let part = Part::Path("wp-content/plugins/one".into());
    for (path, expected) in [
        ("wp-content/plugins/one", true),
        ("wp-content/plugins/one/a/b.php", true),
        ("wp-content/plugins/one-more/a.php", false),
        ("wp-content/plugins", false),
    ] {
        assert_eq!(part.has(path), expected, "{path}");
    }
    assert!(Part::Core.has("wp-admin/x.php") && !Part::Core.has("wp-content/x.php"));
}

#[test]
fn a_copy_has_the_times_of_the_release_and_no_two_contents_have_the_same() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let mut copy = Worktree::default();
    let id = bench.release(&[]);
    bench.renew(&mut copy, &id, None);
    let path = "wp-content/plugins/single.php";
    let time = |folder: &Path| fs::metadata(folder.join(path)).expect("it is there").mtime();
    let before = time(&bench.copy());
    assert_eq!(before, time(&bench.releases.tree(&id)));
    // Within a second.
    let next = bench.release(&[(path, "<?php // another")]);
    bench.renew(&mut copy, &next, None);
    assert_ne!(time(&bench.copy()), before);
}
