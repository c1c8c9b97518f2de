//! Code that changed under the same name: a checkout, an upgraded package, a branch of a repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::house::{House, is_root, tree_with};

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
