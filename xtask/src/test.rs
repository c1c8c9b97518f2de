//! The tests, with the packages that they need: Rust's, then PHP's. Ends with the total.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::packages;
use crate::step::{Steps, is_there, tee};

/// How many tests ran.
#[derive(Default, Clone, Copy)]
struct Count {
    passed: u64,
    failed: u64,
}

/// Runs everything; `filters` go to the Rust tests, and then nothing else runs.
pub(crate) fn run(root: &Path, filters: &[&str]) -> Result<()> {
    let mut total = Count::default();
    let mut steps = Steps::default();
    steps.run("packages", packages::ensure);
    let mut garage = None;
    steps.run("an object store", || {
        garage = packages::garage(root)?;
        Ok(())
    });
    steps.run("the binary", || {
        let mut build = Command::new("cargo");
        crate::step::command(build.current_dir(root).args(["build", "--package", "pressroom"]))
    });
    steps.run("Rust", || {
        let mut rust = rust(root, filters);
        rust.envs(garage.iter().map(|program| ("PRESSROOM_GARAGE", program)));
        counted(&mut total, &mut rust)
    });
    let wordpress = root.join("wordpress/tests/run.sh");
    if filters.is_empty() && wordpress.exists() {
        steps.run("WordPress", || counted(&mut total, Command::new(&wordpress).current_dir(root)));
    }
    let done = steps.finish();
    println!("\n{} tests passed, {} failed", total.passed, total.failed);
    done
}

fn rust(root: &Path, filters: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    if is_there("cargo-nextest", "--version") {
        cargo
            .args(["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "slow"])
            .args(filters);
    } else {
        cargo.args(["test", "--workspace", "--no-fail-fast"]).args(filters);
    }
    cargo
}

fn counted(total: &mut Count, command: &mut Command) -> Result<()> {
    let (lines, is_good) = tee(command)?;
    for count in lines.iter().filter_map(|line| count(line)) {
        total.passed += count.passed;
        total.failed += count.failed;
    }
    if is_good { Ok(()) } else { bail!("tests failed") }
}

/// Reads a summary line: cargo's, nextest's, or `12 passed, 0 failed`.
fn count(line: &str) -> Option<Count> {
    let is_summary = line.starts_with("test result:")
        || line.contains("tests run:")
        || line.contains("test run:");
    let words: Vec<&str> =
        line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let before = |name: &str| {
        words.windows(2).find(|pair| pair[1] == name).and_then(|pair| pair[0].parse().ok())
    };
    let (passed, failed) = (before("passed"), before("failed"));
    let is_plain = words.len() == 4 && passed.is_some() && failed.is_some();
    (is_summary || is_plain)
        .then(|| Count { passed: passed.unwrap_or(0), failed: failed.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_and_talk_is_not() {
        let check = |line: &str, expected: Option<(u64, u64)>| {
            assert_eq!(count(line).map(|c| (c.passed, c.failed)), expected, "{line}");
        };
        check("test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured", Some((13, 0)));
        check(
            "     Summary [   8.442s] 51 tests run: 49 passed (1 slow), 2 failed, 0 skipped",
            Some((49, 2)),
        );
        check("     Summary [   8.442s] 1 test run: 1 passed, 0 skipped", Some((1, 0)));
        check("12 passed, 0 failed", Some((12, 0)));
        check("the edge passed 3 requests", None);
    }
}
