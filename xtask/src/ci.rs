//! Everything that is checked before a change is taken, but for the tests.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::{Steps, command, is_there};
use crate::{reference, tidy};

/// Runs every check, and fails at the end if one failed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(root).args(arguments);
        cargo
    };
    let mut steps = Steps::default();
    steps.run("format", || command(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("clippy", || {
        command(&mut cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    });
    steps.run("docs", || {
        let mut docs =
            cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
        command(docs.env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.run("tidy", || tidy::run(root));
    steps.run("reference", || reference::check(root));
    if is_there("cargo", "deny") {
        steps.run("licences and advisories", || command(&mut cargo(&["deny", "check"])));
    } else {
        println!("── licences and advisories: `cargo-deny` is not installed; skipped");
    }
    steps.finish()
}
