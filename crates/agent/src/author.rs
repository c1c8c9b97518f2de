//! The author instance: where wp-admin changes a site's code, and how that becomes a release.
//!
//! It is one php-fpm instance on a writable copy of the serving release, started when somebody changes code and kept for a
//! while. The edge brings it requests that an ordinary instance has verified (see `wordpress/mu-plugins/pressroom/author.php`);
//! they come through the sockets here, one change at a time:
//!
//! 1. *Turn*: nobody else changes the site's code, a deploy neither. The copy is made equal to the serving release.
//! 2. The request runs. When WordPress has changed files, and before the database names them, PHP tells the [`desk`]
//!    which part it changed and what was done; those files become a release, which is rolled out as any other. PHP waits.
//! 3. Refused: the copy is put right and WordPress shows the reason. Afterwards whatever else was written is put right as well.
//!
//! A change that has begun is finished, whoever leaves (see [`change`]): the client, the edge, or this agent.
//!
//! Always: only what WordPress's upgrader or editor named is captured. The copy and the sockets of the instance are in
//! folders that only its group enters, which the site's other instances do not have.

mod change;
pub(crate) mod desk;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pressroom_model::id::SiteName;
use pressroom_model::unit::Span;
use pressroom_model::writes::SCRATCH;
use pressroom_release::releases::Releases;
use pressroom_release::worktree::{Part, Place, Worktree};
use pressroom_runtime::clock;
use pressroom_runtime::handover;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_runtime::tree;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OwnedMutexGuard;

use self::change::Change;
use crate::agent::Agent;
use crate::apply::off_the_loop;
use crate::engine;
use crate::facts::{SiteFacts, Version};
use crate::files;
use crate::site::{self, check};

/// Longest run of one request at the author instance, a rollout included.
pub const LONGEST: Span = Span::seconds(420);
/// WordPress may take so long by itself: it downloads and unpacks.
const PHP_TIME: Span = Span::seconds(300);
/// The instance stays for so long after the last change.
const STAYS_MS: u64 = 10 * 60_000;
/// It answers so soon, or not at all.
const START: Duration = Duration::from_secs(30);
/// A change needs one, its requests to its own site another one, and one is for whoever looks meanwhile.
const LEAST_WORKERS: u16 = 3;

/// What is kept of authors between two changes.
#[derive(Default)]
pub(crate) struct Authors {
    turns: Mutex<BTreeMap<SiteName, Arc<tokio::sync::Mutex<()>>>>,
    copies: Mutex<BTreeMap<SiteName, Arc<Mutex<Worktree>>>>,
    /// Sites whose code is being changed right now.
    at_work: Mutex<BTreeSet<SiteName>>,
    /// Changes that were under way when the agent before this one ended.
    taken_up: Mutex<BTreeMap<SiteName, Change>>,
    /// Sites whose WordPress wants to update itself.
    updates: Mutex<BTreeSet<SiteName>>,
}

impl Authors {
    /// WordPress wants to do its automatic updates.
    pub(crate) fn update_soon(&self, name: &SiteName) {
        self.updates.lock().insert(name.clone());
    }
}

/// The right to change a site's code; nobody else has it meanwhile.
pub struct Turn(#[expect(dead_code, reason = "held, not used")] OwnedMutexGuard<()>);

/// Which socket a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// It changes code.
    Change,
    /// A change asks its own site.
    Loopback,
    /// PHP of the author instance says what it has changed.
    Desk,
}

impl Agent {
    /// Waits until nobody else changes the site's code.
    pub async fn turn(&self, name: &SiteName) -> Turn {
        let turn = Arc::clone(self.authors.turns.lock().entry(name.clone()).or_default());
        Turn(turn.lock_owned().await)
    }

    /// As [`Agent::turn`], if nobody has it.
    fn try_turn(&self, name: &SiteName) -> Option<Turn> {
        let turn = Arc::clone(self.authors.turns.lock().entry(name.clone()).or_default());
        turn.try_lock_owned().ok().map(Turn)
    }

