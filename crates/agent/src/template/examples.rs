//! Templates that come with us, for people who keep their own balancer.

use std::path::PathBuf;

use include_dir::{Dir, include_dir};

static EXAMPLES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../templates");

/// Every file: its path, which begins with the program's name, and its contents.
pub fn all() -> Vec<(PathBuf, &'static [u8])> {
    let mut found = Vec::new();
    let mut folders = vec![&EXAMPLES];
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        found.extend(folder.files().map(|file| (file.path().to_owned(), file.contents())));
    }
    found.sort();
    found
}
