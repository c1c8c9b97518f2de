//! One file: rendered beside where it goes, checked, put in place by rename, and its program told.
//!
//! Before the rename a mark is left beside the file, and taken away when the reload command has succeeded. So whoever comes
//! after one that died in between, or whose reload failed, knows that the program has not read what is there.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::template::{Resource, Standing, Who};
use pressroom_plan::template::{self as plan, Decision, Difference, Facts};
use pressroom_render::confd::{self, Pairs, Surroundings};
use pressroom_runtime::clock;
use tempfile::NamedTempFile;

use super::confdir::Loaded;
use crate::engine::tail;
use crate::files::naming;

/// Longest time for a command of the operator's.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);
/// How much of what a command said is passed on.
const WORDS: usize = 1_000;
/// Staged files older than this were left behind by somebody who died.
const LEFT: Duration = Duration::from_secs(600);
const STAGED: &str = ".staged";

/// What is not to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Change nothing: say what would be.
    pub noop: bool,
    /// Run neither check nor reload commands.
    pub sync_only: bool,
    /// Keep staged files.
    pub keep_stage: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Where the file stands now.
    pub standing: Standing,
    /// Why, or what was done.
    pub because: String,
    /// It was replaced.
    pub is_replaced: bool,
}

impl Done {
    fn new(standing: Standing, because: impl Into<String>) -> Self {
        Self { standing, because: because.into(), is_replaced: false }
    }
}

/// Brings one file to what its template makes of `pairs`. Blocks; may be done again after it was interrupted anywhere.
pub fn apply(
    loaded: &Loaded,
    pairs: &Arc<Pairs>,
    options: Options,
    around: &Arc<dyn Surroundings>,
) -> Done {
    let resource = match &loaded.resource {
        Ok(resource) => resource,
        Err(faults) => return Done::new(Standing::Failed, faults.clone()),
    };
    let there = std::fs::read(&resource.dest).ok();
    let facts = Facts {
        keys: resource.keys.len(),
        values: pairs.len(),
        has_file: there.as_ref().is_some_and(|there| !there.is_empty()),
        empty: resource.empty,
    };
    if plan::decide(facts) == Decision::Hold {
        return Done::new(
            Standing::Held,
            "the store has nothing under its keys: the file stays (`empty = \"render\"` in the resource renders it all the same)",
        );
    }
    let text = match rendered(loaded, pairs, around) {
        Ok(text) => text,
        Err(what) => return Done::new(Standing::Failed, what),
    };
    match put(resource, &text, there.as_deref(), options) {
        Ok(done) => done,
        Err(error) => Done::new(Standing::Failed, format!("{error}; the file stays as it was")),
    }
}

fn rendered(
    loaded: &Loaded,
    pairs: &Arc<Pairs>,
    around: &Arc<dyn Surroundings>,
) -> Result<String, String> {
    let path = &loaded.template;
    let source = std::fs::read_to_string(path).map_err(|error| naming(path, &error).to_string())?;
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    confd::fill(&name, &source, pairs, around).map_err(|error| error.to_string())
}

/// Mode and owner that a file has, or should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    mode: u32,
    owner: (u32, u32),
}

fn rights(resource: &Resource) -> io::Result<(Rights, Option<Rights>)> {
    let there = std::fs::metadata(&resource.dest)
        .ok()
        .map(|about| Rights { mode: about.mode() & 0o7777, owner: (about.uid(), about.gid()) });
    let id = |who: &Option<Who>, table: &str, otherwise: u32| match who {
        None => Ok(otherwise),
        Some(Who::Id(id)) => Ok(*id),
        Some(Who::Name(name)) => number_of(name, Path::new(table)),
    };
    let wanted = Rights {
        mode: resource.mode.or(there.map(|there| there.mode)).unwrap_or(0o644),
        owner: (
            id(&resource.owner, "/etc/passwd", rustix::process::geteuid().as_raw())?,
            id(&resource.group, "/etc/group", rustix::process::getegid().as_raw())?,
        ),
    };
    Ok((wanted, there))
}

/// The number of a user or group.
fn number_of(name: &str, table: &Path) -> io::Result<u32> {
    let text = std::fs::read_to_string(table).map_err(|error| naming(table, &error))?;
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| {
            let table = table.display();
            io::Error::other(format!(
                "there is no `{name}` in {table}: name its number by `uid` or `gid`"
            ))
        })
}

fn put(
    resource: &Resource,
    text: &str,
    there: Option<&[u8]>,
    options: Options,
) -> io::Result<Done> {
    let dest = &resource.dest;
    let (wanted, now) = rights(resource)?;
    let mark = Mark::of(dest);
    let has_reload = resource.reload.is_some() && !options.sync_only;
    let steps = plan::steps(Difference {
        text: there != Some(text.as_bytes()),
        rights: now.is_some() && now != Some(wanted),
        owes_reload: has_reload && mark.is_there(),
    });
    if options.noop {
        return Ok(if steps.replace || (steps.reload && has_reload) {
            Done::new(Standing::Differs, words_of_difference(text, there))
        } else {
            Done::new(Standing::Current, "as it should be")
        });
    }
    if steps.replace {
        sweep(dest);
        let staged = stage(dest, text, wanted)?;
        if let Some(check) = resource.check.as_ref().filter(|_| steps.check && !options.sync_only) {
            let said = run(&command(check, staged.path(), dest)?);
            if let Err(what) = said {
                if options.keep_stage {
                    let kept = staged.into_temp_path().keep().map_err(|error| error.error)?;
                    return Ok(refused(&format!("{what} (kept: {})", kept.display())));
                }
                return Ok(refused(&what));
            }
        }
        if has_reload {
            mark.put()?;
        }
        replace(staged, dest)?;
    }
    let is_replaced = steps.replace;
    let done = |standing, because: String| Done { standing, because, is_replaced };
    let what = if is_replaced { "replaced" } else { "as it should be" };
    let Some(reload) = resource.reload.as_ref().filter(|_| steps.reload && has_reload) else {
        return Ok(done(Standing::Current, what.to_owned()));
    };
    match run(&command(reload, dest, dest)?) {
        Ok(()) => {
            mark.take()?;
            Ok(done(Standing::Current, format!("{what}, its program was told")))
        }
        Err(said) => {
            Ok(done(Standing::Unread, format!("{what}, but the reload command failed: {said}")))
        }
    }
}

