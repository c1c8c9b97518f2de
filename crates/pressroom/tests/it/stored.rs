//! What is stored and what is not, and that a plugin which misbehaves costs its own request only.

use std::time::Duration;

use crate::house::{House, PASSWORD, tree_with, wait_until};
use crate::visitor::Visitor;

/// A house whose site runs the probe plugin.
pub(crate) fn with_probe(php: &str) -> (House, Visitor) {
    let house = House::empty();
    let probe = include_str!("../probe/probe.php");
    let tree = tree_with(house.folder(), &[("wp-content/plugins/probe/probe.php", probe)]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\n{php}",
        tree.display()
    ));
    house.up();
    let mut editor = house.visitor("blog");
    editor.log_in("admin", PASSWORD);
    house.php(
        "blog",
        "require ABSPATH . 'wp-admin/includes/plugin.php'; $e = activate_plugin( 'probe/probe.php' ); \
         if ( is_wp_error( $e ) ) { fwrite( STDERR, $e->get_error_message() ); exit( 1 ); } \
         wp_mkdir_p( WP_CONTENT_DIR . '/uploads/probe' );",
    );
    let mut reader = house.visitor("blog");
    wait_until("the probe is in the page", Duration::from_secs(10), || {
        reader.get("/").body.contains("<!-- told:")
    });
    (house, editor)
}

enum Fate {
    Stored,
    NotStored,
    /// Either is right: it is printed, not judged.
    Shown,
}

use Fate::{NotStored, Shown, Stored};

/// Path, status of the first answer (0: any, or none), and whether a second visitor gets it from the cache.
const CASES: [(&str, u16, Fate); 30] = [
    ("/", 200, Stored),
    ("/?p=1", 0, Stored),
    ("/?page_id=2", 0, Stored),
    ("/?utm_source=x", 200, Stored),
    ("/?s=hello", 200, Shown),
    ("/?p=987654", 404, Stored),
    ("/no-such-page/", 404, Stored),
    ("/?feed=rss2", 200, Stored),
    ("/index.php?rest_route=/wp/v2/posts", 200, Shown),
    ("/?probe=redirect", 301, Stored),
    ("/?probe=redirect-302", 302, NotStored),
    ("/?probe=exit", 200, NotStored),
    ("/?probe=exit-late", 200, Shown),
    ("/?probe=exit-in-footer", 200, Shown),
    ("/?probe=flush", 200, Shown),
    ("/?probe=finish", 200, NotStored),
    ("/?probe=fatal", 500, NotStored),
    ("/?probe=fatal-in-footer", 0, NotStored),
    ("/?probe=flush-fatal", 0, NotStored),
    ("/?probe=finish-fatal", 0, NotStored),
    ("/?probe=session", 200, NotStored),
    ("/?probe=cookie", 200, NotStored),
    ("/?probe=no-cache", 200, NotStored),
    ("/?probe=do-not-cache", 200, NotStored),
    ("/?probe=header-private", 200, NotStored),
    ("/?preview=true&p=1", 0, NotStored),
    ("/?_wpnonce=abc", 200, NotStored),
    ("/wp-login.php", 200, NotStored),
    ("/wp-cron.php", 200, NotStored),
    ("/xmlrpc.php", 405, NotStored),
];

#[test]
fn only_whole_anonymous_pages_are_stored() {
    let (house, _) = with_probe("workers = 4");
    let mut wrong = Vec::new();
    println!("| request | status | stored | why |\n|---|--:|---|---|");
    for (path, status, fate) in CASES {
        // Each visitor is new: no cookie of an earlier answer decides.
        let ask = || house.visitor("blog").try_get(path);
        let first = ask().map_or(0, |answer| answer.status);
        let mut last = None;
        let mut is_stored = false;
        for _ in 0..4 {
            last = ask().ok();
            is_stored |=
                last.as_ref().is_some_and(|answer| ["hit", "stale"].contains(&answer.cache()));
            std::thread::sleep(Duration::from_millis(100)); // an affirmation may take a moment after the answer
        }
        let why = last
            .map_or("no whole answer".into(), |answer| answer.header("cache-status").to_owned());
        println!("| `{path}` | {first} | {} | {why} |", if is_stored { "yes" } else { "no" });
        let is_right = match fate {
            Stored => is_stored,
            NotStored => !is_stored,
            Shown => true,
        };
        if !is_right || (status != 0 && status != first) {
            wrong.push(format!("{path}: status {first}, stored: {is_stored}, {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(house.visitor("blog").get("/").status, 200);
}

#[test]
fn a_cookie_that_the_site_ever_set_bypasses_from_then_on() {
    let (house, _) = with_probe("workers = 2");
    let mut shopper = house.visitor("blog");
    wait_until("a hit", Duration::from_secs(10), || shopper.get("/").cache() == "hit");
    shopper.get("/?probe=cookie&value=apples");
    assert!(shopper.cookies.contains_key("probe_cart"));
    let page = shopper.get("/");
    assert_eq!(page.cache(), "bypass");
    assert!(page.body.contains("apples"), "their own cart: {}", page.body);
    let page = house.visitor("blog").get("/");
    assert!(page.cache() == "hit" && !page.body.contains("apples"), "{page:?}");
}

#[test]
fn a_plugin_that_dies_loops_floods_or_leaks_costs_that_request_only() {
    let (house, _) = with_probe("workers = 2\ntime = \"3 s\"\nmemory = \"64 MiB\"");
    for what in ["die", "loop", "memory", "endless"] {
        let mut victim = house.visitor("blog");
        victim.patience = Duration::from_secs(20);
        let path = format!("/?probe={what}");
        let fate = victim.try_get(&path).map(|answer| (answer.status, answer.body.len()));
        println!("{what}: {fate:?}");
        let mut other = house.visitor("blog");
        assert_eq!(other.get("/?_wpnonce=bypass").status, 200, "PHP works after {what}");
        // Another one gets no copy of what went wrong.
        let mut second = house.visitor("blog");
        second.patience = Duration::from_secs(20);
        if let Ok(answer) = second.try_get(&path) {
            assert!(
                !["hit", "stale"].contains(&answer.cache()),
                "{what} was stored: {}",
                answer.status
            );
        }
    }
    wait_until("health", Duration::from_secs(30), || house.is_healthy());
}
