//! Hundreds of visitors, each with marks of their own in everything a browser sends: no mark is ever in another's answer.
//!
//! The probe plugin prints whatever PHP was told about the visitor, so one wrong byte in a stored page shows.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::house::{House, PASSWORD, wait_until};
use crate::stored::with_probe;
use crate::visitor::{Answer, Visitor};

/// Visitors; each asks every page.
const VISITORS: usize = 300;
/// Visitors at a time.
const AT_ONCE: usize = 6;
/// Different only in what is not part of the key, or not in the cache at all.
const PAGES: [&str; 7] =
    ["/", "/?p=1", "/?page_id=2", "/?feed=rss2", "/no-such-page/", "/?cat=1", "/?author=1"];

/// Everything that only one visitor knows has this in front.
const MARK: &str = "mark";

#[test]
fn no_mark_of_a_visitor_is_ever_in_anothers_answer() {
    let (house, _) = with_probe("workers = 4");
    let users = customers(&house, 12);
    let mut leaks = Vec::new();
    let mut hits = 0;
    for batch in (0..VISITORS).collect::<Vec<_>>().chunks(AT_ONCE * 10) {
        // Pages are purged now and then, so that marked visitors are the ones whose request renders them.
        house.php(
            "blog",
            "wp_update_post( array( 'ID' => 1, 'post_title' => 'Title ' . wp_rand() ) );",
        );
        let threads: Vec<_> = batch
            .chunks(batch.len().div_ceil(AT_ONCE))
            .map(|numbers| {
                let visitors: Vec<_> =
                    numbers.iter().map(|number| marked(&house, &users, *number)).collect();
                std::thread::spawn(move || {
                    visitors.into_iter().map(|(number, who)| visit(number, who)).collect::<Vec<_>>()
                })
            })
            .collect();
        for result in
            threads.into_iter().flat_map(|thread| thread.join().expect("visitors do not panic"))
        {
            leaks.extend(result.0);
            hits += result.1;
        }
    }
    println!("{VISITORS} visitors, {} answers from the cache", hits);
    assert!(
        leaks.is_empty(),
        "{} leaks, the first: {:#?}",
        leaks.len(),
        &leaks[..leaks.len().min(5)]
    );
    assert!(hits > VISITORS * 2, "only {hits} answers came from the cache: the test proves little");
}

/// People with an account and their marks in their names, logged in.
fn customers(house: &House, count: usize) -> Vec<Visitor> {
    house.php(
        "blog",
        &format!(
            "for ( $i = 0; $i < {count}; $i++ ) {{ wp_insert_user( array( 'user_login' => \"customer$i\", \
             'user_pass' => '{PASSWORD}', 'user_email' => \"customer$i@example.org\", 'role' => 'subscriber', \
             'display_name' => '{MARK}-' . $i . '-name' ) ); }}"
        ),
    );
    let log_in = |number| {
        let mut visitor = house.visitor("blog");
        visitor.log_in(&format!("customer{number}"), PASSWORD);
        visitor
    };
    (0..count).map(log_in).collect()
}

/// The visitor with this number: the first ones are customers, the others are anonymous with one kind of mark each.
fn marked(house: &House, users: &[Visitor], number: usize) -> (usize, Visitor) {
    let mut visitor = users.get(number).cloned().unwrap_or_else(|| house.visitor("blog"));
    let mark = |what: &str| format!("{MARK}-{number}-{what}");
    let mut header = |name: &str, value: String| visitor.headers.push((name.to_owned(), value));
    header("User-Agent", mark("agent"));
    header("Accept-Language", mark("language"));
    header("Referer", mark("referer"));
    header("X-Forwarded-For", format!("10.9.{}.{}", number / 250, number % 250));
    header("X-Forwarded-Host", mark("forwarded-host"));
    header("X-Original-URL", mark("original-url"));
    header("Forwarded", format!("for={};host={}", mark("forwarded"), mark("forwarded")));
    header("X-Custom", mark("custom"));
    header("Proxy", mark("proxy"));
    match number % 6 {
        0 => header("Authorization", format!("Bearer {}", mark("authorization"))),
        1 => drop(visitor.cookies.insert("woocommerce_cart_hash".into(), mark("cart"))),
        2 => drop(visitor.cookies.insert("_ga".into(), mark("analytics"))),
        3 => drop(visitor.cookies.insert("comment_author_0123456789".into(), mark("author"))),
        4 => drop(visitor.cookies.insert("unknown_plugin_cookie".into(), mark("cookie"))),
        _ => {}
    }
    (number, visitor)
}

/// Asks all pages; answers the marks of others that were seen, and how many answers came from the cache.
fn visit(number: usize, mut visitor: Visitor) -> (Vec<String>, usize) {
    let mut leaks = Vec::new();
    let mut hits = 0;
    for page in PAGES {
        for path in [
            page.to_owned(),
            with_parameter(page, &format!("utm_campaign={MARK}-{number}-campaign")),
        ] {
            let Ok(answer) = visitor.try_get(&path) else { continue };
            let is_hit = ["hit", "stale"].contains(&answer.cache());
            hits += usize::from(is_hit);
            for seen in marks(&answer) {
                // Nothing of anybody is in a stored page, not even of the one who asked for it first.
                if is_hit || seen.0 != number {
                    leaks.push(format!(
                        "visitor {number}, {path}, {}: saw {}",
                        answer.cache(),
                        seen.1
                    ));
                }
            }
        }
    }
    (leaks, hits)
}

fn with_parameter(page: &str, parameter: &str) -> String {
    format!("{page}{}{parameter}", if page.contains('?') { '&' } else { '?' })
}

/// Every mark in an answer: its visitor's number and its text.
fn marks(answer: &Answer) -> BTreeSet<(usize, String)> {
    let headers: Vec<_> = answer.headers.iter().map(|(_, value)| value.as_str()).collect();
    let text = format!("{} {}", headers.join(" "), answer.body);
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(&format!("{MARK}-")) {
        let rest = &text[at + MARK.len() + 1..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(number) = digits.parse() {
            found.insert((number, rest.chars().take(24).collect()));
        }
    }
    // Addresses are marks too: a stranger's X-Forwarded-For is not believed.
    for (at, _) in text.match_indices("10.9.") {
        found.insert((usize::MAX, text[at..].chars().take(12).collect()));
    }
    found
}

#[test]
fn nonces_and_names_of_the_logged_in_stay_with_them() {
    let (house, mut editor) = with_probe("workers = 2");
    let nonce = |answer: &Answer| {
        let text = answer.body.split(" nonce: ").nth(1).unwrap_or_default();
        text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>()
    };
    let mut reader = house.visitor("blog");
    for round in 0..5 {
        house.php(
            "blog",
            "wp_update_post( array( 'ID' => 1, 'post_title' => 'Title ' . wp_rand() ) );",
        );
        let own = editor.get("/");
        assert_eq!(own.cache(), "bypass");
        assert!(own.body.contains("wpadminbar"), "round {round}: the editor sees the admin bar");
        let seen = reader.get("/");
        assert!(!seen.body.contains("wpadminbar"), "round {round}: {}", seen.body);
        assert_ne!(nonce(&own), nonce(&seen), "round {round}");
    }
    wait_until("a hit", Duration::from_secs(5), || reader.get("/").cache() == "hit");
}
