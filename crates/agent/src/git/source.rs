//! A git repository at a ref as the source of a site's code: fetched, laid out as a folder, completed by composer where it has a
//! lock file.
//!
//! Fetched objects are kept for the next time. Composer runs code that came with the repository: as a user that owns nothing else,
//! with nothing of a site's secrets in its reach, and for ten minutes at most.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use pressroom_model::id::SiteName;
use pressroom_model::process::UserIds;
use pressroom_release::source::not_code;

use super::repository::{self, GitError, Oid, Repository};
use crate::files;
use crate::layout::Layout;

/// Where what was fetched last stands.
const FETCHED: &str = "refs/pressroom/fetched";
/// Longest question, fetch and composer, in seconds.
const LOOK: &str = "30";
const FETCH: &str = "600";
const COMPOSER: &str = "600";
const TIMEOUT: &str = "/usr/bin/timeout";
/// All files of a repository, unpacked.
const MOST_BYTES: u64 = 4 << 30;

/// Why there is no folder of a repository.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It does not answer, or not to us.
    #[error(
        "`{url}` at `{reference}` cannot be fetched: {said}; is it there, and may the user that runs Pressroom read it? (by ssh with a key that has no passphrase)"
    )]
    Unreachable {
        /// The repository.
        url: String,
        /// The ref.
        reference: String,
        /// Git's own words.
        said: String,
    },
    /// It has what a release cannot have.
    #[error("`{path}` of `{url}` cannot be part of a release: {why}")]
    File {
        /// The repository.
        url: String,
        /// The file.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// Composer failed.
    #[error("composer did not install what the lock file of `{url}` names: {said}")]
    Composer {
        /// The repository.
        url: String,
        /// Its own words.
        said: String,
    },
    /// Git or the disk failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file.
    #[error("the folder for a git repository: {0}")]
    Io(#[from] std::io::Error),
}

/// A repository, laid out; the folder is gone with it.
#[derive(Debug)]
pub(crate) struct Checkout {
    pub(crate) folder: PathBuf,
    pub(crate) commit: String,
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "a checkout stays until the next one");
        }
    }
}

