//! Hosts on this machine, for trying what was just built: `pressroom lab` of this source.
//!
//! The first verb of the binary that follows is `lab`'s own; what is added here is building it, and a folder of its own
//! that every site's user can enter, which the source's may not be.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step::command;

/// Where the hosts are, unless `--data` says otherwise.
const FOLDER: &str = "/var/tmp/pressroom-hosts";

/// Builds the binary and has it do this with the hosts.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<()> {
    let mut build = Command::new("cargo");
    command(build.current_dir(root).args(["build", "--quiet", "--package", "pressroom"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), Into::into);
    command(Command::new(target.join("debug/pressroom")).arg("lab").args(meant(words)))
}

/// The words of `pressroom lab`: a bare number behind `up` is that of the hosts.
fn meant(words: &[&str]) -> Vec<String> {
    let mut meant: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if let ["up", count, ..] = words
        && count.parse::<usize>().is_ok()
    {
        meant.insert(1, "--nodes".to_owned());
    }
    let own = words.iter().take_while(|word| **word != "--");
    if !own.into_iter().any(|word| *word == "--data" || word.starts_with("--data=")) {
        let place = meant.len().min(1);
        meant.splice(place..place, ["--data".to_owned(), FOLDER.to_owned()]);
    }
    meant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_folder_and_a_number() {
        let check = |words: &[&str], expected: &str| {
            assert_eq!(meant(words).join(" "), expected.replace('~', FOLDER), "{words:?}");
        };
        check(&["up", "6", "--zones", "a,b,c"], "up --data ~ --nodes 6 --zones a,b,c");
        check(&["up"], "up --data ~");
        check(&["up", "3", "--data", "/x"], "up --nodes 3 --data /x");
        check(&["cut", "n1", "--data=/x"], "cut n1 --data=/x");
        check(&["kill", "zone:a"], "kill --data ~ zone:a");
        check(&["exec", "n1", "--", "x", "--data", "y"], "exec --data ~ n1 -- x --data y");
    }
}
