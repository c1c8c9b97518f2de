//! A site's bare repository, kept by stock git.
//!
//! `refs/heads/main` is the serving release; `refs/pressroom/releases/ID` remembers the commit of each release and is hidden
//! from everybody outside. Only we write below `refs/heads` (git asks us by its `proc-receive` hook), so a lock there that
//! has lain for some time is one of somebody killed.
//!
//! Always: the ref of a release is written before `main`, so that whatever was broken off is found again by
//! [`Repository::state`]. All functions block.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use pressroom_model::id::{NodeName, ReleaseId};

use super::mirror::Names;
use super::stream::Person;
use crate::files;

/// Where git is.
pub const GIT: &str = "/usr/bin/git";
/// The branch that is served.
pub const MAIN: &str = "refs/heads/main";
const RELEASES: &str = "refs/pressroom/releases/";
/// The commit that is being made.
const NEXT: &str = "refs/pressroom/next";
/// A lock that is older than this is nobody's.
const STALE: Duration = Duration::from_secs(10);

/// Why git did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It is not installed.
    #[error("git is not installed; install it with `apt-get install git`")]
    Missing,
    /// It failed.
    #[error("git {what} failed: {said}")]
    Failed {
        /// What it was asked.
        what: String,
        /// Its own words.
        said: String,
    },
    /// It answered something that makes no sense.
    #[error("git {what} answered `{said}`")]
    Odd {
        /// What it was asked.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// A file.
    #[error("the git repository: {0}")]
    Io(#[from] std::io::Error),
    /// A release.
    #[error(transparent)]
    Release(#[from] pressroom_release::ReleaseError),
    /// Other nodes may have the history, and do not answer.
    #[error(
        "this node, which leads now, does not have it, and {nodes} may: they are waited for, for {} minutes at most, before a new one is \
         begun, which clones could not pull from; deploys and visitors do not wait",
        pressroom_plan::history::PATIENCE.as_secs() / 60
    )]
    Elsewhere {
        /// Which.
        nodes: String,
    },
    /// Another node has the history, and this one cannot take it over.
    #[error("its copy on node `{node}` cannot be taken over, which is tried again: {cause}")]
    Unfit {
        /// Which.
        node: NodeName,
        /// What git said here.
        cause: Box<GitError>,
    },
    /// What the history begins with could not be stored.
    #[error("what it begins with cannot be stored: {0}")]
    Store(#[from] pressroom_store::StoreError),
}

/// The name of an object: 40 or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Oid(String);

impl Oid {
    /// An object's name, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (is_hex && matches!(text.len(), 40 | 64)).then(|| Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What git writes where there is no object.
    pub fn is_none(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl std::fmt::Display for Oid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A commit with its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) id: Oid,
    pub(super) tree: Oid,
}

/// A file of a commit.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) mode: String,
    pub(super) id: Oid,
    pub(super) path: String,
}

/// What the repository knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) main: Option<Commit>,
    pub(super) releases: BTreeMap<ReleaseId, Commit>,
}

/// A bare repository.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
}

const CONFIG: &str = "\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tfsync = all
\tfsyncMethod = batch
\tcompression = 1
[http]
\treceivepack = true
[receive]
\tprocReceiveRefs = refs/heads
\tdenyNonFastForwards = true
\tfsckObjects = true
\tmaxInputSize = 2g
\tautogc = false
[transfer]
\thideRefs = refs/pressroom
[gc]
\tautoDetach = false
";

/// Whether git is installed.
pub fn is_installed() -> bool {
    Path::new(GIT).exists()
}

/// Stock git with nothing of this machine's or user's settings.
pub(super) fn environment() -> [(&'static str, &'static str); 6] {
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LANG", "C.UTF-8"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
    ]
}

