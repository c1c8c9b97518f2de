//! Walls between sites on one machine: what one site's PHP can do to another.
//!
//! Only as root, where each site has a user of its own; an ordinary user's Pressroom says that its sites share one. Sites:
//! 3, or as many as `PRESSROOM_TEST_SITES` says.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::house::{House, is_root, tree_with};
use crate::visitor::escape;

#[derive(Deserialize)]
struct Report {
    own: BTreeMap<String, String>,
    foreign: BTreeMap<String, String>,
    links: Vec<String>,
}

#[test]
fn one_sites_php_gets_nothing_of_anothers() {
    if !is_root() {
        println!("not judged: sites have users of their own only as root");
        return;
    }
    let count: usize =
        std::env::var("PRESSROOM_TEST_SITES").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let house = House::empty();
    let tree =
        tree_with(house.folder(), &[("isolation.php", include_str!("../probe/isolation.php"))]);
    let names: Vec<_> = (1..=count).map(|number| format!("site-{number}")).collect();
    let site = |name: &String| {
        let path = tree.display();
        format!(
            "[[site]]\nname = \"{name}\"\nwordpress = {{ path = \"{path}\" }}\nphp = {{ workers = 2 }}\n"
        )
    };
    house.configure(&names.iter().map(site).collect::<Vec<_>>().join("\n"));
    house.up();
    for name in &names {
        fs::write(
            house.data.join("sites").join(name).join("uploads/private.txt"),
            format!("secret of {name}"),
        )
        .expect("a file");
    }
    let mut wrong = Vec::new();
    for (number, own) in names.iter().enumerate() {
        let other = &names[(number + 1) % count];
        let report = probe(&house, own, other);
        for (what, outcome) in &report.foreign {
            if number == 0 {
                println!("{what}: {outcome}");
            }
            if !outcome.starts_with("refused") {
                wrong.push(format!("{own} on {other}: {what}: {outcome}"));
            }
        }
        for (what, outcome) in &report.own {
            if !outcome.starts_with("ALLOWED") {
                wrong.push(format!("control of {own}: {what}: {outcome}"));
            }
        }
        wrong.extend(followed_links(&house, own, &report.links));
        assert_eq!(house.visitor(other).get("/").status, 200, "{other} after {own}'s attempts");
    }
    assert!(house.is_healthy(), "{}", house.status());
    assert!(wrong.is_empty(), "{} of {} sites' walls:\n{}", wrong.len(), count, wrong.join("\n"));
}

fn probe(house: &House, own: &str, other: &str) -> Report {
    let status = house.status();
    let found = status["sites"]
        .as_array()
        .expect("sites")
        .iter()
        .find(|site| site["name"] == other)
        .expect("the other site");
    let pid = found["instances"][0]["pid"].as_i64().expect("its php-fpm");
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its workers");
    let worker = children.split_whitespace().next().expect("a worker");
    let data = escape(&house.data.to_string_lossy());
    let answer = house
        .visitor(own)
        .get(&format!("/isolation.php?data={data}&own={own}&other={other}&pid={worker}"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

/// Symbolic links in the own uploads, which point where the edge may read and the site may not.
fn followed_links(house: &House, own: &str, links: &[String]) -> Vec<String> {
    let mut followed = Vec::new();
    for link in links.iter().filter(|link| !link.is_empty()) {
        let name = link.rsplit('/').next().expect("a name");
        let path = if name == "link-folder" { "link-folder/private.txt" } else { name };
        let answer = house.visitor(own).get(&format!("/wp-content/uploads/{path}"));
        let is_theirs = ["secret of", "DB_PASSWORD", "\"generation\""]
            .iter()
            .any(|words| answer.body.contains(words));
        if answer.status == 200 || is_theirs {
            followed.push(format!(
                "{own}: the edge follows {path}: {} {:.60}",
                answer.status, answer.body
            ));
        }
    }
    followed
}
