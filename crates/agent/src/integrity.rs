//! What lies where it has no business: PHP among uploads, strangers and changes in a site's code.
//!
//! PHP in uploads never runs through the edge, and code belongs to root; but what got there came through a hole, and may be
//! included by what came with it. So it is found within seconds, taken out of reach, kept as evidence, and the site's
//! instances are replaced, because their memory may hold what was started from it.
//!
//! Looking is cheap: a folder's time of change says whether a name came or went, and only such folders are read. The code
//! is hashed again after any such change, and every ten minutes.
//!
//! Always: uploads belong to somebody who may be hostile and quick, and we are root. Folders are opened beneath the site's
//! own without following any link, and files are moved by their folder's descriptor and their name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::id::{ReleaseId, SiteName};
use pressroom_plan::machine::instance_of;
use pressroom_release::releases::Releases;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use rustix::fs::{CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::agent::Agent;
use crate::files;
use crate::writes::MOST_SCRATCH;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Between two hashes of a site's code without a reason.
const HASH: Duration = Duration::from_secs(600);
/// Between two looks at how much plugins keep.
const BOUND: Duration = Duration::from_secs(60);
/// A file that says nothing is not longer.
const LONGEST_STUB: u64 = 4096;
/// Folders within folders.
const DEPTH: usize = 32;

/// When a folder changed last, as far as a look needs it.
type Stamp = (i64, u64, u64);

/// What is remembered of a tree between two looks: every folder in it.
#[derive(Debug, Default)]
struct Known {
    folders: BTreeMap<PathBuf, Stamp>,
}

/// A file that runs, where none should.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// Its folder, below the tree.
    folder: PathBuf,
    name: OsString,
}

#[derive(Debug, Default)]
struct Site {
    uploads: Known,
    code: Known,
    hashed: Option<(ReleaseId, Instant)>,
    bounded: Option<Instant>,
    /// What was said of the code last, so that it is said once.
    said: String,
}

