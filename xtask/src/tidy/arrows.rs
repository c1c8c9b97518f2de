//! Which crate may use which: the table of ARCHITECTURE.md, read from the `Cargo.toml` files.
//!
//! Tests may use more than the product: `dev-dependencies` are free.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Findings;

const PREFIX: &str = "pressroom-";

/// Every crate and what it may use. The binary may use everything.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("gotemplate", &[]),
    ("plan", &["model"]),
    ("render", &["model", "gotemplate"]),
    ("runtime", &[]),
    ("store", &["model", "runtime"]),
    ("release", &["model", "runtime"]),
    ("wire", &["model", "runtime"]),
    ("media", &["model", "runtime", "wire"]),
    ("edge", &["model", "runtime", "wire"]),
    ("sql", &["model", "runtime", "wire"]),
    ("dns", &["model", "runtime"]),
    ("agent", &["model", "plan", "render", "runtime", "store", "release", "wire", "media"]),
    ("control", &["model", "plan", "render", "runtime", "store", "release", "wire"]),
    ("api", &["model", "store", "plan", "runtime", "release", "wire"]),
    ("cli", &["model", "store", "plan", "runtime", "release", "wire", "api"]),
    ("lab", &["runtime"]),
    ("sim", &["model", "plan"]),
    ("pressroom", &["*"]),
];

pub(super) fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    for entry in fs::read_dir(root.join("crates")).context("cannot read `crates`")? {
        let path = entry?.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let manifest: toml::Table =
            text.parse().with_context(|| format!("cannot read `{}`", path.display()))?;
        for complaint in complaints(&manifest) {
            findings.complain(complaint);
        }
    }
    Ok(())
}

fn complaints(manifest: &toml::Table) -> Vec<String> {
    let name = manifest
        .get("package")
        .and_then(|p| p.get("name"))
        .and_then(toml::Value::as_str)
        .unwrap_or_default();
    let room = name.strip_prefix(PREFIX).unwrap_or(name);
    let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == room) else {
        return vec![format!(
            "the crate `{name}` has no place in the house: add it to ARCHITECTURE.md and to `arrows.rs`"
        )];
    };
    let used = ["dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|key| manifest.get(key)?.as_table());
    let ours =
        used.flat_map(toml::Table::keys).filter_map(|dependency| dependency.strip_prefix(PREFIX));
    ours.filter(|other| !allowed.contains(other) && !allowed.contains(&"*"))
        .map(|other| {
            format!(
                "`{room}` may not use `{other}`: arrows go up the table of ARCHITECTURE.md only"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        complaints(&text.parse().expect("a manifest"))
    }

    #[test]
    fn arrows_go_up_only() {
        let ok = "[package]\nname='pressroom-edge'\n[dependencies]\npressroom-model={}\nhyper={}\n[dev-dependencies]\npressroom-agent={}";
        assert!(check(ok).is_empty());
        let bad = "[package]\nname='pressroom-edge'\n[dependencies]\npressroom-store={}";
        assert_eq!(check(bad).len(), 1);
        assert_eq!(check("[package]\nname='pressroom-helpers'").len(), 1);
        assert!(check("[package]\nname='pressroom'\n[dependencies]\npressroom-edge={}").is_empty());
    }
}