impl Repository {
    /// The repository in this folder, which may not be there yet.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Makes it, or brings its settings and its hook up to date. `hook`: what is run when something is pushed.
    pub(super) fn make(&self, hook: &str) -> Result<(), GitError> {
        if !is_installed() {
            return Err(GitError::Missing);
        }
        if !self.folder.join("HEAD").is_file() {
            // What is above it is root's alone, too: it may be the first.
            for folder in self.folder.parent().into_iter().chain([self.folder.as_path()]) {
                files::folder(folder, 0o700, None)?;
            }
            let arguments = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
            self.run(&arguments, &[])?;
        }
        files::folder(&self.folder.join("hooks"), 0o700, None)?;
        files::write(&self.folder.join("config"), CONFIG.as_bytes(), 0o600, None)?;
        files::write(&self.folder.join("hooks/proc-receive"), hook.as_bytes(), 0o700, None)?;
        self.sweep(&self.folder.join("refs"))?;
        for name in ["packed-refs.lock", "HEAD.lock"] {
            remove_stale(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Removes locks of those who were killed.
    fn sweep(&self, folder: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.sweep(&path)?;
            } else if path.extension().is_some_and(|end| end == "lock") {
                remove_stale(&path)?;
            }
        }
        Ok(())
    }

    /// `main`, and the commits of releases.
    pub(super) fn state(&self) -> Result<Known, GitError> {
        let format = "--format=%(objectname) %(tree) %(refname)";
        let text = self.text(&["for-each-ref", format, MAIN, RELEASES])?;
        let mut known = Known::default();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (id, tree) = (words.next().and_then(Oid::parse), words.next().and_then(Oid::parse));
            let (Some(id), Some(tree), Some(name)) = (id, tree, words.next()) else { continue };
            let commit = Commit { id, tree };
            match name.strip_prefix(RELEASES).map(str::parse) {
                Some(Ok(release)) => drop(known.releases.insert(release, commit)),
                _ if name == MAIN => known.main = Some(commit),
                _ => {}
            }
        }
        Ok(known)
    }

    /// All names that we keep, and what they mean.
    pub(super) fn names(&self) -> Result<Names, GitError> {
        let format = "--format=%(objectname) %(refname)";
        let text = self.text(&["for-each-ref", format, "refs/heads", RELEASES])?;
        let one = |line: &str| {
            let (id, name) = line.split_once(' ')?;
            Some((name.to_owned(), Oid::parse(id)?))
        };
        Ok(text.lines().filter_map(one).collect())
    }

    /// Those of these objects that are here.
    pub(super) fn present(&self, ids: &[Oid]) -> Result<Vec<Oid>, GitError> {
        let asked: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let output = feed(&mut self.command(&["cat-file", "--batch-check"]), asked.as_bytes())?;
        if !output.status.success() {
            return Err(failed("cat-file", &output));
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = said.lines().filter(|line| line.ends_with(char::is_numeric));
        Ok(found.filter_map(|line| Oid::parse(line.split(' ').next()?)).collect())
    }

    /// Has names mean what they mean elsewhere, from what they mean here.
    pub(super) fn rename(&self, ours: &Names, theirs: &Names) -> Result<(), GitError> {
        let gone = ours.iter().filter(|(name, _)| !theirs.contains_key(*name));
        let gone: String = gone.map(|(name, id)| format!("delete {name} {id}\n")).collect();
        let other = theirs.iter().filter(|(name, id)| ours.get(*name) != Some(*id));
        let other: String = other.map(|(name, id)| format!("update {name} {id}\n")).collect();
        // A name may have to go before there is room for one below it.
        for order in [gone, other].iter().filter(|order| !order.is_empty()) {
            self.update(order)?;
        }
        self.tidy()
    }

    /// Whether `id` is a commit that is here, with `before` among those that it builds on.
    pub(super) fn is_ahead(&self, id: &Oid, before: &Oid) -> Result<bool, GitError> {
        let arguments = ["merge-base", "--is-ancestor", before.as_str(), id.as_str()];
        // 1: it is not; 128: one of them is no commit here.
        Ok(self.command(&arguments).output()?.status.success())
    }

    /// The commit that `main` begins with; `None`: there is no `main`.
    pub(super) fn root(&self) -> Result<Option<Oid>, GitError> {
        let Some(main) = self.state()?.main else { return Ok(None) };
        // Who merged another history has several: the last one is one of them, and stays behind whatever comes.
        let text = self.text(&["rev-list", "--max-parents=0", main.id.as_str()])?;
        Ok(text.lines().last().and_then(Oid::parse))
    }

    /// How many commits `main` has, if it builds on `root`; `None`: it does not, or is not there.
    pub(super) fn since(&self, root: &Oid) -> Result<Option<u64>, GitError> {
        // What was never made is no failure of git.
        if !self.folder.join("HEAD").is_file() {
            return Ok(None);
        }
        let Some(main) = self.state()?.main else { return Ok(None) };
        if self.present(std::slice::from_ref(root))?.is_empty() {
            return Ok(None);
        }
        let arguments = ["merge-base", "--is-ancestor", root.as_str(), main.id.as_str()];
        let output = self.command(&arguments).output()?;
        match output.status.code() {
            Some(0) => {}
            Some(1) => return Ok(None),
            _ => return Err(failed("merge-base", &output)),
        }
        let text = self.text(&["rev-list", "--count", main.id.as_str()])?;
        let count = text.trim().parse();
        count.map(Some).map_err(|_| GitError::Odd { what: "rev-list", said: text })
    }

    /// Feeds `git fast-import`, whose stream commits to the ref that `write` is given; the commit.
    pub(super) fn import(
        &self,
        write: impl FnOnce(&mut dyn Write, &str) -> Result<(), GitError>,
    ) -> Result<Commit, GitError> {
        let mut child = self
            .command(&["fast-import", "--quiet", "--force", "--done", "--depth=0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no standard input"))?;
        let mut stdin = std::io::BufWriter::with_capacity(256 << 10, stdin);
        let written = write(&mut stdin, NEXT).and_then(|()| stdin.flush().map_err(GitError::from));
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(failed("fast-import", &output));
        }
        written?;
        self.commit(NEXT)
    }

