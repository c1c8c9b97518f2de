//! Code that changed under the same name: a checkout, an upgraded package, a branch of a repository.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::house::{House, free_port, is_root, tree_with, wait_until};

const PLUGIN: &str = "wp-content/mu-plugins/probe.php";

#[test]
fn apply_serves_what_a_folder_holds_now() {
    let house = House::empty();
    let say = |word: &str| {
        format!("<?php add_action( 'wp_head', function () {{ echo '<!-- {word} -->'; }} );")
    };
    let tree = tree_with(house.folder(), &[(PLUGIN, &say("before"))]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}",
        tree.display()
    ));
    house.up();
    assert!(house.visitor("blog").get("/").body.contains("<!-- before -->"));

    let pids = house.pids();
    house.must(&["apply", "--yes"]);
    assert_eq!(house.pids(), pids, "nothing changed, so nothing is restarted");

    fs::write(tree.join(PLUGIN), say("after")).expect("the new code");
    house.must(&["apply", "--yes"]);
    let page = house.visitor("blog").get("/?fresh");
    assert!(page.body.contains("<!-- after -->"), "{}", page.body);
}

/// Runs a program of a developer's in a folder, which must succeed.
fn must(folder: &Path, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .env("COMPOSER_ALLOW_SUPERUSER", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Dora").env(format!("GIT_{role}_EMAIL"), "d@e.f");
    }
    let output = command.output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
}

fn commit(tree: &Path) {
    let trust = format!("safe.directory={}", tree.display());
    must(tree, "git", &["-c", &trust, "add", "-A", "-f"]);
    must(tree, "git", &["-c", &trust, "commit", "-q", "-m", "more"]);
}

