//! Requests and where they go: hosts, paths, WordPress's own places, and what is never served.

use super::*;

struct Site;

impl Probe for Site {
    fn kind(&self, tree: Tree, path: &str) -> Kind {
        let (files, folders): (&[&str], &[&str]) = match tree {
            Tree::Root => (
                &[
                    "index.php",
                    "wp-login.php",
                    "wp-config.php",
                    "wp-config.php.bak",
                    "robots.txt",
                    "dump.sql",
                    "wp-admin/index.php",
                    "wp-admin/css/a b.css",
                    "wp-includes/version.php",
                    "wp-includes/js/jquery.min.js",
                    "wp-content/index.php",
                    "wp-content/debug.log",
                    "wp-content/X.PHP",
                    "docs/index.html",
                    ".htaccess",
                    ".well-known/security.txt",
                ],
                &[
                    "",
                    "wp-admin",
                    "wp-admin/css",
                    "wp-includes",
                    "wp-content",
                    "docs",
                    ".well-known",
                ],
            ),
            Tree::Uploads => (&["2026/a.jpg", "2026/evil.php", "evil.php.jpg"], &["", "2026"]),
        };
        if files.contains(&path) {
            Kind::File
        } else if folders.contains(&path) {
            Kind::Directory
        } else {
            Kind::Missing
        }
    }
}

fn php(script: &str, path_info: &str, direct: bool) -> Target {
    Target::Php { script: script.to_owned(), path_info: path_info.to_owned(), direct }
}

fn front() -> Target {
    php("/index.php", "", false)
}

fn check(path: &str, wanted: impl Into<Target>) {
    assert_eq!(route(path, &Site), wanted.into(), "{path}");
}

#[test]
fn permalinks_go_to_the_front_controller() {
    for path in [
        "/",
        "/2026/hello/",
        "/caf%C3%A9/",
        "/feed/",
        "/missing.css",
        "/wp-includes/",
        "/missing.php",
        "//",
        "/caf%e9/",
    ] {
        check(path, front());
    }
}

#[test]
fn existing_scripts_run_with_their_path_info() {
    check("/index.php", php("/index.php", "", true));
    check("/index.php/2020/post", php("/index.php", "/2020/post", true));
    check("/index.php/2020/post/", php("/index.php", "/2020/post/", true));
    check("/wp-login.php", php("/wp-login.php", "", true));
    check("/wp-includes/version.php", php("/wp-includes/version.php", "", true));
    check("/wp-admin/", php("/wp-admin/index.php", "", true));
    check("/./wp-admin/../wp-login.php", php("/wp-login.php", "", true));
}

#[test]
fn files_are_served_from_their_tree() {
    check("/robots.txt", Target::File(Tree::Root, "robots.txt".into()));
    check("/wp-admin/css/a%20b.css", Target::File(Tree::Root, "wp-admin/css/a b.css".into()));
    check("/wp-content/uploads/2026/a.jpg", Target::File(Tree::Uploads, "2026/a.jpg".into()));
    check("/wp-content//uploads/2026/a.jpg", Target::File(Tree::Uploads, "2026/a.jpg".into()));
    check("/wp-content/uploads/evil.php.jpg", Target::File(Tree::Uploads, "evil.php.jpg".into()));
    check("/docs/", Target::File(Tree::Root, "docs/index.html".into()));
    check("/.well-known/security.txt", Target::File(Tree::Root, ".well-known/security.txt".into()));
}

#[test]
fn a_folder_without_its_slash_is_redirected() {
    check("/wp-admin", Target::Redirect("/wp-admin/".into()));
    check("/docs", Target::Redirect("/docs/".into()));
}

#[test]
fn php_in_uploads_is_never_run_or_shown() {
    for path in [
        "/wp-content/uploads/2026/evil.php",
        "/wp-content/uploads/2026/evil.php/x.jpg",
        "/wp-content/uploads/2026/EVIL.PHP",
        "/wp-content/uploads/2026/evil.phtml",
        "/wp-content/uploads/2026/evil.php7",
        "/wp-content/uploads/../uploads/2026/evil.php",
        "/wp-content/uploads/2026/%65vil%2ephp",
        "/wp-content/uploads/",
        "/wp-content/uploads",
    ] {
        check(path, Target::Denied);
    }
}

#[test]
fn secrets_and_dotfiles_are_denied() {
    for path in [
        "/wp-config.php",
        "/WP-CONFIG.PHP",
        "/wp-config.php/x",
        "/wp-config.php.bak",
        "/.htaccess",
        "/.git/config",
        "/wp-admin/.user.ini",
        "/dump.sql",
        "/wp-content/debug.log",
        "/wp-content/X.PHP",
        "/.well-known/.secret",
        "/%2egit/config",
    ] {
        check(path, Target::Denied);
    }
}

#[test]
fn a_path_cannot_leave_the_site() {
    for path in [
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/a/..%2f../etc",
        "/a%00b",
        "/a%5c..%5cb",
        "/%zz",
        "/%f",
        "*",
        "",
    ] {
        check(path, Target::Malformed);
    }
}

#[test]
fn the_edge_has_two_addresses_of_its_own() {
    check("/heartbeat.html", Target::Heartbeat);
    check("/.pressroom/ready", Target::Ready);
    check("/.pressroom/other", Target::Denied);
}

#[test]
fn only_names_with_a_dot_look_like_files() {
    for (path, wanted) in [
        ("/", false),
        ("/a/b/", false),
        ("/a.css", true),
        ("/x/y.jpg", true),
        ("/wp-login.php", false),
        ("/v1.2/x", false),
    ] {
        assert_eq!(looks_like_file(path), wanted, "{path}");
    }
}
