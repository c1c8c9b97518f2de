//! Code that changed under the same name: a checkout, an upgraded package.

use std::fs;

use crate::house::{House, tree_with};

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