#[test]
fn a_branch_of_a_repository_is_served_plain_or_as_a_bedrock_project() {
    let house = House::empty();
    let say = |word: &str| {
        format!("<?php add_action( 'wp_head', function () {{ echo '<!-- {word} -->'; }} );")
    };
    let tree = tree_with(house.folder(), &[(PLUGIN, &say("plain"))]);
    must(&tree, "git", &["init", "-q", "-b", "live"]);
    commit(&tree);
    if is_root() {
        // It is a developer's, not root's.
        must(&tree, "chown", &["-R", "nobody", "."]);
    }
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ git = \"{}\", ref = \"live\" }}",
        tree.display()
    ));
    house.up();
    assert!(house.visitor("blog").get("/").body.contains("<!-- plain -->"));

    // Another branch is not asked for; the tip of this one comes with `apply`.
    fs::write(tree.join(PLUGIN), say("second")).expect("written");
    commit(&tree);
    house.must(&["apply", "--yes"]);
    assert!(house.visitor("blog").get("/?second").body.contains("<!-- second -->"));

    // A Bedrock project has everything elsewhere, and lets composer bring a part of it.
    let core = house.folder().join("core");
    fs::create_dir_all(core.join("web/app/mu-plugins")).expect("made");
    for entry in fs::read_dir(&tree).expect("a folder").flatten() {
        if entry.file_name() != ".git" {
            fs::create_dir_all(core.join("web/wp")).expect("made");
            fs::rename(entry.path(), core.join("web/wp").join(entry.file_name())).expect("moved");
        }
    }
    fs::rename(core.join("web/wp/wp-content/themes"), core.join("web/app/themes")).expect("moved");
    fs::rename(core.join("web"), tree.join("web")).expect("moved");
    for (path, text) in [
        ("web/index.php", "<?php // not ours".to_owned()),
        ("web/wp-config.php", "<?php // not ours".to_owned()),
        ("web/robots.txt", "User-agent: *".to_owned()),
        ("web/app/mu-plugins/bedrock.php", say("bedrock")),
        ("parts/words/words.php", "<?php return 'by composer';".to_owned()),
        ("parts/words/composer.json", r#"{"name": "acme/words", "version": "1.0.0"}"#.to_owned()),
        (
            "composer.json",
            r#"{"require": {"acme/words": "1.0.0"}, "config": {"vendor-dir": "web/app/lib"},
                "repositories": [{"type": "path", "url": "parts/words", "options": {"symlink": false}}, {"packagist.org": false}]}"#
                .to_owned(),
        ),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    let has_composer = Path::new("/usr/bin/composer").exists();
    if has_composer {
        must(&tree, "composer", &["update", "--no-install", "--no-interaction", "-q"]);
    }
    commit(&tree);
    house.must(&["deploy", "blog"]);
    let mut visitor = house.visitor("blog");
    assert!(visitor.get("/?third").body.contains("<!-- bedrock -->"));
    assert_eq!(visitor.get("/robots.txt").body, "User-agent: *");
    let brought = house.tree("blog").join("wp-content/lib/acme/words/words.php");
    assert_eq!(brought.is_file(), has_composer, "{}", brought.display());
    assert!(!house.data.join("build/blog").exists(), "nothing is left of the checkout");

    // A repository that does not answer leaves the site as it is.
    fs::rename(&tree, house.folder().join("away")).expect("moved");
    let output = house.run(&["deploy", "blog"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("cannot be fetched") && words.contains("still serves"), "{words}");
    assert!(visitor.get("/?fourth").body.contains("<!-- bedrock -->"));
}

/// A mirror of wordpress.org: PHP's own server over a folder.
struct Mirror {
    folder: PathBuf,
    server: Child,
}

impl Mirror {
    fn open(folder: PathBuf, port: u16) -> Self {
        fs::create_dir_all(&folder).expect("made");
        // PHP's server would look for a file where a folder has a dot in its name.
        let router = folder.join("router.php");
        let code = "<?php $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH); if ('/core/checksums/1.0/' !== $path) return false; readfile(__DIR__ . '/list.json');";
        fs::write(&router, code).expect("written");
        let mut php = Command::new("php");
        php.arg("-S").arg(format!("127.0.0.1:{port}")).arg("-t").arg(&folder).arg(&router);
        php.stdout(Stdio::null()).stderr(Stdio::null());
        let server = php.spawn().expect("PHP runs");
        wait_until("the mirror to listen", Duration::from_secs(10), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { folder, server }
    }

    /// Publishes a tree as a version, with its digests.
    fn publish(&self, tree: &Path, version: &str) -> PathBuf {
        let archive = self.folder.join(format!("wordpress-{version}.tar.gz"));
        let (parent, name) = (tree.parent().expect("one"), tree.file_name().expect("a name"));
        let (archive_text, name) = (archive.to_string_lossy(), name.to_string_lossy());
        must(parent, "tar", &["--transform", "s,^tree,wordpress,", "-czf", &archive_text, &name]);
        let digest = "sha1sum $0 | cut -d' ' -f1 > $0.sha1";
        must(parent, "sh", &["-c", digest, &archive_text]);
        archive
    }

    /// Publishes the digests of all files, of whatever version is asked for.
    fn list(&self, tree: &Path) {
        let output = Command::new("sh")
            .args(["-c", "find . -type f -exec md5sum {} +"])
            .current_dir(tree)
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let entry = |line: &str| {
            let (digest, path) = line.split_once("  ./")?;
            Some((path.to_owned(), digest.into()))
        };
        let list: serde_json::Map<_, _> = text.lines().filter_map(entry).collect();
        let json = serde_json::json!({ "checksums": list }).to_string();
        fs::write(self.folder.join("list.json"), json).expect("written");
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _gone = self.server.kill();
        let _reaped = self.server.wait();
    }
}

#[test]
fn a_published_version_is_believed_by_its_digests_and_the_network_is_needed_once() {
    let house = House::empty();
    let port = free_port();
    let tree = tree_with(house.folder(), &[]);
    let site = |wordpress: &str| {
        format!(
            "[wordpress]\nmirror = \"http://127.0.0.1:{port}/\"\n[[site]]\nname = \"blog\"\nwordpress = {{ {wordpress} }}"
        )
    };
    house.configure(&site(&format!("path = \"{}\"", tree.display())));
    house.up();
    let deploy = |version: &str| {
        let output = house.run(&["deploy", "blog", &format!("wordpress:{version}")]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };

    // Nobody answers: what, where, what still works, what to do.
    let (status, words) = deploy("6.1");
    assert_eq!(status, Some(1), "{words}");
    for part in
        ["127.0.0.1", "curl: (7)", "still serves release", "source = \"debian\"", "`mirror`"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
    let (status, words) = deploy("latest");
    assert_eq!((status, words.contains("write a version")), (Some(1), true), "{words}");

    // A version that is published, with its digests, and one that is not.
    let mirror = Mirror::open(house.folder().join("mirror"), port);
    fs::write(tree.join("published.txt"), "published").expect("written");
    mirror.publish(&tree, "6.1");
    mirror.list(&tree);
    assert_eq!(deploy("6.1").0, Some(0), "{}", deploy("6.1").1);
    let mut visitor = house.visitor("blog");
    assert_eq!(visitor.get("/published.txt").body, "published");
    let (status, words) = deploy("6.0");
    assert_eq!((status, words.contains("404")), (Some(1), true), "{words}");

    // One that was changed on its way, and one whose files are not the published ones, whatever its own digest says.
    fs::write(tree.join("published.txt"), "changed").expect("written");
    let archive = mirror.publish(&tree, "6.2");
    let (status, words) = deploy("6.2");
    assert!(words.contains("`published.txt` in") && words.contains("is not the file"), "{words}");
    assert_eq!(status, Some(1));
    fs::write(tree.join("published.txt"), "published").expect("written");
    fs::write(tree.join("planted.php"), "<?php").expect("written");
    mirror.publish(&tree, "6.2");
    let (status, words) = deploy("6.2");
    assert!(words.contains("`planted.php` in") && words.contains("not among"), "{words}");
    assert_eq!(status, Some(1));
    fs::write(archive.with_extension("gz.sha1"), "0".repeat(40)).expect("written");
    let (status, words) = deploy("6.2");
    assert!(words.contains("has the SHA-1 digest") && words.contains("still serves"), "{words}");
    assert_eq!(status, Some(1));
    assert_eq!(visitor.get("/published.txt").body, "published");
    assert_eq!(visitor.get("/planted.php").status, 404);

    // What was believed once needs no network any more.
    drop(mirror);
    house.configure(&site("version = \"6.1\""));
    house.must(&["apply", "--yes"]);
    let list = house.must(&["release", "show", "blog"]);
    assert!(list.contains("WordPress 6.1 as published"), "{list}");
    assert_eq!(visitor.get("/published.txt?again").body, "published");
}
