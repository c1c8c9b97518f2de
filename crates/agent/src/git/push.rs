//! What somebody pushed: whether it may become `main`, and what it changes in the code.
//!
//! Git has the objects already when it asks us (`proc-receive`), so what was refused stays without a name until git tidies up. Only
//! files that differ from the serving release are read.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pressroom_model::id::ReleaseId;
use pressroom_release::source::not_code;

use super::repository::{GitError, MAIN, Oid, Repository};
use super::{History, at};
use crate::apply::off_the_loop;
use crate::files;
use crate::site::{Code, is_ours};

/// All that one push may change, unpacked.
const MOST_BYTES: u64 = 4 << 30;

/// Somebody wants a name to mean another commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The whole name: `refs/heads/main`.
    pub name: String,
    /// What it meant when the push began.
    pub old: Oid,
    /// What it shall mean.
    pub new: Oid,
}

impl Update {
    /// Reads what git says of it.
    pub fn parse(name: &str, old: &str, new: &str) -> Option<Self> {
        let (old, new) = (Oid::parse(old)?, Oid::parse(new)?);
        let is_name = name.starts_with("refs/heads/") && !name.contains(char::is_whitespace);
        is_name.then(|| Self { name: name.to_owned(), old, new })
    }

    /// Whether the name is to go.
    pub fn is_deletion(&self) -> bool {
        self.new.is_none()
    }

    /// Whether it is the branch that is served.
    pub fn is_main(&self) -> bool {
        self.name == MAIN
    }
}

