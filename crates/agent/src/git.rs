//! A site's git history: every release that served is a commit, and `main` is the one that serves.
//!
//! - [`repository`] the bare repository, kept by stock git; `stream` what `git fast-import` is fed
//! - [`push`] what somebody pushed: judged, and made into a release
//! - [`source`] another repository as the source of a site's code
//! - `mirror` the same histories on all nodes of a cluster; `regain` what a leader does not have
//! - [`door`] stock `git http-backend` on a socket for the edge, opened by a [`token`]
//!
//! The history follows what serves, never the other way round: a rollout does not wait for it, and an agent that died finds by
//! [`pressroom_plan::history`] what is lacking. Without git everything else works.
//!
//! A commit has the code as operators bring it: our own files (see [`is_ours`]) and what is never code stay out. Files that git alone
//! knows (`.gitignore`) stay as they are.

pub mod door;
mod mirror;
pub mod push;
mod regain;
pub mod repository;
pub mod source;
mod stream;
pub mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::config::Site;
use pressroom_model::id::{NodeName, ReleaseId, SiteName};
use pressroom_plan::history::{self, Step};
use pressroom_release::manifest::Manifest;
use pressroom_release::releases::{Diff, Releases};
use pressroom_release::source::not_code;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::{clock, tree};
use tokio::sync::{Notify, OwnedMutexGuard, Semaphore};

use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::facts::{Kept, SiteFacts};
use crate::host;
use crate::site::is_ours;

use self::mirror::MirrorError;
use self::repository::{Commit, GitError, Known, Oid, Repository};
use self::stream::Person;

/// A history that cannot be written is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// The leader is asked so often for what may have changed without another release: branches.
const MIRROR: Duration = Duration::from_secs(600);

/// Gits at a time for those who ask from outside; each packs or unpacks a whole repository. More wait.
const MOST: usize = 8;

/// Who may write histories now, and that one is due.
pub(crate) struct Histories {
    locks: Mutex<BTreeMap<SiteName, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) due: Notify,
    /// Since when others are asked for a history that is not here.
    sought: Mutex<BTreeMap<SiteName, Instant>>,
    places: Arc<Semaphore>,
}

impl Default for Histories {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(MOST));
        Self { locks: Mutex::default(), due: Notify::new(), sought: Mutex::default(), places }
    }
}

impl Histories {
    /// Whoever holds it is alone with a site's history.
    pub(crate) fn lock(&self, site: &SiteName) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.locks.lock().entry(site.clone()).or_default())
    }
}

/// What a history goes by.
#[derive(Debug, PartialEq, Eq)]
struct Stand {
    /// The releases that served, and when.
    served: Vec<(ReleaseId, u64)>,
    /// The node that leads, if it is another one.
    leader: Option<NodeName>,
}

/// A site's history, held so that nobody else writes it.
pub struct History {
    repository: Repository,
    _held: OwnedMutexGuard<()>,
}

