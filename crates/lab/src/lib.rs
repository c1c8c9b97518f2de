//! Hosts on one machine: network namespaces with addresses of their own on a bridge, and everything of a host in a process
//! namespace, so that a whole host can be cut off, frozen and killed at once.
//!
//! - [`lab`] what a lab is, and where it is written down
//! - [`host`] one host: its namespaces, its first process, commands in it
//! - [`up`] from nothing to hosts that serve
//! - [`faults`] cut, heal, slow, kill, start, freeze, thaw
//!
//! Always: a lab touches nothing but what it made, and says so in its folder before it makes it; `down` leaves nothing of it.
//! The hosts share the machine's files, users and clock: it is a lab, not a wall.

pub mod faults;
pub mod host;
pub mod lab;
pub mod up;

use std::process::{Command, Stdio};

/// Why something in a lab did not work.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or program.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What was run.
        command: String,
        /// Its own words.
        said: String,
    },
    /// There is no lab in this folder.
    #[error("there is no lab in `{0}`; `pressroom lab up --data DIR` makes one")]
    None(String),
    /// There is one, and it is another one.
    #[error(
        "there is another lab, with {there} nodes, in `{folder}` already; `pressroom lab down --data DIR` ends it"
    )]
    Another {
        /// Where.
        folder: String,
        /// How many nodes it has.
        there: usize,
    },
    /// No node or zone is called so.
    #[error("there is no node or zone `{0}`; there are {1}")]
    Unknown(String, String),
    /// It did not come to its end.
    #[error("{what} after {seconds} s: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How it stood then.
        last: String,
    },
    /// A wish that cannot be met.
    #[error("{0}")]
    Wish(String),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LabError {
    let what = what.into();
    move |source| LabError::Io { what, source }
}

/// Runs a program to its end; what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, LabError> {
    let words = words(command);
    let output = command.stdin(Stdio::null()).output().map_err(io(words.clone()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(LabError::Failed { command: words, said })
}

/// A command as it would be typed; long words, which may be secrets, are cut.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| {
        let word = word.to_string_lossy();
        match word.char_indices().nth(100) {
            Some((at, _)) => format!("{}…", &word[..at]),
            None => word.into_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `ip` with these words.
pub(crate) fn ip(words: &str) -> Result<String, LabError> {
    run(Command::new("ip").args(words.split(' ')))
}