/// Why a push is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The branch that is served cannot go.
    #[error("`main` is what the site serves: it cannot be deleted")]
    Deletion,
    /// There is nothing that a branch could differ from.
    #[error("the site serves nothing yet")]
    NoMain,
    /// Something else serves by now.
    #[error("`main` has moved since you fetched it: another release serves now")]
    Moved,
    /// History would be rewritten.
    #[error("it does not build on the release that serves")]
    NotForward,
    /// Files that have no business in a site's code.
    #[error("{}", list(.0))]
    Files(Vec<(String, &'static str)>),
    /// Git or the disk failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// So many files are named.
const NAMED: usize = 10;

fn list(files: &[(String, &'static str)]) -> String {
    let mut lines: Vec<String> =
        files.iter().take(NAMED).map(|(path, why)| format!("{path}: {why}")).collect();
    if files.len() > NAMED {
        lines.push(format!("… and {} more", files.len() - NAMED));
    }
    lines.join("\n")
}

/// A push that may become a release.
#[derive(Debug)]
pub struct Incoming {
    /// What the release is made of.
    pub code: Code,
    /// Who made the last commit.
    pub author: String,
    /// Their address.
    pub email: String,
    /// What it says.
    pub message: String,
    _folder: Scratch,
}

impl History {
    /// Judges a push to `main`, and unpacks what it changes into `folder`. `None`: `main` is that commit already, as after a push
    /// that was cut off and has come to its end by itself.
    pub async fn examine(
        &self,
        update: &Update,
        folder: PathBuf,
    ) -> Result<Option<Incoming>, Refusal> {
        let (repository, update) = (self.repository.clone(), update.clone());
        let examined =
            off_the_loop(move || Ok::<_, GitError>(examine(&repository, &update, folder)));
        examined.await?
    }

    /// `main` is this commit from now on, and it stands for this release.
    pub async fn adopt(&self, update: &Update, release: &ReleaseId) -> Result<(), GitError> {
        let (repository, update, release) =
            (self.repository.clone(), update.clone(), release.clone());
        off_the_loop(move || repository.set(&update.new, &[&release], Some(&update.old))).await
    }

    /// Judges a push to another branch, and unpacks what tells it from the serving release into `folder`. It need not build on
    /// that: a branch may be what it likes.
    pub async fn examine_branch(
        &self,
        update: &Update,
        folder: PathBuf,
    ) -> Result<Incoming, Refusal> {
        let (repository, update) = (self.repository.clone(), update.clone());
        let examined = off_the_loop(move || {
            Ok::<_, GitError>(repository.state().map_err(Refusal::from).and_then(|known| {
                let main = known.main.as_ref().ok_or(Refusal::NoMain)?;
                let base = at(&known).into_iter().next().ok_or(Refusal::NoMain)?;
                unpacked(&repository, (&main.id, base), &update, folder)
            }))
        });
        examined.await?
    }

    /// Moves a branch that is not `main`, or deletes it.
    pub async fn take_branch(&self, update: &Update) -> Result<(), GitError> {
        let (repository, update) = (self.repository.clone(), update.clone());
        off_the_loop(move || repository.move_branch(&update.name, &update.old, &update.new)).await
    }
}

pub(super) fn examine(
    repository: &Repository,
    update: &Update,
    folder: PathBuf,
) -> Result<Option<Incoming>, Refusal> {
    if update.new.is_none() {
        return Err(Refusal::Deletion);
    }
    let known = repository.state()?;
    let main = known.main.as_ref().ok_or(Refusal::Moved)?;
    if main.id == update.new {
        return Ok(None);
    }
    if main.id != update.old {
        return Err(Refusal::Moved);
    }
    if !repository.is_ahead(&update.new, &main.id)? {
        return Err(Refusal::NotForward);
    }
    // The history was brought up to date before: its end is a release.
    let base = at(&known).into_iter().next().ok_or(Refusal::Moved)?;
    unpacked(repository, (&main.id, base), update, folder).map(Some)
}

/// What a release is made of that has the code of the pushed commit: what differs from that of `main`, which is `base`.
fn unpacked(
    repository: &Repository,
    (main, base): (&Oid, ReleaseId),
    update: &Update,
    folder: PathBuf,
) -> Result<Incoming, Refusal> {
    let changes = parse(&repository.changes(main, &update.new)?);
    let refused: Vec<(String, &'static str)> =
        changes.iter().filter_map(|change| Some((change.path.clone(), refuse(change)?))).collect();
    if !refused.is_empty() {
        return Err(Refusal::Files(refused));
    }
    let scratch = Scratch::make(folder).map_err(GitError::from)?;
    unpack(repository, &changes, &scratch.0)?;
    let removed = changes.iter().filter(|change| change.kind == Kind::Gone);
    let removed = removed.map(|change| change.path.clone()).collect();
    let [author, email, message] = repository.words(&update.new)?;
    let code = Code::Changed { base, folder: scratch.0.clone(), removed };
    Ok(Incoming { code, author, email, message, _folder: scratch })
}

/// A path that differs.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    path: String,
    kind: Kind,
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File { is_executable: bool },
    Gone,
    Link,
    Module,
}

/// Reads `:OLDMODE NEWMODE OLD NEW STATUS`, a zero byte, the path, a zero byte, and so on.
fn parse(raw: &[u8]) -> Vec<Change> {
    let mut words = raw.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
    let mut changes = Vec::new();
    while let (Some(head), Some(path)) = (words.next(), words.next()) {
        let mut fields = head.split(' ').skip(1);
        let (mode, id) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let kind = match mode {
            "000000" => Kind::Gone,
            "120000" => Kind::Link,
            "160000" => Kind::Module,
            _ => Kind::File { is_executable: mode == "100755" },
        };
        changes.push(Change { path: path.into_owned(), kind, id: id.to_owned() });
    }
    changes
}

/// Why a file may not be pushed, and what to do instead; `None`: it may. What is nothing to a site (`.gitignore`, a plugin's
/// `.htaccess`) may, and stays in git alone.
fn refuse(change: &Change) -> Option<&'static str> {
    let path = change.path.as_str();
    match change.kind {
        Kind::Gone => return None,
        Kind::Link => return Some("a release has no links; commit the file itself"),
        Kind::Module => return Some("submodules are not fetched; commit their files"),
        Kind::File { .. } => {}
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_below =
        |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if is_below("wp-content/uploads") || is_below("wp-content/blogs.dir") {
        return Some("uploads are data, not code; `git rm --cached` it and ignore the folder");
    }
    if path == "wp-config.php" {
        return Some(
            "Pressroom writes it, with the site's secrets; `git rm --cached` it and ignore it",
        );
    }
    if is_ours(path) {
        return Some("Pressroom adds its own; `git rm --cached` it");
    }
    let is_secret =
        name.starts_with(".env") || (path.starts_with("wp-config") && not_code(path).is_some());
    is_secret.then_some("it may hold secrets; `git rm --cached` it, and change what was in it")
}

/// Writes the files that differ below `folder`.
fn unpack(repository: &Repository, changes: &[Change], folder: &Path) -> Result<(), GitError> {
    let (mut reader, mut left) = (repository.reader()?, MOST_BYTES);
    for change in changes {
        let Kind::File { is_executable } = change.kind else { continue };
        // Not for the release, so its bytes do not matter.
        if not_code(&change.path).is_some() || !is_plain(&change.path) {
            continue;
        }
        let odd = || GitError::Odd { what: "diff-tree", said: change.id.clone() };
        let id = Oid::parse(&change.id).ok_or_else(odd)?;
        let (size, mut bytes) = reader.blob(&id)?;
        left = left.checked_sub(size).ok_or_else(|| {
            std::io::Error::other(format!("the push changes more than {} GiB", MOST_BYTES >> 30))
        })?;
        let to = folder.join(&change.path);
        if let Some(above) = to.parent() {
            std::fs::create_dir_all(above)?;
        }
        let mut file = std::fs::File::create_new(&to)?;
        std::io::copy(&mut (&mut bytes).take(size), &mut file)?;
        std::io::copy(&mut bytes, &mut std::io::sink())?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a path of a git tree stays below the folder; git's own check (`fsckObjects`) has seen to that before.
fn is_plain(path: &str) -> bool {
    !path.split('/').any(|name| matches!(name, "" | "." | ".."))
}

/// A folder that is gone with its holder.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn make(folder: PathBuf) -> std::io::Result<Self> {
        remove(&folder)?;
        files::folder(&folder, 0o700, None)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(%error, "what a push changed stays until the next push");
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(files::naming(folder, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(mode: &str, path: &str) -> Change {
        let id = "a".repeat(40);
        let raw = format!(":100644 {mode} {id} {id} M\0{path}\0");
        parse(raw.as_bytes()).pop().expect("one change")
    }

    #[test]
    fn what_is_no_code_of_the_operators_is_refused_with_a_word() {
        for (mode, path) in [
            ("100644", "wp-config.php"),
            ("100644", "wp-config.php.bak"),
            ("100644", ".env"),
            ("100644", "wp-content/plugins/x/.env.local"),
            ("100644", "wp-content/uploads/2026/a.jpg"),
            ("100644", "wp-content/mu-plugins/pressroom.php"),
            ("100644", "wp-content/mu-plugins/pressroom/purge.php"),
            ("100644", "wp-content/object-cache.php"),
            ("120000", "wp-content/plugins/x"),
            ("160000", "wp-content/plugins/x"),
        ] {
            assert!(refuse(&change(mode, path)).is_some(), "{path}");
        }
        for (mode, path) in [
            ("100644", "wp-config-sample.php"),
            ("100755", "wp-content/plugins/x/bin/run"),
            ("100644", ".gitignore"),
            ("100644", "wp-content/plugins/x/.htaccess"),
            ("100644", "wp-content/mu-plugins/mine.php"),
            ("100644", "wp-content/plugins/uploads/a.php"),
            ("000000", "wp-config.php"),
        ] {
            assert_eq!(refuse(&change(mode, path)), None, "{path}");
        }
    }

    #[test]
    fn changes_are_read_as_git_writes_them() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let raw = format!(":100644 100755 {a} {b} M\0a b.php\0:100644 000000 {b} {a} D\0ä/gone\0");
        let expected = [
            Change { path: "a b.php".into(), kind: Kind::File { is_executable: true }, id: b },
            Change { path: "ä/gone".into(), kind: Kind::Gone, id: a },
        ];
        assert_eq!(parse(raw.as_bytes()), expected);
        assert_eq!(parse(b""), []);
    }

    #[test]
    fn only_branches_are_ours_to_move() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        assert!(Update::parse("refs/heads/main", &a, &b).is_some_and(|update| update.is_main()));
        for name in ["refs/pressroom/releases/x", "HEAD", "refs/heads/a\nupdate x"] {
            assert_eq!(Update::parse(name, &a, &b), None, "{name}");
        }
        assert_eq!(Update::parse("refs/heads/x", "--help", &b), None);
    }
}
