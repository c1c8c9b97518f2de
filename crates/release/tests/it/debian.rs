//! Against the distribution's real package.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pressroom_model::config::Source;
use pressroom_release::source::DEBIAN;

use crate::{Room, build};

#[test]
fn the_package_becomes_a_tree_that_stands_by_itself() {
    if !std::path::Path::new(DEBIAN).exists() {
        return; // The package is not here; `cargo xtask test` installs it.
    }
    let room = Room::new();
    let started = std::time::Instant::now();
    let built = build(&room.releases, &Source::Debian).expect("a release");
    let took = started.elapsed();
    assert!(!built.was_there && built.files > 1000 && built.bytes > 20 << 20, "{built:?}");
    let tree = room.releases.tree(&built.id);
    for path in [
        "wp-includes/js/underscore.js",
        "wp-includes/certificates/ca-bundle.crt",
        "wp-content/plugins/akismet/akismet.php",
    ] {
        let meta = fs::symlink_metadata(tree.join(path)).expect(path);
        assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o444, "{path}");
    }
    assert!(!tree.join("wp-content/uploads").exists() && !tree.join(".htaccess").exists());
    let config = fs::read_to_string(tree.join("wp-config.php")).expect("ours");
    assert!(config.contains("PRESSROOM_CONFIG"));
    assert!(
        fs::read_to_string(tree.join("wp-includes/version.php"))
            .expect("it")
            .contains(&built.wordpress)
    );
    assert_eq!(room.releases.verify(&built.id).expect("an answer"), []);

    let again = std::time::Instant::now();
    let second = build(&room.releases, &Source::Debian).expect("a release");
    assert!(second.was_there && second.id == built.id);
    eprintln!("built in {took:?}, found again in {:?}", again.elapsed());
}