impl Agent {
    /// Brings the histories of all sites up to date whenever something else serves: as the leader by what is lacking, else by what
    /// the leader has.
    pub(crate) async fn watch_histories(self: Arc<Self>, stop: Shutdown) {
        let mut settled: BTreeMap<SiteName, (Stand, Instant)> = BTreeMap::new();
        let mut complaints: BTreeMap<SiteName, String> = BTreeMap::new();
        while !stop.is_requested() {
            let sites = self.config().map(|config| config.sites).unwrap_or_default();
            if let Err(error) = self.drop_copies(&sites).await {
                tracing::warn!(%error, "the history of a removed site stays for now");
            }
            for site in sites.into_iter().filter(|_| repository::is_installed()) {
                let (name, stand) = (site.name.clone(), self.history_stand(&site.name));
                let is_settled = settled.get(&name).is_some_and(|(known, at)| {
                    *known == stand && (stand.leader.is_none() || at.elapsed() < MIRROR)
                });
                if is_settled || stop.is_requested() {
                    continue;
                }
                // Whoever holds it brings it up to date.
                let Ok(held) = self.histories.lock(&name).try_lock_owned() else { continue };
                // It may have been removed while we came to it, and its history deleted.
                if self.site(&name).is_none() {
                    continue;
                }
                let done = match &stand.leader {
                    None if !self.leads() => continue,
                    None => self.catch_up(&name, held).await.map(drop).map_err(MirrorError::Git),
                    Some(leader) => self.mirror(&name, leader, held).await,
                };
                match done {
                    Ok(()) => {
                        complaints.remove(&name);
                        settled.insert(name, (stand, clock::now()));
                    }
                    // A leader that does not answer is no longer one, or is not yet.
                    Err(MirrorError::Away(error)) => {
                        tracing::debug!(site = %name, %error, "the git history comes later");
                    }
                    Err(MirrorError::Git(error)) => {
                        let text = format!("the git history of `{name}`: {error}");
                        if complaints.insert(name, text.clone()).as_ref() != Some(&text) {
                            tracing::warn!("{text}");
                            self.notice(text);
                        }
                    }
                }
            }
            tokio::select! {
                () = stop.requested() => {}
                () = self.histories.due.notified() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Deletes what was taken over of sites that are gone: who leads deletes its own with the site, and whoever gets the name later
    /// must not get this history as well.
    async fn drop_copies(&self, sites: &[Site]) -> std::io::Result<()> {
        // A machine that has heard of no site yet knows nothing of which are gone.
        if self.leader_elsewhere().is_none() || sites.is_empty() {
            return Ok(());
        }
        let folder = self.layout.histories();
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".git"));
            let Some(name) = name.and_then(|name| name.parse::<SiteName>().ok()) else { continue };
            if sites.iter().all(|site| site.name != name) {
                let _alone = self.histories.lock(&name).lock_owned().await;
                tree::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn history_stand(&self, name: &SiteName) -> Stand {
        Stand { served: self.served(name), leader: self.leader_elsewhere() }
    }

    /// The node that leads in place of this one; `None`: this one does, or nobody is known to.
    pub(crate) fn leader_elsewhere(&self) -> Option<NodeName> {
        let own = self.cluster.as_ref()?.node();
        if self.leads() { None } else { self.leader().filter(|leader| *leader != own) }
    }

    /// The releases that served a site, and when: what its history is made of.
    fn served(&self, name: &SiteName) -> Vec<(ReleaseId, u64)> {
        let state = self.state.lock();
        let kept = state.sites.get(name).into_iter().flat_map(|facts| &facts.releases);
        kept.map(|kept| (kept.release.id.clone(), kept.served_ms)).collect()
    }

    /// A site's history with nothing lacking; waits until whoever writes it has done.
    pub async fn history(&self, name: &SiteName) -> Result<History, GitError> {
        let held = self.histories.lock(name).lock_owned().await;
        self.catch_up(name, held).await
    }

    async fn catch_up(
        &self,
        name: &SiteName,
        held: OwnedMutexGuard<()>,
    ) -> Result<History, GitError> {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let known = facts.history.as_deref().and_then(Oid::parse);
        if let Some(root) = &known {
            self.regain(name, root).await?;
        }
        let work = Work {
            repository: Repository::at(self.layout.history(name)),
            releases: Releases::at(self.layout.releases()),
            hook: self.hook(name)?,
        };
        let (repository, root) = off_the_loop(move || {
            work.catch_up(&facts)?;
            let root = work.begins_with(known.as_ref())?;
            Ok::<_, GitError>((work.repository, root))
        })
        .await?;
        // Before anybody is given it: whoever leads next must know that there is one.
        if let Some(root) = root {
            self.remember_root(name, root).await?;
        }
        Ok(History { repository, _held: held })
    }

    /// What git runs when something is pushed: it asks us.
    fn hook(&self, name: &SiteName) -> std::io::Result<String> {
        let quoted = |path: &std::path::Path| {
            format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
        };
        Ok(format!(
            "#!/bin/sh\nexec {} --data {} --config {} git-receive {name}\n",
            quoted(&host::own_program()?),
            quoted(self.layout.data()),
            quoted(&self.config_file)
        ))
    }
}

/// What a history is written with, off the loop.
struct Work {
    repository: Repository,
    releases: Releases,
    hook: String,
}

impl Work {
    fn catch_up(&self, facts: &SiteFacts) -> Result<(), GitError> {
        self.repository.make(&self.hook)?;
        let mut known = self.repository.state()?;
        let kept: Vec<ReleaseId> =
            facts.releases.iter().map(|kept| kept.release.id.clone()).collect();
        let lacking = history::lacking(&kept, &at(&known), &known.releases);
        let is_idle = lacking.is_empty();
        for id in lacking {
            let found = facts.releases.iter().find(|kept| kept.release.id == id);
            let Some(found) = found else { continue };
            self.take(&mut known, found)?;
        }
        if !is_idle {
            let gone: Vec<ReleaseId> =
                known.releases.keys().filter(|id| !kept.contains(id)).cloned().collect();
            self.repository.forget(&gone)?;
            self.repository.tidy()?;
        }
        Ok(())
    }

    /// The commit that the history begins with, if it is another one than is known.
    fn begins_with(&self, known: Option<&Oid>) -> Result<Option<Oid>, GitError> {
        match known {
            Some(known) if self.repository.since(known)?.is_some() => Ok(None),
            _ => self.repository.root(),
        }
    }

    /// Brings `main` to a release.
    fn take(&self, known: &mut Known, kept: &Kept) -> Result<(), GitError> {
        let id = &kept.release.id;
        let main = known.main.as_ref();
        let pushed = kept.release.origin.commit.as_deref().and_then(Oid::parse);
        // Of somebody who died between the two refs.
        let recorded = known.releases.get(id).map(|commit| commit.id.clone());
        let mut ahead = None;
        for commit in pushed.into_iter().chain(recorded) {
            if ahead.is_none() && self.is_ahead(&commit, main)? {
                ahead = Some(commit);
            }
        }
        let committed = known.releases.iter().map(|(id, commit)| (id.clone(), commit.id.clone()));
        let commit = match history::step(id, &committed.collect(), ahead) {
            Step::Move(commit) => commit,
            Step::Again(_) => {
                let tree = &known.releases[id].tree;
                self.commit_tree(tree, main, kept)?
            }
            Step::Record => self.record(known, kept)?,
        };
        self.repository.set(&commit, &[id], main.map(|main| &main.id))?;
        *known = self.repository.state()?;
        Ok(())
    }

    fn is_ahead(&self, commit: &Oid, main: Option<&Commit>) -> Result<bool, GitError> {
        main.map_or(Ok(false), |main| self.repository.is_ahead(commit, &main.id))
    }

    fn commit_tree(&self, tree: &Oid, main: Option<&Commit>, kept: &Kept) -> Result<Oid, GitError> {
        if let Some(main) = main.filter(|main| main.tree == *tree) {
            return Ok(main.id.clone());
        }
        let (author, committer, message) = words(kept);
        let parent = main.map(|main| &main.id);
        let commit = self.repository.commit_again(tree, parent, (&author, &committer), &message)?;
        Ok(commit.id)
    }

    /// Commits what tells the release from `main`, or all of it.
    fn record(&self, known: &Known, kept: &Kept) -> Result<Oid, GitError> {
        let id = &kept.release.id;
        let manifest = self.releases.manifest(id)?;
        let base = at(known).into_iter().find_map(|base| self.releases.diff(&base, id).ok());
        let diff = match (base, &known.main) {
            (Some(diff), _) => diff,
            (None, main) => self.whole(&manifest, main.as_ref())?,
        };
        let is_code = |path: &&String| !is_ours(path) && not_code(path).is_none();
        let changed: Vec<&String> =
            diff.added.iter().chain(&diff.changed).filter(is_code).collect();
        let removed: Vec<&String> = diff.removed.iter().filter(is_code).collect();
        if let Some(main) = &known.main
            && changed.is_empty()
            && removed.is_empty()
        {
            return Ok(main.id.clone());
        }
        let tree = self.releases.tree(id);
        let (author, committer, message) = words(kept);
        let parent = known.main.as_ref().map(|main| main.id.as_str());
        let commit = self.repository.import(|out, name| {
            stream::head(out, name, parent, (&author, &committer), &message)?;
            for path in removed {
                stream::gone(out, path)?;
            }
            for path in changed {
                let bytes = std::fs::read(tree.join(path))?;
                stream::file(out, path, manifest.files[path].is_executable, &bytes)?;
            }
            Ok(stream::done(out)?)
        })?;
        match &known.main {
            Some(main) if main.tree == commit.tree => Ok(main.id.clone()),
            _ => Ok(commit.id),
        }
    }

    /// All of a release, in place of whatever `main` has.
    fn whole(&self, manifest: &Manifest, main: Option<&Commit>) -> Result<Diff, GitError> {
        let before = main.map(|main| self.repository.paths(&main.tree)).transpose()?;
        let removed = before.unwrap_or_default().into_iter();
        Ok(Diff {
            added: manifest.files.keys().cloned().collect(),
            changed: Vec::new(),
            removed: removed.filter(|path| !manifest.files.contains_key(path)).collect(),
        })
    }
}

/// The releases that `main`'s own commit stands for.
fn at(known: &Known) -> Vec<ReleaseId> {
    let Some(main) = &known.main else { return Vec::new() };
    let here = known.releases.iter().filter(|(_, commit)| commit.id == main.id);
    here.map(|(id, _)| id.clone()).collect()
}

/// Author, committer and message of a release's commit.
fn words(kept: &Kept) -> (Person, Person, String) {
    let (origin, at_ms) = (&kept.release.origin, kept.served_ms);
    let here = host::name();
    let committer = Person::new("Pressroom", &format!("pressroom@{here}"), at_ms);
    match &kept.release.back_by {
        Some(who) => {
            let author = Person::new(who, &format!("{who}@{here}"), at_ms);
            let short = &kept.release.id.as_str()[..12];
            (author, committer, format!("Go back to release {short}\n\n{}\n", origin.message))
        }
        None => {
            let (name, email) = match origin.author.split_once(" <") {
                // A user of WordPress.
                Some((name, email)) => (name, email.trim_end_matches('>').to_owned()),
                None if origin.email.is_empty() => {
                    (origin.author.as_str(), format!("{}@{here}", origin.author))
                }
                None => (origin.author.as_str(), origin.email.clone()),
            };
            let author = Person::new(name, &email, at_ms);
            (author, committer, format!("{}\n", origin.message.trim_end()))
        }
    }
}

#[cfg(test)]
mod tests;