/// Which commit a ref means now.
pub(crate) fn look(layout: &Layout, url: &str, reference: &str) -> Result<String, SourceError> {
    if let Some(commit) = Oid::parse(reference) {
        return Ok(commit.as_str().to_owned());
    }
    let mut command = asking(layout, url, LOOK)?;
    let output = command.args(["ls-remote", "--quiet", "--", url, reference]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Of an annotated tag the commit comes last.
    let last = text.lines().filter_map(|line| line.split_whitespace().next()).next_back();
    match last.filter(|_| output.status.success()) {
        Some(commit) => Ok(commit.to_owned()),
        None => Err(unreachable(url, reference, &output.stderr)),
    }
}

/// Fetches a repository and lays it out for a site. `builder`: whoever composer runs as.
pub(crate) fn checkout(
    layout: &Layout,
    site: &SiteName,
    (url, reference): (&str, &str),
    builder: Option<&UserIds>,
) -> Result<Checkout, SourceError> {
    let name = blake3::hash(url.as_bytes()).to_hex();
    let kept = layout.histories().join("sources").join(format!("{}.git", &name[..16]));
    let repository = Repository::at(&kept);
    repository.make("#!/bin/sh\nexit 1\n")?;
    let mut command = asking(layout, url, FETCH)?;
    command.arg("--git-dir").arg(&kept).args([
        "fetch",
        "--quiet",
        "--force",
        "--no-tags",
        "--depth=1",
        "--no-recurse-submodules",
        "--",
        url,
        &format!("{reference}:{FETCHED}"),
    ]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(unreachable(url, reference, &output.stderr));
    }
    let folder = layout.build(site);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    files::folder(&layout.builds(), 0o711, None)?;
    files::folder(&folder, 0o700, None)?;
    let commit = repository.one(&format!("{FETCHED}^{{commit}}"))?;
    let checkout = Checkout { folder, commit: commit.as_str().to_owned() };
    let mut paths = lay_out(&repository, url, &checkout.folder)?;
    if let Some(composer) = composer().filter(|_| checkout.folder.join("composer.lock").is_file()) {
        paths.push(checkout.folder.clone());
        compose(&composer, url, &checkout.folder, &paths, builder)?;
    }
    Ok(checkout)
}

/// Git that speaks to another repository: never for ever, and asking nobody.
fn asking(layout: &Layout, url: &str, seconds: &str) -> Result<Command, SourceError> {
    if !repository::is_installed() {
        return Err(GitError::Missing.into());
    }
    let mut command = Command::new(TIMEOUT);
    command.args(["--kill-after=5", seconds, repository::GIT]);
    command.env_clear().envs(repository::environment()).current_dir("/").stdin(Stdio::null());
    command.env("GIT_ALLOW_PROTOCOL", "file:http:https:ssh:git");
    command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10");
    if url.starts_with('/') {
        // Somebody else may own it: the operator names it, and reading is all that is done there.
        let trust = layout.histories().join("sources/trust");
        files::folder(&layout.histories(), 0o700, None)?;
        files::folder(&layout.histories().join("sources"), 0o700, None)?;
        files::write(&trust, b"[safe]\n\tdirectory = *\n", 0o600, None)?;
        command.env("GIT_CONFIG_GLOBAL", trust);
    }
    Ok(command)
}

fn unreachable(url: &str, reference: &str, stderr: &[u8]) -> SourceError {
    let said = String::from_utf8_lossy(stderr);
    let said = match said.trim() {
        "" => "it has no such branch or tag, or did not answer in time".to_owned(),
        said => crate::engine::tail(said, 400),
    };
    SourceError::Unreachable { url: url.to_owned(), reference: reference.to_owned(), said }
}

/// Writes the files of what was fetched, then the links, so that nothing is written through one. What was written.
fn lay_out(repository: &Repository, url: &str, folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let refuse =
        |path: &str, why| SourceError::File { url: url.to_owned(), path: path.to_owned(), why };
    let (mut reader, mut left) = (repository.reader()?, MOST_BYTES);
    let (mut links, mut written) = (Vec::new(), Vec::new());
    for entry in repository.entries(FETCHED)? {
        let path = entry.path.as_str();
        if entry.mode == "160000" {
            return Err(refuse(path, "submodules are not fetched; commit their files"));
        }
        if not_code(path).is_some() {
            continue;
        }
        let (size, mut bytes) = reader.blob(&entry.id)?;
        left = left.checked_sub(size).ok_or_else(|| refuse(path, "the repository is too large"))?;
        let to = folder.join(path);
        if let Some(above) = to.parent() {
            make_folders(folder, above, &mut written)?;
        }
        if entry.mode == "120000" {
            let mut target = String::new();
            (&mut bytes).take(size).read_to_string(&mut target)?;
            std::io::copy(&mut bytes, &mut std::io::sink())?;
            if !stays(Path::new(path), Path::new(&target)) {
                return Err(refuse(path, "it is a link that leaves the repository"));
            }
            links.push((to, target));
            continue;
        }
        let mut file = std::fs::File::create_new(&to)?;
        std::io::copy(&mut (&mut bytes).take(size), &mut file)?;
        std::io::copy(&mut bytes, &mut std::io::sink())?;
        let mode = if entry.mode == "100755" { 0o755 } else { 0o644 };
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        written.push(to);
    }
    for (link, target) in links {
        symlink(target, &link)?;
        written.push(link);
    }
    Ok(written)
}

fn make_folders(root: &Path, folder: &Path, made: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folders(root, above, made)?;
    }
    std::fs::create_dir(folder)?;
    made.push(folder.to_owned());
    Ok(())
}

/// Whether a link leads to something within the repository.
fn stays(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() as i64 - 1;
    target.components().all(|part| {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => depth = -1,
        }
        depth >= 0
    })
}

fn composer() -> Option<PathBuf> {
    ["/usr/local/bin/composer", "/usr/bin/composer"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.exists())
}

/// Installs what the lock file names.
fn compose(
    composer: &Path,
    url: &str,
    folder: &Path,
    paths: &[PathBuf],
    builder: Option<&UserIds>,
) -> Result<(), SourceError> {
    let mut command = Command::new(TIMEOUT);
    command.args(["--kill-after=5", COMPOSER]).arg(composer).args([
        "install",
        "--no-dev",
        "--no-interaction",
        "--no-progress",
        "--no-scripts",
        "--optimize-autoloader",
    ]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.env("HOME", folder.join(".home")).env("COMPOSER_HOME", folder.join(".home"));
    command.current_dir(folder).stdin(Stdio::null());
    if let Some(user) = builder {
        for path in paths {
            lchown(path, Some(user.uid), Some(user.gid))?;
        }
        command.uid(user.uid).gid(user.gid);
    }
    let output = command.output()?;
    let home = folder.join(".home");
    if home.is_dir() {
        std::fs::remove_dir_all(home)?;
    }
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(SourceError::Composer { url: url.to_owned(), said: crate::engine::tail(said.trim(), 800) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_not_leave_its_repository() {
        let check = |link: &str, target: &str| stays(Path::new(link), Path::new(target));
        assert!(check("a/b", "../c") && check("a", "b/c") && check("a/b/c", "../../d"));
        for (link, target) in
            [("a", "../b"), ("a/b", "../../c"), ("a", "/etc/passwd"), ("a", "b/../../c")]
        {
            assert!(!check(link, target), "{link} -> {target}");
        }
    }
}
