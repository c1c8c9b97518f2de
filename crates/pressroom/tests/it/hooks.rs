//! The operator's commands around a deploy: as the site's user, in the new code, with a say before it and a report after it.

use std::fs;

use crate::house::{House, is_root, tree_with};

const PLUGIN: &str = "wp-content/mu-plugins/words.php";

#[test]
fn a_command_before_a_deploy_may_refuse_it_and_one_after_it_sees_it_served() {
    let house = House::empty();
    let say = |word: &str| {
        format!("<?php add_action( 'wp_footer', function () {{ echo '<!-- {word} -->'; }} );")
    };
    let tree = tree_with(house.folder(), &[(PLUGIN, &say("one"))]);
    let before = "echo as $(id -un); echo \"release $PRESSROOM_RELEASE\"; for f in wp-content/mu-plugins/*.php; do php -l $f || exit 1; done";
    // The site's walls keep the local authority's certificate out of its sight.
    let after =
        format!("curl -sk https://localhost:{}/?after | grep -o '<!-- t.* -->'", house.https);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.deploy]\nbefore = ['''{before}''']\nafter = ['''{after}''']",
        tree.display()
    ));
    house.up();

    fs::write(tree.join(PLUGIN), "<?php\n\nif (;").expect("written");
    let output = house.run(&["deploy", "blog"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("words.php on line 3") && words.contains("still serves"), "{words}");
    assert!(!words.contains("begin the rollout"), "no instance had it: {words}");

    fs::write(tree.join(PLUGIN), say("two")).expect("written");
    let output = house.run(&["deploy", "blog"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    assert!(words.contains("No syntax errors detected"), "{words}");
    assert!(words.contains("<!-- two -->"), "{words}");
    if is_root() {
        assert!(words.contains("as pr-blog"), "{words}");
    }
}
