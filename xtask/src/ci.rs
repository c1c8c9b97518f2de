//! Everything that is checked before a change is taken, but for the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

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
        command(docs.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))
    });
    steps.run("tidy", || tidy::run(root));
    steps.run("reference", || reference::check(root));
    if is_there("php", "--version") {
        steps.run("PHP's syntax", || php(root));
    }
    if is_there("cargo", "deny") {
        steps.run("licences and advisories", || command(&mut cargo(&["deny", "check"])));
    } else {
        println!("── licences and advisories: `cargo-deny` is not installed; skipped");
    }
    steps.finish()
}

/// Lets PHP read every file of ours.
fn php(root: &Path) -> Result<()> {
    let listing =
        Command::new("git").current_dir(root).args(["ls-files", "-z", "*.php"]).output()?;
    for path in String::from_utf8_lossy(&listing.stdout).split('\0').filter(|path| !path.is_empty())
    {
        let checked = Command::new("php").current_dir(root).args(["-l", path]).output()?;
        if !checked.status.success() {
            bail!("{}", String::from_utf8_lossy(&checked.stdout).trim());
        }
    }
    Ok(())
}
