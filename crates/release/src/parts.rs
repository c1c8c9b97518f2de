//! What a release says of itself: WordPress, plugins and themes with the versions in their headers.
//!
//! Headers are read as WordPress reads them: in the first 8 KiB of a file, a name and a colon at the beginning of a line of
//! comment. They are words of whoever wrote the code: nothing is decided by them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pressroom_model::rollout::{Part, PartKind};
use pressroom_model::text::plain;

use crate::manifest::Manifest;

/// So much of a file WordPress looks at.
const HEAD: u64 = 8192;

/// The parts of a release, whose tree is in `tree`: WordPress first, the others by kind and name.
pub fn parts(manifest: &Manifest, tree: &Path) -> Vec<Part> {
    let mut found: BTreeMap<(PartKind, &str), Part> = BTreeMap::new();
    for path in manifest.files.keys() {
        let Some((kind, name)) = candidate(path) else { continue };
        if found.contains_key(&(kind, name)) {
            continue;
        }
        let text = head(&tree.join(path));
        let is_theme = kind == PartKind::Theme;
        let title = header(&text, if is_theme { "Theme Name" } else { "Plugin Name" });
        // A must-use plugin needs no header.
        let Some(title) = title.or((kind == PartKind::MustUse).then_some(name)) else { continue };
        let version = plain(header(&text, "Version").unwrap_or_default());
        let part = Part { kind, name: plain(name), title: plain(title), version };
        found.insert((kind, name), part);
    }
    let core = Part {
        kind: PartKind::Core,
        name: String::new(),
        title: "WordPress".into(),
        version: manifest.wordpress.clone(),
    };
    std::iter::once(core).chain(found.into_values()).collect()
}

/// What a file would name, if it has a header.
fn candidate(path: &str) -> Option<(PartKind, &str)> {
    let names: Vec<&str> = path.strip_prefix("wp-content/")?.split('/').collect();
    match names.as_slice() {
        ["plugins", name] if name.ends_with(".php") => Some((PartKind::Plugin, name)),
        ["plugins", folder, file] if file.ends_with(".php") => Some((PartKind::Plugin, folder)),
        ["mu-plugins", name] if name.ends_with(".php") => Some((PartKind::MustUse, name)),
        ["themes", folder, "style.css"] => Some((PartKind::Theme, folder)),
        _ => None,
    }
}

fn head(path: &Path) -> String {
    let mut bytes = Vec::new();
    // A file that cannot be read says nothing; `verify` finds it.
    let _unreadable = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a header: `Version: 1.2` in a line of comment.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(['\n', '\r']).find_map(|line| {
        let line = line.trim_start_matches([' ', '\t']);
        let line = line.strip_prefix("<?php").unwrap_or(line);
        let line = line.trim_start_matches([' ', '\t', '/', '*', '#', '@']);
        let (start, rest) = (line.get(..name.len())?, line.get(name.len()..)?);
        let value = start.eq_ignore_ascii_case(name).then(|| rest.strip_prefix(':'))??;
        let value = value.split("*/").next().unwrap_or_default().split("?>").next()?.trim();
        (!value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_wordpress_reads_them() {
        let check = |text: &str, name, expected| assert_eq!(header(text, name), expected, "{text}");
        check("<?php\n/**\n * Plugin Name: A: b\n * Version: 1.2 */", "Plugin Name", Some("A: b"));
        check("<?php\n/**\n * Plugin Name: A\n * Version: 1.2 */", "Version", Some("1.2"));
        check("<?php // version: 3 ?>", "Version", Some("3"));
        check("/*\r\nTheme Name: Ä\r\nRequires PHP Version: 7\r\n*/", "Theme Name", Some("Ä"));
        check("/*\nRequires PHP Version: 7\n*/", "Version", None);
        check("é", "Version", None);
        check("Version:", "Version", None);
    }

    #[test]
    fn only_files_where_wordpress_looks_name_a_part() {
        for (path, expected) in [
            ("wp-content/plugins/hello.php", Some((PartKind::Plugin, "hello.php"))),
            ("wp-content/plugins/a/b.php", Some((PartKind::Plugin, "a"))),
            ("wp-content/plugins/a/b/c.php", None),
            ("wp-content/themes/a/style.css", Some((PartKind::Theme, "a"))),
            ("wp-content/mu-plugins/x.php", Some((PartKind::MustUse, "x.php"))),
            ("wp-content/mu-plugins/x/y.php", None),
            ("wp-includes/version.php", None),
        ] {
            assert_eq!(candidate(path), expected, "{path}");
        }
    }
}
