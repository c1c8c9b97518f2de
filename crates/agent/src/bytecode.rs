//! Compiled code of releases, so that a new instance does not compile all of WordPress again.
//!
//! PHP keeps bytecode in files (opcache's file cache) and believes them: who writes them decides what runs. So they are
//! made by us, of code that nobody runs meanwhile: a release's files are compiled once, after it has begun to serve, by a process
//! that sees nothing but them. What it made is copied, belongs to root, and is bound into the views of the release's instances. The
//! next release takes over what it has in common with this one, and compiles the rest in its instances until its own turn comes.
//!
//! Always: a release's bytecode is of files that have that digest at that path. What is missing or damaged PHP compiles itself.
//! An instance cannot write it, nor put another folder in its place: see [`places`]. Only where sites are confined.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pressroom_model::config::Site;
use pressroom_model::confinement::{Access, Confinement, Limits, Place, View};
use pressroom_model::id::ReleaseId;
use pressroom_model::unit::ByteSize;
use pressroom_release::manifest::Manifest;
use pressroom_release::releases::Releases;
use pressroom_runtime::shutdown::Shutdown;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::confinement::{self, CODE};
use crate::engine::fingerprint;
use crate::facts::Version;
use crate::files;
use crate::host;
use crate::keeper::confine;
use crate::layout::Layout;

/// Where PHP sees it.
pub(crate) const SEEN_AT: &str = "/srv/bytecode";
/// So much is written beside it at most; nothing need be.
const BESIDE: u64 = 64 << 10;
/// Files that declare the same names need a process each.
const PASSES: usize = 3;
/// Files that are compiled by one process: it keeps all their classes in memory.
const AT_ONCE: usize = 1500;
const LIMIT: Duration = Duration::from_secs(120);
/// What is kept of one file is not longer.
const LONGEST: u64 = 64 << 20;
/// A disk with less room is left alone: databases and releases need it.
const ROOM: ByteSize = ByteSize::mib(256);
/// Between two looks at the room while something is being compiled.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks for releases without it.
const AGAIN: Duration = Duration::from_secs(60);

/// What the agent keeps for it.
#[derive(Debug, Default)]
pub(crate) struct Bytecode {
    /// Something else serves.
    pub(crate) due: Notify,
    /// What cannot be compiled is not tried again and again.
    given_up: Mutex<BTreeSet<ReleaseId>>,
}

/// The bytecode of a release in an instance's view. PHP insists on a folder that it can write, so it gets one, in memory and of its
/// own; the one that it reads, named by PHP's build, is mounted in there. A mounted folder can be neither written nor renamed.
pub(crate) fn places(bytecode: &Path) -> Vec<Place> {
    let seen_at = PathBuf::from(SEEN_AT);
    let to = seen_at.join(bytecode.file_name().unwrap_or_default());
    let from = bytecode.to_owned();
    vec![
        Place::Memory { to: seen_at, bytes: BESIDE },
        Place::Bind { from, to, access: Access::Read, if_there: false },
    ]
}

/// Only what we confine has some. Settings that change what a file is compiled to are rare; a site with one compiles for itself.
fn has_some(version: &Version) -> bool {
    let changes = |key: &String| {
        key.starts_with("opcache.")
            || key.starts_with("zend.")
            || key.starts_with("assert.")
            || matches!(key.as_str(), "short_open_tag" | "precision" | "serialize_precision")
    };
    version.means.view && version.image.is_none() && !version.site.php.ini.keys().any(changes)
}

/// The folder of everything that this build of PHP compiled.
fn of_build(layout: &Layout, php: &str) -> io::Result<PathBuf> {
    let mut facts = Vec::new();
    for program in [format!("/usr/sbin/php-fpm{php}"), format!("/usr/bin/php{php}")] {
        let meta =
            fs::metadata(&program).map_err(|error| files::naming(program.as_ref(), &error))?;
        facts.extend([
            meta.len().to_le_bytes(),
            meta.mtime().to_le_bytes(),
            meta.ino().to_le_bytes(),
        ]);
    }
    Ok(layout.bytecode().join(format!("{php}-{}", fingerprint(&[facts.as_flattened()]))))
}

/// The folder that PHP's build has named, in a release's own.
fn named_by_build(folder: &Path) -> Option<PathBuf> {
    let is_name = |name: &str| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    entries.find(|entry| entry.file_name().to_str().is_some_and(is_name)).map(|entry| entry.path())
}

/// Where PHP looks for the bytecode of a file of the release, below the folder that its build has named.
fn beside(path: &str) -> PathBuf {
    Path::new(CODE.trim_start_matches('/')).join(format!("{path}.bin"))
}

/// Whether the disk has room for what nobody needs.
fn has_room(layout: &Layout) -> bool {
    host::free_space(layout.data()).is_ok_and(|free| free >= ROOM)
}

fn scripts(manifest: &Manifest) -> impl Iterator<Item = &String> {
    manifest.files.keys().filter(|path| path.ends_with(".php"))
}

/// Says that everything of a release that can be compiled was.
fn mark(folder: &Path) -> PathBuf {
    folder.join("whole")
}

