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
    let wanted = wanted.into();
    for network in [None, Some(Network::Subdomains), Some(Network::Subdirectories)] {
        assert_eq!(route(path, network, &Site), wanted, "{path} in {network:?}");
    }
}

/// In a network of sub-directories, and that elsewhere the path is a permalink.
fn check_blog(path: &str, wanted: impl Into<Target>) {
    assert_eq!(route(path, Some(Network::Subdirectories), &Site), wanted.into(), "{path}");
    for network in [None, Some(Network::Subdomains)] {
        assert_eq!(route(path, network, &Site), front(), "{path} in {network:?}");
    }
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
fn a_blogs_folder_is_left_out_before_wordpress_own_places() {
    check_blog("/two/wp-admin/", php("/wp-admin/index.php", "", true));
    check_blog("/two/wp-admin", Target::Redirect("/two/wp-admin/".into()));
    check_blog("/two/wp-login.php", php("/wp-login.php", "", true));
    check_blog("/Two_2-b/index.php", php("/index.php", "", true));
    check_blog("/two/wp-includes/version.php", php("/wp-includes/version.php", "", true));
    let script = Target::File(Tree::Root, "wp-includes/js/jquery.min.js".into());
    check_blog("/two/wp-includes/js/jquery.min.js", script);
    let style = Target::File(Tree::Root, "wp-admin/css/a b.css".into());
    check_blog("/two//wp-admin/css/a%20b.css", style);
    let picture = Target::File(Tree::Uploads, "2026/a.jpg".into());
    check_blog("/two/wp-content/uploads/2026/a.jpg", picture);
}

#[test]
fn what_is_not_wordpress_own_keeps_its_first_segment() {
    for path in [
        "/two/",
        "/two/2026/hello/",
        "/two/missing.php",
        "/two/index.php/2026/hello/",
        "/two/robots.txt",
        "/two/docs/index.html",
        "/two/wp-admin-notes/",
        "/tw.o/wp-login.php",
        "/tw%20o/wp-admin/",
        "/a/two/wp-admin/",
        "/a/two/wp-login.php",
        "/wp-admin/wp-admin/",
        "/wp-content/wp-content/uploads/2026/evil.php",
    ] {
        check(path, front());
    }
    // A folder of the release that happens to be called like a blog comes first.
    check("/docs/index.html", Target::File(Tree::Root, "docs/index.html".into()));
}

#[test]
fn a_blogs_folder_opens_nothing() {
    for path in [
        "wp-config.php",
        "WP-CONFIG.PHP",
        "wp-config.php/x",
        "wp-config.php.bak",
        ".htaccess",
        ".git/config",
        "%2egit/config",
        "wp-admin/.user.ini",
        "dump.sql",
        "wp-content/debug.log",
        "wp-content/X.PHP",
        "wp-content/wp-config.php",
        ".well-known/security.txt",
        ".pressroom/ready",
        "wp-content/uploads/2026/evil.php",
        "wp-content/uploads/2026/evil.php/x.jpg",
        "wp-content/uploads/2026/EVIL.PHP",
        "wp-content/uploads/2026/evil.phtml",
        "wp-content/uploads/2026/%65vil%2ephp",
        "wp-content/uploads/",
        "wp-content/uploads",
    ] {
        for blog in ["two", "wp", "two/.", "x/../two", "/two"] {
            let path = format!("/{blog}/{path}");
            let target = route(&path, Some(Network::Subdirectories), &Site);
            // A permalink is WordPress's own 404; nothing of the file is shown.
            assert!(target == Target::Denied || target == front(), "{path}: {target:?}");
        }
    }
    for path in ["/two/../../etc/passwd", "/two/%00", "/two/a%5c..%5cwp-admin/"] {
        check(path, Target::Malformed);
    }
    for path in ["/two/wp-config.php", "/two/wp-content/uploads/2026/evil.php"] {
        let target = route(path, Some(Network::Subdirectories), &Site);
        assert_eq!(target, Target::Denied, "{path}");
    }
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
