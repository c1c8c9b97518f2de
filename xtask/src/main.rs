//! The workshop: `cargo xtask tidy | ci | test | reference | hosts`.
//!
//! - [`tidy`] rules of the house that the compiler does not know
//! - [`ci`] everything that is checked before a change is taken, but for the tests
//! - [`mod@test`] the tests, with the packages that they need
//! - [`hosts`] many machines on this one
//! - [`mod@reference`] pages that are printed from the code
//! - [`step`] running one command after the other and saying how it went

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

mod ci;
mod hosts;
mod packages;
mod reference;
mod step;
mod test;
mod tidy;

const USAGE: &str = "usage: cargo xtask COMMAND

  tidy        rules of the house: arrows between crates, powers, file sizes, openings
  ci          format, clippy, docs, tidy, reference, licences
  test        install what the tests need (as root), then run all of them
  reference   write the pages that are printed from the code
  hosts       up N [--zones a,b,c], cut, heal, slow, kill, start, freeze, thaw, exec, status, down:
              N hosts on this machine with what is built from this source (`pressroom lab`; as root)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["tidy"] => root().and_then(|root| tidy::run(&root)),
        ["ci"] => root().and_then(|root| ci::run(&root)),
        ["reference"] => root().and_then(|root| reference::write(&root)),
        ["hosts", words @ ..] => root().and_then(|root| hosts::run(&root, words)),
        ["test", filters @ ..] => root().and_then(|root| test::run(&root, filters)),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("error: there is no command `{}`\n\n{USAGE}", words.join(" "));
            return ExitCode::from(1);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// The workspace's folder: the one above ours.
fn root() -> Result<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no folder above it")?;
    if !root.join("ARCHITECTURE.md").exists() {
        bail!("`{}` is not the workspace", root.display());
    }
    Ok(root.to_owned())
}
