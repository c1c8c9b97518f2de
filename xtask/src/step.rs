//! Running one command after the other and saying how it went.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How a step ended.
pub(crate) struct Done {
    name: String,
    took: Duration,
    failure: Option<String>,
}

/// All steps of a command; later ones run although earlier ones failed.
#[derive(Default)]
pub(crate) struct Steps(Vec<Done>);

impl Steps {
    /// Runs one step.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("── {name}");
        let started = Instant::now();
        let failure = work().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("   failed: {failure}");
        }
        self.0.push(Done { name: name.to_owned(), took: started.elapsed(), failure });
    }

    /// Prints the table; an error if a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for done in &self.0 {
            let word = if done.failure.is_none() { "ok    " } else { "FAILED" };
            println!("{word} {:>6.1} s  {}", done.took.as_secs_f64(), done.name);
        }
        let failed: Vec<&str> =
            self.0.iter().filter(|d| d.failure.is_some()).map(|d| d.name.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }
}

/// Runs a command with our own output; an error when it fails.
pub(crate) fn command(command: &mut Command) -> Result<()> {
    let words = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {words}"))?;
    if status.success() { Ok(()) } else { bail!("{words}: {status}") }
}

/// Runs a command, passes its output on, and returns its lines whether it succeeded or not.
pub(crate) fn tee(command: &mut Command) -> Result<(Vec<String>, bool)> {
    let words = format!("{command:?}");
    let spawned =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start {words}"))?;
    let out = child.stdout.take().context("its output")?;
    let err = child.stderr.take().context("its output")?;
    let reader = thread::spawn(move || pass_on(err));
    let mut lines = pass_on(out);
    lines.extend(reader.join().unwrap_or_default());
    Ok((lines, child.wait()?.success()))
}

fn pass_on(from: impl Read) -> Vec<String> {
    let mut lines = Vec::new();
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let _closed = writeln!(std::io::stdout(), "{line}").is_err();
        lines.push(line);
        bytes.clear();
    }
    lines
}

/// Whether a program can be started at all.
pub(crate) fn is_there(program: &str, argument: &str) -> bool {
    let tried =
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}
