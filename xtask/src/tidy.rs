//! Rules of the house that the compiler does not know.
//!
//! - [`arrows`] which crate may use which
//! - [`powers`] what only one crate may do
//! - [`files`] sizes, openings, and what has no place in a file
//! - [`links`] between pages
//!
//! A rule returns its complaints; a complaint fails the run, a remark is only printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

mod arrows;
mod files;
mod links;
mod powers;

/// What the rules say.
#[derive(Default)]
pub(crate) struct Findings {
    complaints: Vec<String>,
    remarks: Vec<String>,
}

impl Findings {
    fn complain(&mut self, text: impl Into<String>) {
        self.complaints.push(text.into());
    }

    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }
}

/// A text file of the project.
pub(crate) struct Text {
    /// Relative to the workspace, with `/`.
    path: String,
    text: String,
}

impl Text {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The crate's folder under `crates/`, if it is in one.
    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether it is no part of the product: tests, examples and build scripts.
    fn is_test(&self) -> bool {
        let folders = ["/tests/", "/examples/"];
        let ends = ["/tests.rs", "/battery.rs", "/build.rs"];
        folders.iter().any(|folder| self.path.contains(folder))
            || ends.iter().any(|end| self.path.ends_with(end))
    }

    /// The code that is not for tests: up to the module of tests at the file's end.
    fn product(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// Checks everything; an error when there is a complaint.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut findings = Findings::default();
    let texts = texts(root)?;
    arrows::check(root, &mut findings)?;
    powers::check(root, &texts, &mut findings)?;
    files::check(&texts, &mut findings);
    links::check(root, &texts, &mut findings);
    for remark in &findings.remarks {
        println!("   note: {remark}");
    }
    for complaint in &findings.complaints {
        println!("   error: {complaint}");
    }
    match findings.complaints.len() {
        0 => Ok(()),
        n => bail!("tidy found {n} things that break a rule of the house"),
    }
}

/// Every text file that is in the repository, or would be.
fn texts(root: &Path) -> Result<Vec<Text>> {
    let listing = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot start git")?;
    if !listing.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    }
    let names = String::from_utf8_lossy(&listing.stdout).into_owned();
    let read = |path: &str| {
        let text = std::fs::read_to_string(root.join(PathBuf::from(path))).ok()?;
        Some(Text { path: path.to_owned(), text })
    };
    Ok(names.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect())
}
