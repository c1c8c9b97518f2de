//! The programs that we run but did not write: for each its files, its process, and its probe.
//!
//! A file is rendered, written beside the one in use, checked by the engine itself where it can, and moved into place
//! just before the start; the engine's own words come back when it refuses.

pub mod dns;
pub mod docker;
pub mod edge;
pub mod etcd;
pub mod keepalived;
pub mod mariadb;
pub mod php;
pub mod redis;
pub mod sql;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pressroom_model::process::{ProcessSpec, UserIds};

use crate::files::{self, Owner};

/// Why an engine could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or program could not be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A user could not be had.
    #[error(transparent)]
    Users(#[from] crate::users::Error),
    /// A program of the engine is not on this machine.
    #[error(
        "`{program}` is not on this machine; install its package (`pressroom doctor` names it)"
    )]
    Missing {
        /// The program.
        program: String,
    },
    /// The engine refused what we gave it.
    #[error("{engine} refused {what}: {said}")]
    Refused {
        /// Which engine.
        engine: &'static str,
        /// Which file or request.
        what: String,
        /// Its own words.
        said: String,
    },
}

/// The name of the environment variable by which a running process is known to have its current configuration.
pub const FINGERPRINT: &str = "PRESSROOM_FINGERPRINT";

/// Digest of everything that makes a restart necessary when it changes.
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The first of these paths that is a program.
pub fn program(candidates: &[&str]) -> Result<PathBuf, Error> {
    candidates
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing { program: candidates[0].to_owned() })
}

/// Owner for files of a process.
pub fn owner(ids: Option<&UserIds>) -> Owner {
    ids.map(|ids| (ids.uid, ids.gid))
}

/// The environment of every child: nothing is inherited.
fn environment(fingerprint: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        (FINGERPRINT.to_owned(), fingerprint.to_owned()),
    ])
}

/// A spec with our defaults.
fn spec(
    name: &str,
    program: PathBuf,
    args: Vec<String>,
    fingerprint: &str,
    output: PathBuf,
) -> ProcessSpec {
    ProcessSpec {
        name: name.to_owned(),
        program,
        args,
        env: environment(fingerprint),
        cwd: Some("/".into()),
        user: None,
        confinement: None,
        listeners: vec![],
        umask: 0o027,
        open_files: Some(16_384),
        output,
        output_limit: 16 << 20,
        stop: pressroom_model::process::Stop::default(),
        restart: pressroom_model::process::Restart::Never,
    }
}

/// Writes `contents` beside `path`, lets `check` judge it there, and moves it into place.
fn write_checked(
    path: &Path,
    contents: &str,
    mode: u32,
    owner: Owner,
    check: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    if std::fs::read(path).is_ok_and(|old| old == contents.as_bytes()) {
        files::write(path, contents.as_bytes(), mode, owner)?;
        return Ok(());
    }
    let candidate = path.with_extension("candidate");
    files::write(&candidate, contents.as_bytes(), mode, owner)?;
    check(&candidate)?;
    std::fs::rename(&candidate, path)?;
    Ok(())
}

/// Runs a short command of an engine; its words on failure.
fn run(engine: &'static str, what: &str, command: &mut Command) -> Result<(), Error> {
    answer(engine, what, command).map(drop)
}

/// Runs a short command of an engine; what it printed, or its words on failure.
pub(crate) fn answer(
    engine: &'static str,
    what: &str,
    command: &mut Command,
) -> Result<String, Error> {
    fed(engine, what, command, Stdio::null())
}

/// The same, with something on its standard input.
pub(crate) fn fed(
    engine: &'static str,
    what: &str,
    command: &mut Command,
    input: Stdio,
) -> Result<String, Error> {
    let output = command.stdin(input).output().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {engine}'s command: {error}"))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::Refused { engine, what: what.to_owned(), said: tail(&said, 1500) })
}

/// The end of a text, which is where programs say what is wrong.
pub fn tail(text: &str, most: usize) -> String {
    let start = text.len().saturating_sub(most);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].to_owned()
}