    /// The version of the site's author instance; `None`: there is nothing to change yet.
    pub(crate) fn author_version(
        &self,
        facts: &SiteFacts,
    ) -> Result<Option<Version>, engine::Error> {
        let (Some(prepared), Some(serving)) = (&facts.prepared, &facts.serving) else {
            return Ok(None);
        };
        let mut site = serving.site.clone();
        site.php.workers = site.php.workers.max(LEAST_WORKERS);
        site.php.time = site.php.time.max(PHP_TIME);
        let version = Version { site, is_author: true, ..serving.clone() };
        let fingerprint = self.instances_of(prepared, &version)?.fingerprint().to_owned();
        Ok(Some(Version { fingerprint, ..version }))
    }

    /// Keeps the sockets of all sites open.
    pub(crate) async fn keep_authors(self: Arc<Self>, shutdown: Shutdown) {
        let mut open: BTreeMap<SiteName, Group> = BTreeMap::new();
        let changes = Group::new("author", shutdown.clone());
        while !shutdown.is_requested() {
            let wanted = if self.leads() { self.sites_with_authors() } else { Vec::new() };
            let gone: Vec<SiteName> =
                open.keys().filter(|name| !wanted.contains(name)).cloned().collect();
            for name in gone {
                if let Some(group) = open.remove(&name) {
                    group.finish(Duration::ZERO).await;
                    self.remove_author(&name);
                }
            }
            for name in wanted {
                if open.contains_key(&name) {
                    continue;
                }
                match self.open_doors(&name, &shutdown) {
                    Ok(group) => drop(open.insert(name, group)),
                    Err(error) => {
                        tracing::error!(site = %name, %error, "cannot open the author's sockets");
                    }
                }
            }
            self.end_taken_up(&changes);
            let due = std::mem::take(&mut *self.authors.updates.lock());
            for name in due {
                let Some(group) = open.get(&name) else { continue };
                let agent = Arc::clone(&self);
                group.spawn("updates", move |_| async move {
                    if let Err(error) = agent.update_automatically(&name).await {
                        agent.notice(format!("`{name}`: automatic updates failed: {error}"));
                    }
                });
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
                () = shutdown.requested() => {}
            }
        }
        for group in open.into_values().chain([changes]) {
            group.finish(Duration::ZERO).await;
        }
    }

    /// Whether the site is there with everything that a change of its code needs.
    fn has_code(&self, name: &SiteName) -> bool {
        self.state.lock().sites.get(name).is_some_and(|facts| {
            facts.is_installed && facts.prepared.is_some() && facts.serving.is_some()
        })
    }

    fn sites_with_authors(&self) -> Vec<SiteName> {
        let sites = self.config().map(|config| config.sites).unwrap_or_default();
        let names = sites.into_iter().filter(|site| site.file_mods).map(|site| site.name);
        names.filter(|name| self.has_code(name)).collect()
    }

    fn open_doors(self: &Arc<Self>, name: &SiteName, shutdown: &Shutdown) -> io::Result<Group> {
        let ids = |ids: Result<_, crate::users::Error>| ids.map_err(io::Error::other);
        let edge = ids(self.users.edge())?;
        let gid = ids(self.users.authors())?.map(|ids| ids.gid);
        let user = ids(self.users.site(name))?;
        // For the edge: the folder is the wall, as with php-fpm's own sockets.
        let change = self.layout.author_change(name);
        if let Some(folder) = change.parent() {
            files::folder(folder, 0o750, edge.map(|edge| (0, edge.gid)))?;
        }
        let author = self.layout.author(name);
        files::folder(&self.layout.authors(), 0o750, gid.map(|gid| (0, gid)))?;
        files::folder(&author, 0o750, gid.map(|gid| (0, gid)))?;
        let root = self.layout.author_root(name);
        files::folder(&root, 0o755, user.as_ref().map(|user| (user.uid, user.gid)))?;
        let desk = self.layout.author_desk(name);
        let group = Group::new("author", shutdown.clone());
        for (path, door) in
            [(change, Door::Change), (self.layout.author_loopback(name), Door::Loopback)]
        {
            let listener = listen(&path)?;
            let (agent, name, own) = (Arc::clone(self), name.clone(), group.clone());
            group.spawn(format!("{door:?}"), move |stop| {
                agent.attend(name, door, listener, own, stop)
            });
        }
        let listener = listen(&desk)?;
        if let Some(user) = &user {
            chown(&desk, Some(user.uid), Some(user.gid))?;
        }
        let (agent, name, own) = (Arc::clone(self), name.clone(), group.clone());
        group.spawn("desk", move |stop| agent.attend(name, Door::Desk, listener, own, stop));
        Ok(group)
    }