fn refused(said: &str) -> Done {
    Done::new(
        Standing::Failed,
        format!("the check command refused it, the former file stays: {said}"),
    )
}

fn words_of_difference(text: &str, there: Option<&[u8]>) -> String {
    let Some(there) = there else {
        return format!("it would be made, with {} lines", text.lines().count());
    };
    let there = String::from_utf8_lossy(there);
    let lacks = |of: &str, other: &str| {
        let other: std::collections::BTreeSet<&str> = other.lines().collect();
        of.lines().filter(|line| !other.contains(line)).count()
    };
    let (more, less) = (lacks(text, &there), lacks(&there, text));
    format!("it would be replaced: {more} new lines, {less} go")
}

/// The finished file, beside where it goes.
fn stage(dest: &Path, text: &str, rights: Rights) -> io::Result<NamedTempFile> {
    let folder = dest.parent().unwrap_or(Path::new("/"));
    let mut staged = tempfile::Builder::new()
        .prefix(&format!("{}.", hidden(dest)))
        .suffix(STAGED)
        .tempfile_in(folder)
        .map_err(|error| naming(folder, &error))?;
    staged.write_all(text.as_bytes())?;
    let file = staged.as_file();
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != rights.owner {
        fchown(file, Some(rights.owner.0), Some(rights.owner.1))
            .map_err(|error| naming(dest, &error))?;
    }
    file.set_permissions(Permissions::from_mode(rights.mode))?;
    file.sync_all()?;
    Ok(staged)
}

/// By rename; where the file itself is mounted, as in containers, by writing into it.
fn replace(staged: NamedTempFile, dest: &Path) -> io::Result<()> {
    match staged.persist(dest) {
        Ok(_) => {
            if let Some(folder) = dest.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(())
        }
        Err(error) if error.error.kind() == io::ErrorKind::ResourceBusy => {
            let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(dest)?;
            io::copy(&mut File::open(error.file.path())?, &mut file)?;
            file.sync_all()
        }
        Err(error) => Err(naming(dest, &error.error)),
    }
}

/// `.haproxy.cfg`
fn hidden(dest: &Path) -> String {
    format!(".{}", dest.file_name().map(|name| name.to_string_lossy()).unwrap_or_default())
}

/// Deletes what processes that died have staged here.
fn sweep(dest: &Path) {
    let Some(Ok(entries)) = dest.parent().map(std::fs::read_dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let is_staged = name.starts_with(&format!("{}.", hidden(dest))) && name.ends_with(STAGED);
        let age = std::fs::metadata(&path)
            .ok()
            .and_then(|about| u64::try_from(about.mtime()).ok())
            .map(|second| {
                Duration::from_millis(clock::wall_ms()).saturating_sub(Duration::from_secs(second))
            });
        if is_staged && age.is_some_and(|age| age > LEFT) {
            let _gone_already = std::fs::remove_file(&path);
        }
    }
}

/// The mark that a program has not been told of its file.
struct Mark(PathBuf);

impl Mark {
    fn of(dest: &Path) -> Self {
        Self(dest.with_file_name(format!("{}.unread", hidden(dest))))
    }

    fn is_there(&self) -> bool {
        self.0.exists()
    }

    fn put(&self) -> io::Result<()> {
        File::create(&self.0).map(drop).map_err(|error| naming(&self.0, &error))
    }

    fn take(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(naming(&self.0, &error)),
            _ => Ok(()),
        }
    }
}

/// A command with the paths filled in.
fn command(command: &str, src: &Path, dest: &Path) -> io::Result<String> {
    confd::command(command, &src.to_string_lossy(), &dest.to_string_lossy())
        .map_err(io::Error::other)
}

/// Runs a shell command; when it failed, what it said. What it left running in the background is not waited for.
fn run(command: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("`{command}`: {error}");
    let mut said = tempfile::tempfile().map_err(failed)?;
    let output = || said.try_clone().map(Stdio::from).map_err(failed);
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let late = clock::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if clock::now() > late {
            if let Some(group) =
                rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
            {
                // Ended this very moment is as good.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _reaped = child.wait();
            return Err(format!("`{command}` did not end within {} s", LONGEST.as_secs()));
        }
        std::thread::sleep(LOOK);
    };
    if status.success() {
        return Ok(());
    }
    let mut words = Vec::new();
    said.rewind().map_err(failed)?;
    said.take(64 * 1024).read_to_end(&mut words).map_err(failed)?;
    let words = tail(&String::from_utf8_lossy(&words), WORDS);
    Err(format!("`{command}`: {status}: {}", words.trim()))
}
