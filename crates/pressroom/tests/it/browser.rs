//! An editor and a visitor in real browsers: `tests/browser/editor.mjs`, driven by Playwright.
//!
//! Without Node.js or Chromium the test says that it judged nothing; `cargo xtask test` installs both.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::house::{House, PASSWORD, tree_with};

/// A second theme to switch to, classic, with a menu.
const PLAIN: [(&str, &str); 3] = [
    ("wp-content/themes/plain/style.css", include_str!("../probe/plain/style.css")),
    ("wp-content/themes/plain/functions.php", include_str!("../probe/plain/functions.php")),
    ("wp-content/themes/plain/index.php", include_str!("../probe/plain/index.php")),
];

/// The first of these programs that is installed.
fn installed(names: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let mut folders: Vec<_> = std::env::split_paths(&folders).collect();
    folders.push("/usr/bin".into());
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.is_file())
}

/// Runs one of the scripts in `tests/browser`; false: nothing was judged.
fn run(house: &House, script: &str, more: &[(&str, String)]) -> bool {
    let (Some(chromium), Some(node), Some(npm)) =
        (installed(&["chromium"]), installed(&["node"]), installed(&["npm"]))
    else {
        println!("not judged: chromium, node and npm are needed (apt install chromium nodejs npm)");
        return false;
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let folder = house.folder().join("browser");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["package.json", "package-lock.json", script, "visitor.mjs"] {
        std::fs::copy(scripts.join(name), folder.join(name)).expect("the browser test's files");
    }
    let install = Command::new(npm)
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .expect("npm runs");
    assert!(install.status.success(), "npm ci: {}", String::from_utf8_lossy(&install.stderr));
    let shots =
        std::env::var_os("PRESSROOM_TEST_SHOTS").map_or(folder.join("shots"), PathBuf::from);
    let output = Command::new(node)
        .arg(script)
        .current_dir(&folder)
        .env("HOME_URL", house.home("blog"))
        .env("ADMIN_PASSWORD", PASSWORD)
        .env("CHROMIUM", chromium)
        .env("SHOTS", &shots)
        .envs(more.iter().map(|(name, value)| (name, value)))
        .output()
        .expect("node runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn what_an_editor_changes_in_a_browser_visitors_see_at_once() {
    let house = House::empty();
    let tree = tree_with(house.folder(), &PLAIN);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}",
        tree.display()
    ));
    house.up();
    run(&house, "editor.mjs", &[("LIMIT", limit("1000"))]);
}

/// Offers version 3.0 of the plugin, whose archive lies among the uploads.
const OFFER: &str = "<?php add_filter('site_transient_update_plugins', function ($known) {\n\
    $zip = wp_upload_dir()['basedir'] . '/greeter-3.zip';\n\
    if (is_object($known) && file_exists($zip) && file_exists(WP_PLUGIN_DIR . '/greeter/greeter.php') \
        && !str_contains(file_get_contents(WP_PLUGIN_DIR . '/greeter/greeter.php'), 'Version: 3.0')) {\n\
    $known->response['greeter/greeter.php'] = (object) ['slug' => 'greeter', 'plugin' => 'greeter/greeter.php', \
        'new_version' => '3.0', 'package' => $zip, 'url' => 'http://localhost/'];\n}\nreturn $known; });";

/// How long a change may take until visitors see it, in milliseconds: what is promised for a release build on a quiet machine
/// is judged where `PRESSROOM_TEST_LIMITS=strict` says so. Elsewhere only what is far too slow is a failure.
fn limit(promised: &str) -> String {
    let is_strict = std::env::var("PRESSROOM_TEST_LIMITS").is_ok_and(|limits| limits == "strict");
    if is_strict { promised.into() } else { "20000".into() }
}

#[test]
fn what_an_administrator_changes_in_a_browser_is_a_release_on_all_instances() {
    let house = House::empty();
    let mut files = PLAIN.to_vec();
    files.push(("wp-content/mu-plugins/offer.php", OFFER));
    let tree = tree_with(house.folder(), &files);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 2\ninstances = {{ min = 3, max = 3 }}",
        tree.display()
    ));
    house.up();
    let zip = |version: &str, at: PathBuf| {
        std::fs::write(&at, crate::author::plugin(version, "")).expect("written");
        at.display().to_string()
    };
    zip("3.0", house.data.join("sites/blog/uploads/greeter-3.zip"));
    let first = zip("1.0", house.folder().join("greeter-1.zip"));
    let second = zip("2.0", house.folder().join("greeter-2.zip"));
    let more = [("FIRST", first), ("SECOND", second), ("LIMIT", limit("3000"))];
    if !run(&house, "author.mjs", &more) {
        return;
    }
    let records = crate::author::list(&house);
    let messages: Vec<&str> =
        records.iter().filter_map(|record| record["message"].as_str()).collect();
    let expected = [
        "Delete the plugin greeter/greeter.php",
        "Edit wp-content/themes/plain/functions.php",
        "Edit wp-content/themes/plain/style.css",
        "Update the plugin Greeter 3.0",
        "Update the plugin Greeter 2.0",
        "Install the plugin Greeter 1.0",
    ];
    assert_eq!(messages[..6], expected);
    for record in &records[..6] {
        assert!(record["author"].as_str().is_some_and(|who| who.starts_with("admin <admin@")));
    }
    house.must(&["release", "verify", "blog"]);
    house.must(&["release", "rollback", "blog"]);
    assert!(house.tree("blog").join("wp-content/plugins/greeter").exists());
}

#[test]
fn the_console_goes_back_to_a_release_and_shows_mail_to_whoever_was_let_in() {
    let house = House::empty();
    let page = |words: &str| format!("<?php header('Cache-Control: no-store'); echo '{words}';");
    let tree = tree_with(house.folder(), &[("version.php", page("one").as_str())]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}",
        tree.display()
    ));
    house.up();
    house.must(&["env", "create", "blog", "staging"]);
    house.php("blog--staging", "wp_mail('one@example.com', 'Grüße', 'Nobody gets this.');");
    std::fs::write(tree.join("version.php"), page("two")).expect("written");
    house.must(&["deploy", "blog", &tree.to_string_lossy(), "--wait"]);
    let way_in: serde_json::Value =
        serde_json::from_str(&house.must(&["console", "--json"])).expect("JSON");
    let way_in = way_in["url"].as_str().expect("an address").to_owned();
    let console = format!("http://127.0.0.1:{}/", house.console);
    assert!(way_in.starts_with(&format!("{console}#ticket=")), "{way_in}");
    if run(&house, "console.mjs", &[("CONSOLE", console), ("WAY_IN", way_in)]) {
        let records = crate::author::list(&house);
        assert_eq!(records[0]["standing"], "serving");
        let details: serde_json::Value =
            serde_json::from_str(&house.must(&["release", "show", "blog", "--json"]))
                .expect("JSON");
        assert!(details["back_by"].as_str().is_some_and(|who| !who.is_empty()), "{details}");
    }
}
