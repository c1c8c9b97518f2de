//! A ledger on disk: a line of JSON for each change, and all of it written anew when most lines are old.
//!
//! Nothing is synced: what a power cut takes from it is seen again by the next look at the folder. A line that was cut off, and
//! whatever comes after it, is left out.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ledger::{Entry, Ledger};

/// So many lines too many are borne.
const SLACK: usize = 5000;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<Entry>,
}

/// Where a ledger is kept.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Open, with its lines; `None`: it is to be written anew.
    open: Option<(File, usize)>,
}

impl Journal {
    /// Reads the ledger that is kept at `path`; an empty one where there is none.
    pub fn read(path: impl Into<PathBuf>) -> io::Result<(Self, Ledger)> {
        let path = path.into();
        let mut ledger = Ledger::default();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    let Ok(line) = serde_json::from_slice::<Line>(&line?) else { break };
                    match line.folder {
                        Some(number) => ledger.number = Some(number),
                        None => ledger.set(&line.path, line.entry),
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        ledger.fresh.clear();
        Ok((Self { path, open: None }, ledger))
    }

    /// Writes what is new; after a failure the next call writes everything.
    pub fn write(&mut self, ledger: &mut Ledger) -> io::Result<()> {
        if ledger.fresh.is_empty() && self.open.is_some() {
            return Ok(());
        }
        let is_long = |lines: usize| lines > ledger.entries().len() * 2 + SLACK;
        let written = match self.open.take() {
            Some((file, lines)) if !is_long(lines) => append(file, lines, ledger),
            _ => self.write_anew(ledger),
        };
        self.open = Some(written?);
        ledger.fresh.clear();
        Ok(())
    }

    fn write_anew(&self, ledger: &Ledger) -> io::Result<(File, usize)> {
        let fresh = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
        let all = ledger.entries().keys().map(String::as_str);
        let written = write_lines(file, ledger, [""].into_iter().chain(all));
        match written.and_then(|written| std::fs::rename(&fresh, &self.path).map(|()| written)) {
            Ok(written) => Ok(written),
            Err(error) => {
                // Nobody reads half a file.
                let _ = std::fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn append(file: File, before: usize, ledger: &Ledger) -> io::Result<(File, usize)> {
    let (file, lines) = write_lines(file, ledger, ledger.fresh.iter().map(String::as_str))?;
    Ok((file, before + lines))
}

fn write_lines<'a>(
    mut file: File,
    ledger: &Ledger,
    paths: impl Iterator<Item = &'a str>,
) -> io::Result<(File, usize)> {
    let (mut text, mut lines) = (Vec::new(), 0);
    for path in paths {
        let folder = ledger.number.filter(|_| path.is_empty());
        if path.is_empty() && folder.is_none() {
            continue;
        }
        let line =
            Line { folder, path: path.to_owned(), entry: ledger.entries().get(path).cloned() };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
        lines += 1;
    }
    file.write_all(&text)?;
    Ok((file, lines))
}