    /// Commits a tree that is there on top of `parent`.
    pub(super) fn commit_again(
        &self,
        tree: &Oid,
        parent: Option<&Oid>,
        (author, committer): (&Person, &Person),
        message: &str,
    ) -> Result<Commit, GitError> {
        let mut arguments = vec!["commit-tree", tree.as_str(), "-F", "-"];
        if let Some(parent) = parent {
            arguments.extend(["-p", parent.as_str()]);
        }
        let mut command = self.command(&arguments);
        for (role, person) in [("AUTHOR", author), ("COMMITTER", committer)] {
            command.env(format!("GIT_{role}_NAME"), person.name());
            command.env(format!("GIT_{role}_EMAIL"), person.email());
            command.env(format!("GIT_{role}_DATE"), format!("@{} +0000", person.seconds()));
        }
        let output = feed(&mut command, message.as_bytes())?;
        let id = one_oid("commit-tree", &output)?;
        Ok(Commit { id, tree: tree.clone() })
    }

    /// Makes a commit that of `releases`, and `main` if it is not; `main` must be `before` until then.
    pub(super) fn set(
        &self,
        commit: &Oid,
        releases: &[&ReleaseId],
        before: Option<&Oid>,
    ) -> Result<(), GitError> {
        use std::fmt::Write as _;
        let mut order = String::new();
        for release in releases {
            let _infallible = writeln!(order, "update {RELEASES}{release} {commit}");
        }
        if !releases.is_empty() {
            self.update(&order)?;
        }
        if before != Some(commit) {
            let none = "0".repeat(commit.as_str().len());
            let before = before.map_or(none.as_str(), Oid::as_str);
            self.update(&format!("update {MAIN} {commit} {before}\n"))?;
        }
        Ok(())
    }

    /// Forgets the commits of releases that are gone. The commits stay in the history.
    pub(super) fn forget(&self, releases: &[ReleaseId]) -> Result<(), GitError> {
        let order: String = releases.iter().map(|id| format!("delete {RELEASES}{id}\n")).collect();
        if order.is_empty() { Ok(()) } else { self.update(&order) }
    }

    /// Moves a branch from one commit to another, if it is still there.
    pub(super) fn move_branch(&self, name: &str, old: &Oid, new: &Oid) -> Result<(), GitError> {
        match new.is_none() {
            true => self.update(&format!("delete {name} {old}\n")),
            false => self.update(&format!("update {name} {new} {old}\n")),
        }
    }

    fn update(&self, order: &str) -> Result<(), GitError> {
        let output = feed(&mut self.command(&["update-ref", "--stdin"]), order.as_bytes())?;
        if output.status.success() { Ok(()) } else { Err(failed("update-ref", &output)) }
    }

    fn commit(&self, name: &str) -> Result<Commit, GitError> {
        let text = self.text(&["rev-parse", name, &format!("{name}^{{tree}}")])?;
        let mut lines = text.lines().map(Oid::parse);
        match (lines.next().flatten(), lines.next().flatten()) {
            (Some(id), Some(tree)) => Ok(Commit { id, tree }),
            _ => Err(GitError::Odd { what: "rev-parse", said: text }),
        }
    }

    /// Paths of a tree.
    pub(super) fn paths(&self, tree: &Oid) -> Result<Vec<String>, GitError> {
        let text = self.run(&["ls-tree", "-r", "-z", "--name-only", tree.as_str()], &[])?;
        let paths = text.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        // What is not UTF-8 is in no release, so nothing of ours is to be done with it.
        Ok(paths.filter_map(|path| String::from_utf8(path.to_vec()).ok()).collect())
    }

