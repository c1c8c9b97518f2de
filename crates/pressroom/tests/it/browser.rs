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

#[test]
fn what_an_editor_changes_in_a_browser_visitors_see_within_a_second() {
    let (Some(chromium), Some(node), Some(npm)) =
        (installed(&["chromium"]), installed(&["node"]), installed(&["npm"]))
    else {
        println!("not judged: chromium, node and npm are needed (apt install chromium nodejs npm)");
        return;
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let house = House::empty();
    let tree = tree_with(house.folder(), &PLAIN);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}",
        tree.display()
    ));
    house.up();
    let folder = house.folder().join("browser");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["package.json", "package-lock.json", "editor.mjs", "visitor.mjs"] {
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
        .arg("editor.mjs")
        .current_dir(&folder)
        .env("HOME_URL", house.home("blog"))
        .env("ADMIN_PASSWORD", PASSWORD)
        .env("CHROMIUM", chromium)
        .env("SHOTS", &shots)
        .output()
        .expect("node runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