    async fn attend(
        self: Arc<Self>,
        name: SiteName,
        door: Door,
        listener: UnixListener,
        group: Group,
        stop: Shutdown,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.requested() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (agent, name) = (Arc::clone(&self), name.clone());
                    group.spawn("request", move |_| async move {
                        let served = match door {
                            Door::Desk => agent.serve_desk(&name, stream).await,
                            Door::Change => agent.serve_change(&name, stream).await,
                            Door::Loopback => agent.serve_loopback(&name, stream).await,
                        };
                        if let Err(error) = served {
                            tracing::error!(site = %name, ?door, %error, "a request of the author instance failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(site = %name, ?door, %error, "cannot accept a request of the author instance");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A request that a change makes to its own site, or a knock: somebody may change code soon.
    async fn serve_loopback(&self, name: &SiteName, mut edge: UnixStream) -> io::Result<()> {
        if !self.authors.at_work.lock().contains(name) {
            self.get_ready(name).await?;
            // Who only knocked has left.
            let _heard = handover::give_nothing(&mut edge).await;
            return Ok(());
        }
        let php = self.author_socket(name).await?;
        handover::give(&edge, &php).await
    }

    /// Has WordPress do the automatic updates that it wants to do: each is a release, as one that is clicked.
    async fn update_automatically(self: &Arc<Self>, name: &SiteName) -> io::Result<()> {
        let turn = self.turn(name).await;
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let Some(prepared) = facts.prepared else { return Ok(()) };
        let change = self.begin_change(name, turn).await?;
        let socket = match self.author_instance(name).await {
            Ok(socket) => socket,
            Err(error) => return self.end_change(change).await.and(Err(error)),
        };
        let key = prepared.secrets.cron.reveal();
        let more = [("PRESSROOM_AUTO_UPDATE", key)];
        let root = self.author_php_root(name, facts.serving.as_ref());
        let asked = check::ask(&socket, &root, &prepared.home, "/", &more);
        let asked = tokio::time::timeout(LONGEST.get(), asked).await;
        self.end_change(change).await?;
        let answer = asked.map_err(|_| io::Error::other("it took too long"))??;
        match answer.status {
            200 => Ok(()),
            status => Err(io::Error::other(format!("status {status}: {}", answer.errors.trim()))),
        }
    }

    /// Somebody looks at a page with buttons that change code: the instance is started, and its copy made equal.
    async fn get_ready(&self, name: &SiteName) -> io::Result<()> {
        self.want_author(name);
        {
            // Whoever has the turn does so, too.
            let Some(_turn) = self.try_turn(name) else { return Ok(()) };
            self.renew_copy(name, None).await.map_err(io::Error::other)?;
        }
        self.warm(name).await
    }

    /// Has the author instance load WordPress, so that the first change need not.
    async fn warm(&self, name: &SiteName) -> io::Result<()> {
        let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
        let Some(prepared) = facts.prepared else { return Ok(()) };
        let socket = self.author_instance(name).await?;
        let root = self.author_php_root(name, facts.serving.as_ref());
        let asked = check::ask(&socket, &root, &prepared.home, "/", &[("PRESSROOM_READY", "1")]);
        match tokio::time::timeout(START, asked).await {
            Ok(answered) => answered.map(drop),
            Err(_) => Err(io::Error::other("it did not answer whether it is ready")),
        }
    }

    /// The folder of `index.php` as the author instance sees it.
    fn author_php_root(&self, name: &SiteName, serving: Option<&Version>) -> PathBuf {
        let means = serving.map(|serving| serving.means).unwrap_or_default();
        means.php_root().unwrap_or_else(|| self.layout.author_root(name))
    }

    fn want_author(&self, name: &SiteName) {
        let mut state = self.state.lock();
        let facts = state.sites.entry(name.clone()).or_default();
        facts.author_until_ms = clock::wall_ms() + STAYS_MS;
        drop(state);
        self.changed.notify_one();
    }

    /// A connection to the author instance, once it runs.
    async fn author_socket(&self, name: &SiteName) -> io::Result<UnixStream> {
        UnixStream::connect(self.author_instance(name).await?).await
    }

    /// The socket of the author instance, once it answers.
    async fn author_instance(&self, name: &SiteName) -> io::Result<PathBuf> {
        let until = clock::now() + START;
        loop {
            let facts = self.state.lock().sites.get(name).cloned().unwrap_or_default();
            let version = self.author_version(&facts).map_err(io::Error::other)?;
            let id = version.and_then(|version| self.one_of(name, &version));
            let socket = id.map(|id| self.layout.instance_socket(&id));
            if let Some(socket) = socket
                && UnixStream::connect(&socket).await.is_ok()
            {
                return Ok(socket);
            }
            if clock::now() > until {
                let seconds = START.as_secs();
                return Err(io::Error::other(format!("it did not answer within {seconds} s")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Makes the author's copy, or parts of it, equal to the serving release; what had to be put right.
    pub(crate) async fn renew_copy(
        &self,
        name: &SiteName,
        only: Option<Vec<Part>>,
    ) -> Result<Vec<String>, site::Error> {
        let serving = {
            let state = self.state.lock();
            let facts = state.sites.get(name);
            facts.and_then(|facts| Some(facts.serving.as_ref()?.release.id.clone()))
        };
        let id = serving.ok_or_else(|| site::Error::Unknown(name.clone()))?;
        let copy = Arc::clone(self.authors.copies.lock().entry(name.clone()).or_default());
        let owner = self.users.site(name).map_err(io::Error::other)?.map(|ids| (ids.uid, ids.gid));
        let (root, uploads) = (self.layout.author_root(name), self.layout.uploads(name));
        let releases = Releases::at(self.layout.releases());
        let of = name.clone();
        off_the_loop(move || {
            let place = Place { root: &root, owner, uploads: &uploads };
            let renewed = copy.lock().renew(&releases, &id, &place, only.as_deref());
            renewed.map_err(|source| site::Error::Code { site: of, source })
        })
        .await
    }

    fn remove_author(&self, name: &SiteName) {
        let sockets = [self.layout.author_change(name), self.layout.author_loopback(name)];
        for path in sockets {
            let _gone = std::fs::remove_file(path);
        }
        let _gone = tree::remove(&self.layout.author(name));
        self.authors.copies.lock().remove(name);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let naming = |error| files::naming(path, &error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(naming(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(naming)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(naming)?;
    Ok(listener)
}

/// What WordPress's upgrader leaves behind and what plugins keep for themselves; nobody need hear of it.
fn is_scratch(path: &str) -> bool {
    path == ".maintenance"
        || path.starts_with("wp-content/upgrade")
        || SCRATCH.iter().any(|scratch| Path::new(path).starts_with(scratch.path))
}

/// A part of the code that wp-admin may change, by the name that PHP gives it.
fn part(name: &str) -> Option<Part> {
    if name == "core" {
        return Some(Part::Core);
    }
    let is_plain = |name: &str| !matches!(name, "" | "." | "..");
    let names: Vec<&str> = name.split('/').collect();
    let is_code = matches!(
        names[..],
        ["wp-content", "plugins" | "themes", _, ..] | ["wp-content", "languages", ..]
    );
    (is_code && names.into_iter().all(is_plain)).then(|| Part::Path(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plugins_themes_languages_and_the_core_are_changed_in_wp_admin() {
        for name in [
            "core",
            "wp-content/plugins/hello.php",
            "wp-content/plugins/woo/a/b.php",
            "wp-content/themes/x",
            "wp-content/languages",
            "wp-content/languages/plugins/x-de_DE.mo",
        ] {
            assert!(part(name).is_some(), "{name}");
        }
        for name in [
            "",
            "wp-content",
            "wp-content/plugins",
            "wp-content/plugins/",
            "wp-content/plugins/../mu-plugins/x.php",
            "wp-content/mu-plugins/pressroom.php",
            "wp-content/object-cache.php",
            "wp-config.php",
            "wp-content/uploads/x.php",
            "/etc",
        ] {
            assert_eq!(part(name), None, "{name}");
        }
    }
}
