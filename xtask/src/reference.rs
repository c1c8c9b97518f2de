//! Pages of the guide that are printed from the code, so that they cannot differ from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use pressroom_model::file;

fn page(root: &Path) -> PathBuf {
    root.join("docs/guide/src/reference.md")
}

/// Writes the reference of `pressroom.toml`.
pub(crate) fn write(root: &Path) -> Result<()> {
    let page = page(root);
    fs::write(&page, file::reference())
        .with_context(|| format!("cannot write `{}`", page.display()))
}

/// Complains when the page is not what would be written.
pub(crate) fn check(root: &Path) -> Result<()> {
    let page = page(root);
    let is_current = fs::read_to_string(&page).is_ok_and(|text| text == file::reference());
    if is_current {
        Ok(())
    } else {
        bail!("`{}` is out of date: run `cargo xtask reference`", page.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `toml` block of the guide that has a site is a whole file.
    #[test]
    fn the_guides_examples_are_configurations() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/src");
        let facts = file::Facts {
            hostname: "n1".into(),
            is_root: true,
            cores: 2,
            php_version: "8.2".into(),
            data: "/var/lib/pressroom".into(),
            folder: "/etc/pressroom".into(),
        };
        let mut seen = 0;
        for entry in fs::read_dir(folder).expect("the guide").flatten() {
            let text = fs::read_to_string(entry.path()).expect("a page");
            let blocks =
                text.split("```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
            for block in blocks.filter(|block| block.contains("[[site]]")) {
                seen += 1;
                if let Err(faults) = file::parse(block, &facts) {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    panic!("{}: {}", entry.path().display(), faults.join("; "));
                }
            }
        }
        assert!(seen > 0);
    }
}