impl Agent {
    /// The bytecode of a version's release for its instances, as far as there is some.
    pub(crate) fn bytecode_of(&self, version: &Version) -> Option<PathBuf> {
        if !has_some(version) {
            return None;
        }
        let folder = of_build(&self.layout, &version.site.php.version).ok()?;
        named_by_build(&folder.join(version.release.id.as_str()))
    }

    /// Compiles what serves, for as long as the agent runs.
    pub(crate) async fn keep_bytecode(self: Arc<Self>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            let layout = self.layout.clone();
            if let Err(error) = off_the_loop(move || forget_gone(&layout)).await {
                tracing::warn!(%error, "bytecode of a deleted release stays");
            }
            for version in self.served_versions() {
                let work = self.compile(&version);
                tokio::select! {
                    compiled = work => if let Err(error) = compiled {
                        tracing::warn!(site = %version.site.name, %error, "its code is compiled by each instance");
                        self.bytecode.given_up.lock().insert(version.release.id.clone());
                    },
                    () = shutdown.requested() => return,
                }
            }
            tokio::select! {
                () = self.bytecode.due.notified() => {}
                () = tokio::time::sleep(AGAIN) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    fn served_versions(&self) -> Vec<Version> {
        let state = self.state.lock();
        let settled = state.sites.values().filter(|f| f.is_installed && f.candidate.is_none());
        settled.filter_map(|facts| facts.serving.clone()).collect()
    }

    /// Compiles what is lacking of a version's release.
    async fn compile(&self, version: &Version) -> io::Result<()> {
        let (site, id) = (&version.site, &version.release.id);
        let builder = self.users.builder().map_err(io::Error::other)?;
        let (true, Some(builder)) = (has_some(version), builder) else {
            return Ok(());
        };
        if !has_room(&self.layout) {
            return Ok(());
        }
        let build = of_build(&self.layout, &site.php.version)?;
        let folder = build.join(id.as_str());
        if mark(&folder).exists() || self.bytecode.given_up.lock().contains(id) {
            return Ok(());
        }
        sweep(&self.layout.bytecode(), &build, &site.php.version)?;
        files::folder(&folder, 0o755, None)?;
        let manifest =
            Releases::at(self.layout.releases()).manifest(id).map_err(io::Error::other)?;
        let scratch = Scratch(build.join(".compiling"));
        for _ in 0..PASSES {
            let have = named_by_build(&folder);
            let is_lacking =
                |path: &&String| have.as_ref().is_none_or(|have| !have.join(beside(path)).exists());
            let lacking: Vec<String> = scripts(&manifest).filter(is_lacking).cloned().collect();
            let before = lacking.len();
            for some in lacking.chunks(AT_ONCE) {
                remove(&scratch.0)?;
                files::folder(&scratch.0, 0o700, Some((builder.uid, builder.gid)))?;
                self.run_compiler(version, &builder, &scratch.0, some).await?;
                if !has_room(&self.layout) {
                    return Ok(());
                }
                let (from, to, some) = (scratch.0.clone(), folder.clone(), some.to_vec());
                off_the_loop(move || keep(&from, &to, &some)).await?;
            }
            let have = named_by_build(&folder);
            let is_made =
                |path: &&String| have.as_ref().is_some_and(|have| have.join(beside(path)).exists());
            let made = lacking.iter().filter(is_made).count();
            if made == 0 || made == before {
                break;
            }
        }
        // What was not compiled by now never will be: PHP says so when it is run.
        files::write(&mark(&folder), b"", 0o444, None)?;
        Ok(())
    }

    async fn until_no_room(&self) {
        while has_room(&self.layout) {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn run_compiler(
        &self,
        version: &Version,
        builder: &pressroom_model::process::UserIds,
        scratch: &Path,
        paths: &[String],
    ) -> io::Result<()> {
        let script = self.layout.engine("wordpress").join("compile.php");
        files::folder(&self.layout.engine("wordpress"), 0o755, None)?;
        files::write(&script, crate::site::compiler(), 0o644, None)?;
        let php = &version.site.php.version;
        let mut command = tokio::process::Command::new("/usr/bin/nice");
        command.args(["-n", "19"]).arg(format!("/usr/bin/php{php}"));
        for setting in [
            "memory_limit=1G",
            "max_execution_time=0",
            "display_errors=0",
            "log_errors=0",
            "opcache.enable=1",
            "opcache.enable_cli=1",
            "opcache.file_cache_only=1",
            "opcache.file_update_protection=0",
            "opcache.save_comments=1",
            // Machine code is not kept in files, and with it nothing would be.
            "opcache.jit_buffer_size=0",
            &format!("opcache.file_cache={SEEN_AT}"),
        ] {
            command.args(["-d", setting]);
        }
        command.arg(&script).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("PHP_INI_SCAN_DIR", format!("/etc/php/{php}/fpm/conf.d"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true);
        let confinement = Confinement {
            view: Some(View {
                stage: self.layout.stage(),
                places: confinement::of_compiler(
                    &Releases::at(self.layout.releases()).tree(&version.release.id),
                    (scratch, SEEN_AT.as_ref()),
                    &script,
                    version.means,
                ),
            }),
            own_processes: version.means.processes,
            own_ipc: version.means.ipc,
            filters_calls: version.means.calls,
            limits: Limits::default(),
        };
        confine(command.as_std_mut(), &confinement, Some(builder), Path::new("/"))?;
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take();
        let names: String = paths.iter().map(|path| format!("{CODE}/{path}\0")).collect();
        let work = async {
            if let Some(stdin) = &mut stdin {
                stdin.write_all(names.as_bytes()).await?;
            }
            drop(stdin.take());
            child.wait().await.map(drop)
        };
        let work = async {
            tokio::select! {
                ended = work => ended,
                () = self.until_no_room() => Ok(()),
            }
        };
        // What was compiled until it failed counts: PHP writes each file whole and under another name first.
        let ended = tokio::time::timeout(LIMIT, work).await;
        // However that was: it writes no more.
        let _gone = child.kill().await;
        match ended {
            Ok(ended) => ended,
            Err(_) => Err(io::Error::other(format!("no end within {} s", LIMIT.as_secs()))),
        }
    }
}

/// Gives a new release the bytecode of the files that it has in common with another one. It is a matter of speed alone.
pub(crate) fn take_over(layout: &Layout, site: &Site, from: &ReleaseId, id: &ReleaseId) {
    if !has_room(layout) {
        return;
    }
    let releases = Releases::at(layout.releases());
    let taken = of_build(layout, &site.php.version)
        .and_then(|build| take_over_in(&build, &releases, from, id));
    if let Err(error) = taken {
        tracing::debug!(site = %site.name, %error, "a new release begins without bytecode");
    }
}

/// Forgets the bytecode of releases that are gone, whoever deleted them.
fn forget_gone(layout: &Layout) -> io::Result<()> {
    let releases = Releases::at(layout.releases());
    let Ok(builds) = fs::read_dir(layout.bytecode()) else { return Ok(()) };
    for folder in builds.flatten().filter_map(|build| fs::read_dir(build.path()).ok()) {
        for entry in folder.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<ReleaseId>().ok());
            if id.is_some_and(|id| !releases.tree(&id).is_dir()) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn take_over_in(
    build: &Path,
    releases: &Releases,
    from: &ReleaseId,
    id: &ReleaseId,
) -> io::Result<()> {
    // Of two sites that get the same release one does it.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let folder = build.join(id.as_str());
    let Some(theirs) = named_by_build(&build.join(from.as_str())) else { return Ok(()) };
    if folder.exists() {
        return Ok(());
    }
    let manifest = |id| releases.manifest(id).map_err(io::Error::other);
    let (before, now) = (manifest(from)?, manifest(id)?);
    let scratch = Scratch(build.join(format!(".taking-{id}")));
    remove(&scratch.0)?;
    files::folder(&scratch.0, 0o755, None)?;
    let ours = scratch.0.join(theirs.file_name().unwrap_or_default());
    let mut folders = BTreeSet::new();
    let same = scripts(&now).filter(|path| before.files.get(*path) == now.files.get(*path));
    for path in same {
        let (old, new) = (theirs.join(beside(path)), ours.join(beside(path)));
        make_above(&new, &mut folders)?;
        match fs::hard_link(old, new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // It does not compile, or was not yet.
            _ => {}
        }
    }
    fs::rename(&scratch.0, &folder)
}

/// Copies what the compiler made: by then it has ended, but what it left is not to be trusted to be plain files.
fn keep(scratch: &Path, folder: &Path, paths: &[String]) -> io::Result<()> {
    let Some(made) = named_by_build(scratch) else { return Ok(()) };
    let name = made.file_name().unwrap_or_default();
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, &made, flags, Mode::empty())?;
    let mut folders = BTreeSet::new();
    for path in paths {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = rustix::fs::openat2(&top, beside(path), flags, Mode::empty(), resolve);
        let Ok(opened) = opened else { continue };
        let mut from = fs::File::from(opened);
        let meta = from.metadata()?;
        if !meta.is_file() || meta.len() > LONGEST {
            continue;
        }
        let to = folder.join(name).join(beside(path));
        make_above(&to, &mut folders)?;
        let fresh = to.with_extension("new");
        let mut copy = fs::File::create(&fresh)?;
        io::copy(&mut io::Read::take(&mut from, LONGEST), &mut copy)?;
        copy.flush()?;
        copy.set_permissions(fs::Permissions::from_mode(0o444))?;
        fs::rename(&fresh, &to)?;
    }
    Ok(())
}

fn make_above(path: &Path, made: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !made.contains(folder) => {
            make_above(folder, made)?;
            if !folder.is_dir() {
                files::folder(folder, 0o755, None)?;
            }
            made.insert(folder.to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What other builds of this version of PHP have compiled is of no use any more.
fn sweep(all: &Path, build: &Path, php: &str) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(all) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.path() != build) {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&format!("{php}-"))) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A folder that is removed however its maker ends; renaming it away keeps it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a scratch folder stays");
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(files::naming(folder, &error)),
        _ => Ok(()),
    }
}