    /// The files of a commit.
    pub(super) fn entries(&self, commit: &str) -> Result<Vec<Entry>, GitError> {
        let text = self.run(&["ls-tree", "-r", "-z", "--full-tree", commit], &[])?;
        let mut entries = Vec::new();
        for line in text.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let odd = || GitError::Odd {
                what: "ls-tree",
                said: String::from_utf8_lossy(line).into_owned(),
            };
            let line = std::str::from_utf8(line).map_err(|_| odd())?;
            let (head, path) = line.split_once('\t').ok_or_else(odd)?;
            let words: Vec<&str> = head.split(' ').collect();
            let [mode, _, id] = words.as_slice() else { return Err(odd()) };
            let id = Oid::parse(id).ok_or_else(odd)?;
            entries.push(Entry { mode: (*mode).to_owned(), id, path: path.to_owned() });
        }
        Ok(entries)
    }

    /// The object that an expression means.
    pub(super) fn one(&self, expression: &str) -> Result<Oid, GitError> {
        one_oid("rev-parse", &self.command(&["rev-parse", "--verify", expression]).output()?)
    }

    /// What tells one commit from another, as `git diff-tree --raw -z` writes it.
    pub(super) fn changes(&self, from: &Oid, to: &Oid) -> Result<Vec<u8>, GitError> {
        let arguments = ["diff-tree", "-r", "-z", "--raw", "--no-renames"];
        self.run(&arguments, &[from.as_str(), to.as_str()])
    }

    /// Author's name, address, and the message of a commit.
    pub(super) fn words(&self, commit: &Oid) -> Result<[String; 3], GitError> {
        let arguments = ["show", "--no-patch", "--format=%an%x00%ae%x00%B", commit.as_str()];
        let text = self.text(&arguments)?;
        let mut words = text.splitn(3, '\0').map(|word| word.trim().to_owned());
        let mut next = || words.next().unwrap_or_default();
        Ok([next(), next(), next()])
    }

    /// Packs what has become much.
    pub(super) fn tidy(&self) -> Result<(), GitError> {
        self.run(&["gc", "--auto", "--quiet"], &[]).map(drop)
    }

    /// Somebody who reads objects one after the other.
    pub(super) fn reader(&self) -> Result<Reader, GitError> {
        let mut child = self
            .command(&["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("no pipe").into());
        };
        Ok(Reader { child, ask, answer: BufReader::with_capacity(256 << 10, answer) })
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GIT);
        command.arg("--git-dir").arg(&self.folder).args(arguments);
        command.env_clear().envs(environment()).current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str], more: &[&str]) -> Result<Vec<u8>, GitError> {
        let output = self.command(arguments).args(more).output()?;
        if output.status.success() { Ok(output.stdout) } else { Err(failed(arguments[0], &output)) }
    }

    fn text(&self, arguments: &[&str]) -> Result<String, GitError> {
        Ok(String::from_utf8_lossy(&self.run(arguments, &[])?).into_owned())
    }
}

/// Reads objects of a repository; dropped, its git ends.
pub(super) struct Reader {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Reader {
    /// The size of a blob, and where its bytes come from: they must be read to the end, and the line end after them.
    pub(super) fn blob(&mut self, id: &Oid) -> Result<(u64, impl Read + '_), GitError> {
        writeln!(self.ask, "{id}")?;
        let mut head = String::new();
        self.answer.read_line(&mut head)?;
        let words: Vec<&str> = head.trim_end().split(' ').collect();
        match words.as_slice() {
            [_, "blob", size] => match size.parse() {
                Ok(size) => Ok((size, (&mut self.answer).take(size + 1))),
                Err(_) => Err(GitError::Odd { what: "cat-file", said: head }),
            },
            _ => Err(GitError::Odd { what: "cat-file", said: head }),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn remove_stale(lock: &Path) -> std::io::Result<()> {
    let age = std::fs::metadata(lock).and_then(|meta| meta.modified());
    let is_stale = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
    if is_stale { std::fs::remove_file(lock) } else { Ok(()) }
}

fn feed(command: &mut Command, input: &[u8]) -> Result<Output, GitError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why by its status.
        let _ = stdin.write_all(input);
    }
    Ok(child.wait_with_output()?)
}

fn one_oid(what: &'static str, output: &Output) -> Result<Oid, GitError> {
    if !output.status.success() {
        return Err(failed(what, output));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Oid::parse(text.trim()).ok_or_else(|| GitError::Odd { what, said: text.into_owned() })
}

pub(super) fn failed(what: &str, output: &Output) -> GitError {
    let said = String::from_utf8_lossy(&output.stderr);
    GitError::Failed { what: what.to_owned(), said: crate::engine::tail(said.trim(), 500) }
}
