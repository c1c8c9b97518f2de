//! Releases from outside: real trees, archives, damage.

use std::fs;
use std::path::{Path, PathBuf};

use pressroom_model::config::Source;
use pressroom_release::ReleaseError;
use pressroom_release::overlay::Overlay;
use pressroom_release::releases::{Built, Releases};

mod archives;
mod debian;
mod receiving;
mod sites;

/// A small tree that counts as a WordPress.
fn small_wordpress(at: &Path) {
    for (path, text) in SMALL {
        write(&at.join(path), text);
    }
}

const SMALL: [(&str, &str); 8] = [
    ("index.php", "<?php // front"),
    ("wp-load.php", "<?php"),
    ("wp-settings.php", "<?php"),
    ("wp-login.php", "<?php"),
    ("wp-admin/admin.php", "<?php"),
    ("wp-includes/version.php", "<?php\n$wp_version = '6.2.3';\n"),
    ("wp-includes/functions.php", "<?php"),
    ("wp-content/plugins/hello/hello.php", "<?php // hello"),
];

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("written");
}

fn overlay() -> Overlay {
    Overlay::new([
        ("wp-content/mu-plugins/pressroom.php", "<?php // ours"),
        ("wp-content/object-cache.php", "<?php // ours"),
        ("wp-config.php", "<?php require getenv('PRESSROOM_CONFIG');"),
    ])
    .expect("good paths")
}

fn build(releases: &Releases, source: &Source) -> Result<Built, ReleaseError> {
    releases.build(source, &overlay(), &|_| ())
}

struct Room {
    folder: tempfile::TempDir,
    releases: Releases,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let releases = Releases::at(folder.path().join("releases"));
        Self { folder, releases }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A small WordPress in the folder `src`.
    fn source(&self) -> (PathBuf, Source) {
        let path = self.path("src");
        small_wordpress(&path);
        (path.clone(), Source::Path(path))
    }
}

/// Names below a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