impl Agent {
    /// Looks for as long as the agent runs.
    pub(crate) async fn watch_files(self: Arc<Self>, shutdown: Shutdown) {
        let mut sites: BTreeMap<SiteName, Site> = BTreeMap::new();
        while !shutdown.is_requested() {
            let begun = clock::now();
            let names: Vec<SiteName> = {
                let state = self.state.lock();
                let is_there = |facts: &crate::facts::SiteFacts| facts.serving.is_some();
                state.sites.iter().filter(|(_, f)| is_there(f)).map(|(n, _)| n.clone()).collect()
            };
            sites.retain(|name, _| names.contains(name));
            for name in names {
                let mut site = sites.remove(&name).unwrap_or_default();
                let agent = Arc::clone(&self);
                let of = name.clone();
                let looked = tokio::task::spawn_blocking(move || {
                    agent.look_at_uploads(&of, &mut site);
                    agent.look_at_code(&of, &mut site);
                    site
                });
                // A look that panicked begins anew.
                sites.insert(name, looked.await.unwrap_or_default());
            }
            let pause = LOOK.max(begun.elapsed() * 10);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    fn look_at_uploads(&self, name: &SiteName, site: &mut Site) {
        let root = self.layout.uploads(name);
        let found = match site.uploads.look(&root, is_runnable) {
            Ok((found, _)) => found,
            Err(error) => {
                return tracing::debug!(site = %name, %error, "cannot look at the uploads");
            }
        };
        for one in found {
            match self.take_out(name, &root, &one) {
                Ok(None) => {}
                Ok(Some(kept)) => {
                    let path = one.folder.join(&one.name);
                    self.alarm(
                        name,
                        &format!("`{}` among the uploads can run", path.display()),
                        &format!("it was moved to {}", kept.display()),
                    );
                }
                Err(error) => self.notice(format!(
                    "`{name}`: `{}` among the uploads can run, and cannot be moved away: {error}",
                    one.folder.join(&one.name).display()
                )),
            }
        }
    }

    fn look_at_code(&self, name: &SiteName, site: &mut Site) {
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            facts.and_then(|facts| Some(facts.serving.as_ref()?.release.id.clone()))
        };
        let Some(id) = serving else { return };
        if site.hashed.as_ref().is_none_or(|(hashed, _)| *hashed != id) {
            site.code = Known::default();
        }
        let root = self.layout.site_root(name, &id);
        let is_first = site.code.folders.is_empty();
        let has_changed = match site.code.look(&root, |_| false) {
            Ok((_, changed)) => changed && !is_first,
            Err(_) => true,
        };
        let now = clock::now();
        if site.bounded.is_none_or(|at| now > at + BOUND) {
            site.bounded = Some(now);
            self.bound_scratch(name, &id, MOST_SCRATCH);
        }
        let is_due = match &site.hashed {
            Some((hashed, at)) => *hashed != id || now > *at + HASH,
            // Just built: everything was hashed a moment ago, or it was when the last agent ran.
            None => {
                site.hashed = Some((id.clone(), now));
                false
            }
        };
        if !(is_due || has_changed) {
            return;
        }
        site.hashed = Some((id.clone(), now));
        let faults = match Releases::at(self.layout.releases()).verify_linked(&id, &root) {
            Ok(faults) => faults,
            Err(error) => {
                return tracing::warn!(site = %name, %error, "the code cannot be verified");
            }
        };
        let words: Vec<String> =
            faults.iter().map(|fault| format!("`{}`: {}", fault.path, fault.what)).collect();
        let words = words.join("; ");
        if !words.is_empty() && words != site.said {
            self.alarm(
                name,
                &format!("its code is not what release {id} says: {words}"),
                &format!("`pressroom release verify {name}` shows it, `pressroom deploy {name}` makes it anew"),
            );
        }
        site.said = words;
    }

    /// Says it, and has the instances of the site replaced.
    fn alarm(&self, name: &SiteName, what: &str, then: &str) {
        tracing::warn!(site = %name, what, then, "integrity");
        self.notice(format!("`{name}`: {what}; {then}; its instances are replaced"));
        let mut state = self.state.lock();
        let running: Vec<(String, i32)> = state
            .processes
            .iter()
            .filter(|process| instance_of(&process.spec.name).is_some_and(|id| id.site() == *name))
            .filter_map(|process| Some((process.spec.name.clone(), process.pid?)))
            .collect();
        for (process, pid) in running {
            state.tired.insert(process, (pid, what.to_owned()));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Moves a file out of the site's reach; where it is kept, or `None` if it says nothing or is gone.
    fn take_out(&self, name: &SiteName, root: &Path, found: &Found) -> io::Result<Option<PathBuf>> {
        let root = open_folder(CWD, root, ResolveFlags::empty())?;
        let folder = open_beneath(&root, &found.folder)?;
        if is_stub(&folder, &found.name)? {
            return Ok(None);
        }
        let kept = self.layout.evidence(name);
        files::folder(&kept, 0o700, None)?;
        let stamp = clock::stamp(clock::wall_ms());
        let into = open_folder(CWD, &kept, ResolveFlags::empty())?;
        let as_name = format!("{stamp}-{}", found.name.to_string_lossy());
        match rustix::fs::renameat(&folder, &found.name, &into, &as_name) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            moved => moved?,
        }
        // A hard link of its maker's stays his; the one that we keep is root's to read.
        rustix::fs::chownat(
            &into,
            &as_name,
            Some(Uid::ROOT),
            Some(Gid::ROOT),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .or_else(|error| if rustix::process::geteuid().is_root() { Err(error) } else { Ok(()) })?;
        let _file = rustix::fs::chmodat(
            &into,
            &as_name,
            Mode::from_raw_mode(0o400),
            rustix::fs::AtFlags::empty(),
        );
        Ok(Some(kept.join(as_name)))
    }
}

impl Known {
    /// Reads the folders that changed since the last look: files whose names are `wanted` in them, and whether any changed.
    fn look(
        &mut self,
        root: &Path,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<(Vec<Found>, bool)> {
        let top = open_folder(CWD, root, ResolveFlags::empty())?;
        let mut found = Vec::new();
        let mut has_changed = false;
        let mut queue: Vec<PathBuf> = match self.folders.is_empty() {
            true => vec![PathBuf::new()],
            false => self.folders.keys().cloned().collect(),
        };
        while let Some(path) = queue.pop() {
            let folder = match open_beneath(&top, &path) {
                Ok(folder) => folder,
                // It went, or is a link now: its parent has changed as well.
                Err(_) => {
                    self.folders.remove(&path);
                    continue;
                }
            };
            let stat = rustix::fs::fstat(&folder)?;
            let stamp = (stat.st_mtime, stat.st_mtime_nsec as u64, stat.st_ino);
            if self.folders.get(&path) == Some(&stamp) {
                continue;
            }
            has_changed = true;
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                if name == "." || name == ".." {
                    continue;
                }
                if entry.file_type() == FileType::Directory {
                    let below = path.join(&name);
                    if !self.folders.contains_key(&below) && below.components().count() <= DEPTH {
                        queue.push(below);
                    }
                } else if wanted(&name.to_string_lossy()) {
                    found.push(Found { folder: path.clone(), name });
                }
            }
            // Remembered as it was before it was read: what came meanwhile is seen by the next look.
            self.folders.insert(path, stamp);
        }
        Ok((found, has_changed))
    }
}

fn open_folder(
    at: impl AsFd,
    path: &Path,
    resolve: ResolveFlags,
) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
}

/// A folder below another one, with no link on the way.
fn open_beneath(top: &OwnedFd, path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    open_folder(top, path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Names that some PHP somewhere would run; the edge has the same list (planes and hands do not share code).
fn is_runnable(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.split('.').skip(1).any(|end| {
        matches!(end, "php" | "phtml" | "phar" | "phps" | "pht")
            || end
                .strip_prefix("php")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Whether a file does nothing: many plugins put an `index.php` with a comment into every folder.
fn is_stub(folder: &OwnedFd, name: &OsString) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        // A link, or gone: a link is moved like a file.
        Err(_) => return Ok(false),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > LONGEST_STUB {
        return Ok(false);
    }
    let mut text = String::new();
    let read = io::Read::read_to_string(&mut io::Read::take(file, LONGEST_STUB), &mut text);
    Ok(read.is_ok() && says_nothing(&text))
}

/// Whether PHP code consists of comments alone.
fn says_nothing(code: &str) -> bool {
    let mut rest = code.trim();
    rest = rest.strip_prefix("<?php").unwrap_or(rest);
    rest = rest.strip_suffix("?>").unwrap_or(rest);
    loop {
        rest = rest.trim_start();
        let end = if rest.starts_with("/*") {
            rest.find("*/").map(|at| at + 2)
        } else if rest.starts_with("//") || rest.starts_with('#') && !rest.starts_with("#[") {
            // A comment of one line ends with the code, too.
            let line = rest.find('\n').unwrap_or(rest.len());
            if rest[..line].contains("?>") { None } else { Some(line) }
        } else {
            return rest.is_empty();
        };
        match end {
            Some(end) => rest = &rest[end..],
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_comments_is_no_code() {
        for stub in ["", "<?php\n// Silence is golden.\n", "<?php /* nothing */ # here\n?>", "  \n"]
        {
            assert!(says_nothing(stub), "{stub}");
        }
        for code in [
            "<?php eval($_GET['x']);",
            "<?php // a ?> <?php system('id');",
            "<?php /* a */ phpinfo();",
            "<?php #[A]\nfunction f() {}",
            "<?=`id`?>",
            "GIF89a<?php system('id');",
            "<?php /* open",
        ] {
            assert!(!says_nothing(code), "{code}");
        }
    }

    #[test]
    fn names_that_run_somewhere_are_known() {
        for name in ["a.php", "a.PHP7", "a.phtml", "a.php.jpg", ".php", "a.phar"] {
            assert!(is_runnable(name), "{name}");
        }
        for name in ["a.jpg", "php", "photo.phpx.jpg", "a.html", "phpinfo.txt"] {
            assert!(!is_runnable(name), "{name}");
        }
    }

    #[test]
    fn only_what_came_since_the_last_look_is_found_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("uploads");
        std::fs::create_dir_all(root.join("2026/01")).expect("made");
        std::fs::write(root.join("2026/01/old.php"), "x").expect("written");
        let mut known = Known::default();
        let names = |found: &[Found]| -> Vec<PathBuf> {
            found.iter().map(|one| one.folder.join(&one.name)).collect()
        };
        let (found, _) = known.look(&root, is_runnable).expect("looked");
        assert_eq!(names(&found), [PathBuf::from("2026/01/old.php")]);
        let (found, changed) = known.look(&root, is_runnable).expect("looked");
        assert!(found.is_empty() && !changed);
        std::fs::create_dir(root.join("2026/02")).expect("made");
        std::fs::write(root.join("2026/02/new.phtml"), "x").expect("written");
        std::os::unix::fs::symlink("/etc", root.join("link")).expect("linked");
        let (found, changed) = known.look(&root, is_runnable).expect("looked");
        assert_eq!(names(&found), [PathBuf::from("2026/02/new.phtml")]);
        assert!(changed && !known.folders.contains_key(Path::new("link")));
    }
}
