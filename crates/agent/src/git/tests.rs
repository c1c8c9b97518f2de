//! Histories with real git and real releases: what is committed, and what is left when somebody dies in between.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pressroom_model::config::Source;
use pressroom_release::overlay::Overlay;
use pressroom_release::wordpress;

use super::*;
use crate::facts::{Origin, Release};

struct Room {
    folder: tempfile::TempDir,
    work: Work,
    facts: SiteFacts,
    clock: u64,
}

impl Room {
    fn new() -> Option<Self> {
        if !repository::is_installed() {
            eprintln!("no claim: git is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work = Work {
            repository: Repository::at(folder.path().join("git/blog.git")),
            releases: Releases::at(folder.path().join("releases")),
            hook: "#!/bin/sh\nexit 1\n".to_owned(),
        };
        let room = Self { folder, work, facts: SiteFacts::default(), clock: 1_769_000_000_000 };
        for path in wordpress::missing(|_| false) {
            room.write(path, "<?php\n$wp_version = '6.1.9';\n");
        }
        Some(room)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Makes a release of the tree, which serves from now on.
    fn serve(&mut self, author: &str, message: &str) -> ReleaseId {
        let overlay = Overlay::new([
            ("wp-config.php", "<?php // ours"),
            ("wp-content/mu-plugins/pressroom.php", "<?php // ours"),
        ]);
        let overlay = overlay.expect("good paths");
        let built = self.work.releases.build(&Source::Path(self.tree()), &overlay, &|_| {});
        let id = built.expect("built").id;
        self.serves(&id, author, message);
        id
    }

    fn serves(&mut self, id: &ReleaseId, author: &str, message: &str) {
        self.clock += 1000;
        let origin = Origin { author: author.into(), message: message.into(), ..Origin::default() };
        let release = Release {
            id: id.clone(),
            setting: String::new(),
            ours: String::new(),
            origin,
            source: String::new(),
            wordpress: "6.1.9".into(),
            files: 0,
            bytes: 0,
            back_by: None,
        };
        self.facts.releases.retain(|kept| kept.release.id != *id);
        self.facts.releases.insert(
            0,
            Kept { release, served_ms: self.clock, first_ms: self.clock, own_bytes: None },
        );
    }

    fn catch_up(&self) {
        self.work.catch_up(&self.facts).expect("the history follows");
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = self.work.repository.command(arguments).output().expect("git runs");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {words}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn log(&self) -> Vec<String> {
        let log = self.git(&["log", "--format=%an %s", "main"]);
        log.lines().map(str::to_owned).collect()
    }

    /// That `main` has exactly the operator's files of the tree.
    fn agrees(&self) {
        let mut expected = BTreeSet::new();
        collect(&self.tree(), "", &mut expected);
        let main = self.work.repository.one("main").expect("a commit");
        let found: BTreeSet<String> =
            self.work.repository.paths(&main).expect("paths").into_iter().collect();
        assert_eq!(found, expected);
        for path in &found {
            let text = std::fs::read_to_string(self.tree().join(path)).expect("a file");
            assert_eq!(self.git(&["show", &format!("main:{path}")]), text.trim(), "{path}");
        }
    }
}

fn collect(folder: &Path, inside: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = format!("{inside}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => collect(&entry.path(), &format!("{path}/"), found),
            false => drop(found.insert(path)),
        }
    }
}

#[test]
fn every_release_is_a_commit_and_a_return_is_one_more() {
    let Some(mut room) = Room::new() else { return };
    room.write("wp-content/plugins/a b/\"x\".php", "<?php // odd name");
    let first = room.serve("ann", "the first");
    room.catch_up();
    room.agrees();
    room.write("wp-content/plugins/a.php", "<?php // a");
    std::fs::remove_dir_all(room.tree().join("wp-content/plugins/a b")).expect("removed");
    room.serve("bob", "a, and no odd name");
    // Nobody looked in between.
    room.write("wp-content/plugins/a.php", "<?php // b");
    room.serve("cleo", "b");
    room.catch_up();
    room.agrees();
    assert_eq!(room.log(), ["cleo b", "bob a, and no odd name", "ann the first"]);
    let before = room.git(&["rev-parse", "main"]);
    room.catch_up();
    assert_eq!(room.git(&["rev-parse", "main"]), before, "nothing is done twice");
    room.write("wp-content/plugins/eve.php", "<?php // by a user of WordPress");
    room.serve("Eve Example <eve@example.com>", "install `eve`");
    room.catch_up();
    assert_eq!(room.git(&["log", "-1", "--format=%an %ae", "main"]), "Eve Example eve@example.com");
    let before = room.git(&["rev-parse", "main"]);
    room.serves(&first, "ann", "the first");
    room.facts.releases[0].release.back_by = Some("dan".into());
    room.catch_up();
    assert_eq!(room.git(&["rev-parse", "main~1"]), before);
    assert_eq!(room.git(&["diff", "--stat", "main~4", "main"]), "");
    assert_eq!(room.log()[0], format!("dan Go back to release {}", &first.as_str()[..12]));
}

#[test]
fn whoever_dies_between_two_refs_leaves_nothing_wrong() {
    let Some(mut room) = Room::new() else { return };
    room.serve("ann", "one");
    room.catch_up();
    room.write("new.php", "<?php // 1");
    let second = room.serve("bob", "two");
    room.catch_up();
    let (before, after) = (room.git(&["rev-parse", "main~1"]), room.git(&["rev-parse", "main"]));
    // Died after the release's ref, before `main`.
    room.git(&["update-ref", "refs/heads/main", &before]);
    room.catch_up();
    room.agrees();
    // Died before the release's ref, or somebody lost it.
    room.git(&["update-ref", "-d", &format!("refs/pressroom/releases/{second}")]);
    room.git(&["update-ref", "refs/heads/main", &after]);
    room.catch_up();
    room.agrees();
    assert_eq!(room.git(&["rev-parse", "main"]), after, "the same tree is no second commit");
    // Died in the middle of a commit: a lock and half a pack are left.
    room.write("new.php", "<?php // 2");
    room.serve("cleo", "three");
    let lock = room.folder.path().join("git/blog.git/refs/heads/main.lock");
    std::fs::write(&lock, "").expect("written");
    assert!(room.work.catch_up(&room.facts).is_err(), "somebody may hold it");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::open(&lock).and_then(|file| file.set_modified(old)).expect("made old");
    room.catch_up();
    room.agrees();
    // The repository itself is gone: the kept releases make it anew.
    std::fs::remove_dir_all(room.folder.path().join("git")).expect("removed");
    room.catch_up();
    room.agrees();
    assert_eq!(room.log(), ["cleo three", "bob two", "ann one"]);
}

#[test]
fn a_pushed_commit_becomes_main_as_it_is_and_gits_own_files_stay() {
    let Some(mut room) = Room::new() else { return };
    room.serve("ann", "one");
    room.catch_up();
    let main = room.git(&["rev-parse", "main"]);
    // What a developer commits: a file, and one that only git knows.
    let clone = room.folder.path().join("clone");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(repository::GIT);
        command.args(["-c", "safe.directory=*", "-c", "user.name=Dora", "-c", "user.email=d@e.f"]);
        let output = command.args(arguments).current_dir(&clone).output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    std::fs::create_dir(&clone).expect("made");
    run(&["clone", "-q", &room.folder.path().join("git/blog.git").to_string_lossy(), "."]);
    std::fs::write(clone.join("new.php"), "<?php // pushed").expect("written");
    std::fs::write(clone.join(".gitignore"), "x").expect("written");
    run(&["add", "-A"]);
    run(&["commit", "-q", "-m", "by hand"]);
    // A tag goes by without us; the objects of a push are here before we are asked as well.
    run(&["push", "-q", "origin", "HEAD:refs/tags/pushed"]);
    let pushed = room.git(&["rev-parse", "pushed"]);
    // The agent died after the switch: the release names its commit.
    room.write("new.php", "<?php // pushed");
    room.serve("Dora", "by hand");
    room.facts.releases[0].release.origin.commit = Some(pushed.clone());
    room.catch_up();
    assert_eq!(room.git(&["rev-parse", "main"]), pushed);
    assert_eq!(room.git(&["rev-parse", "main~1"]), main);
    // Whoever pushes it again, on what they fetched before the end, is told that it is done.
    let push = |new: &str| {
        let update = push::Update::parse(repository::MAIN, &main, new).expect("an update");
        push::examine(&room.work.repository, &update, room.folder.path().join("incoming"))
    };
    assert!(matches!(push(&pushed), Ok(None)));
    assert!(matches!(push(&main), Err(push::Refusal::Moved)));
    // The next deploy does not know `.gitignore`, and leaves it.
    room.write("new.php", "<?php // deployed");
    room.serve("ann", "deployed");
    room.catch_up();
    assert_eq!(room.git(&["show", "main:.gitignore"]), "x");
    assert_eq!(room.git(&["show", "main:new.php"]), "<?php // deployed");
}

/// Says how long commits take; `PRESSROOM_TEST_FILES` says of how many files (500, where nothing is said).
#[test]
fn a_commit_costs_what_changed() {
    let Some(mut room) = Room::new() else { return };
    let files: usize =
        std::env::var("PRESSROOM_TEST_FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    for n in 0..files {
        let text = format!("<?php // {n}\n").repeat(400);
        room.write(&format!("wp-content/plugins/p{}/{n}.php", n % 50), &text);
    }
    room.serve("ann", "all of it");
    let start = Instant::now();
    room.catch_up();
    let first = start.elapsed();
    room.write("wp-content/plugins/p0/0.php", "<?php // changed");
    room.serve("ann", "one file");
    let start = Instant::now();
    room.catch_up();
    let one = start.elapsed();
    println!("{files} files: the first commit {first:?}, one changed file {one:?}");
    assert_eq!(room.git(&["diff", "--name-only", "main~1", "main"]), "wp-content/plugins/p0/0.php");
}
