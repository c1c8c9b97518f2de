//! Doing what was decided: one task an action, never the same one twice at a time, with back-off after a failure.

use std::sync::Arc;
use std::time::Duration;

use pressroom_model::config::Config;
use pressroom_model::id::InstanceId;
use pressroom_model::process::{ListenAddress, ProcessSpec, Reply, Request};
use pressroom_model::rollout::Stage;
use pressroom_plan::machine::{
    self, Action, DNS, DOCKER, EDGE, ETCD, KEEPALIVED, MARIADB, SQL, Step,
};
use pressroom_runtime::clock;
use pressroom_runtime::tasks::Group;

use crate::agent::{self, Agent, Event, Failed};
use crate::observe::Engines;
use crate::{engine, keeper, site, view};

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An engine or file.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A site.
    #[error(transparent)]
    Site(#[from] site::Error),
    /// The keeper.
    #[error(transparent)]
    Keeper(#[from] keeper::CallError),
    /// The keeper would not.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error("MariaDB: {0}")]
    Database(#[from] mysql_async::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] pressroom_store::StoreError),
    /// A file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A failure of an action that is not wanted any more is forgotten so long after its next try was due.
const FORGET_MS: u64 = 30_000;

impl Agent {
    /// One look, one decision; its actions run in `group`.
    pub(crate) fn decide(self: &Arc<Self>, group: &Group) {
        let Some(config) = self.config() else { return };
        // Who does not know where the database is must not take it for nobody's.
        if self.cluster.is_some() && self.data_node().is_none() {
            return;
        }
        // Nothing can be done without the keeper, and which sockets it holds decides which site has which.
        if self.state.lock().keeper.is_none() {
            return;
        }
        let engines = match self.engines(&config) {
            Ok(engines) => engines,
            Err(error) => {
                self.notice(format!("cannot decide: {error}"));
                return;
            }
        };
        if let (Some(sql), Some(cluster)) = (&engines.sql, &self.cluster)
            && let Err(error) = sql.publish(self.data_node().as_ref(), &cluster.wire.members.now())
        {
            self.notice(format!(
                "`pressroom sql` cannot be told where the database is: {error}; it goes by what it knew"
            ));
        }
        let picture = match self.picture(&config, &engines) {
            Ok(picture) => picture,
            Err(error) => {
                self.notice(format!("cannot decide: {error}"));
                return;
            }
        };
        let steps = machine::steps(&picture.intent, &picture.observed);
        let now_ms = picture.observed.now_ms;
        let view = Arc::new(picture.view);
        let due: Vec<Step> = {
            let mut state = self.state.lock();
            state.open_steps = steps.len();
            state.decisions += 1;
            // What is not to be done any more did not fail for ever; an engine may hide a step for a moment.
            state.failed.retain(|action, failed| {
                now_ms < failed.again_ms + FORGET_MS
                    || steps.iter().any(|step| step.action == *action)
            });
            let due: Vec<Step> = steps
                .into_iter()
                .filter(|step| !state.running.contains(&step.action))
                .filter(|step| {
                    state.failed.get(&step.action).is_none_or(|failed| now_ms >= failed.again_ms)
                })
                .collect();
            state.running.extend(due.iter().map(|step| step.action.clone()));
            due
        };
        for step in due {
            let agent = Arc::clone(self);
            let (config, engines, view) = (config.clone(), Arc::clone(&engines), Arc::clone(&view));
            group.spawn(format!("{:?}", step.action), move |_| async move {
                agent.carry_out(step, &config, &engines, &view).await;
            });
        }
    }

    async fn carry_out(
        self: Arc<Self>,
        step: Step,
        config: &Config,
        engines: &Arc<Engines>,
        view: &pressroom_model::snapshot::Snapshot,
    ) {
        let words = words(&step.action);
        let since = clock::now();
        tracing::info!(action = %words, because = %step.because, "begin");
        let tell = |stage, detail: String| {
            let ms = since.elapsed().as_millis() as u64;
            // Nobody may be following.
            let _ = self.events.send(Event { step: words.clone(), detail, stage, ms });
        };
        tell(agent::Stage::Begun, step.because.clone());
        let result = self.perform(&step, config, engines, view).await;
        self.remember_result(&step.action, &result);
        match result {
            Ok(()) => {
                tracing::info!(action = %words, ms = since.elapsed().as_millis() as u64, "done");
                tell(agent::Stage::Done, String::new());
            }
            Err(error) => {
                tracing::error!(action = %words, %error, "failed; it will be tried again");
                let text = error.to_string();
                self.notice(format!("{words} failed: {}", text.lines().next().unwrap_or_default()));
                tell(agent::Stage::Failed, error.to_string());
            }
        }
        self.changed.notify_one();
    }

    fn remember_result(&self, action: &Action, result: &Result<(), Error>) {
        let mut state = self.state.lock();
        state.running.remove(action);
        match result {
            Ok(()) => {
                state.failed.remove(action);
            }
            Err(error) => {
                let times = state.failed.get(action).map_or(0, |failed| failed.times) + 1;
                let again_ms = clock::wall_ms() + (500u64 << times.min(6)).min(30_000);
                let failed = Failed { times, again_ms, because: error.to_string() };
                state.failed.insert(action.clone(), failed);
            }
        }
    }

    async fn perform(
        self: &Arc<Self>,
        step: &Step,
        config: &Config,
        engines: &Arc<Engines>,
        view: &pressroom_model::snapshot::Snapshot,
    ) -> Result<(), Error> {
        match &step.action {
            Action::InitialiseDatabase => {
                let mariadb = engines.mariadb.clone();
                off_the_loop(move || mariadb.initialise().map_err(Error::from)).await
            }
            Action::Listen(name) => self.listen(name, engines).await,
            Action::Unlisten(name) => {
                self.tell_keeper(&Request::Unlisten { name: name.clone() }).await
            }
            Action::PrepareSite(name) => self.prepare_site(config, name).await.map_err(Error::from),
            Action::BuildRelease(name) => self.build_release(name).await.map_err(Error::from),
            Action::FetchReleases(name) => self.fetch_releases(name).await.map_err(Error::from),
            Action::BuildImage(version) => self.build_image(version).await,
            Action::CreateDatabase(name) => self.create_database(name, &engines.mariadb).await,
            Action::GrantRedis => {
                for redis in &engines.redis {
                    if !redis.knows_users() {
                        redis.grant().await?;
                    }
                }
                Ok(())
            }
            Action::InstallWordPress(name) => {
                self.install_wordpress(name).await.map_err(Error::from)
            }
            Action::CopySite(name) => {
                self.copy_site(name, &engines.mariadb).await.map_err(Error::from)
            }
            Action::UpgradeDatabase(name) => {
                self.upgrade_database(name, &engines.mariadb).await.map_err(Error::from)
            }
            Action::Start(name) => self.start_engine(name, engines).await,
            Action::StartInstance(id, version) => self.start_instance(id, version).await,
            Action::BeginRollout(name, stage) => {
                Box::pin(self.begin_rollout(config, name, *stage)).await.map_err(Error::from)
            }
            Action::CheckCandidate(name) => self.check_candidate(name).await.map_err(Error::from),
            Action::Switch(name) => self.advance(name, Stage::Switching).await.map_err(Error::from),
            Action::FinishRollout(name) => self.finish_rollout(name).await.map_err(Error::from),
            Action::AbandonRollout(name) => {
                self.abandon_rollout(name, &step.because).await.map_err(Error::from)
            }
            Action::Stop(name) => {
                self.tell_keeper(&Request::Stop { name: name.clone(), kill: false }).await
            }
            Action::Kill(name) => {
                self.notice(format!("killing `{name}`, which does not answer"));
                self.tell_keeper(&Request::Stop { name: name.clone(), kill: true }).await
            }
            Action::Forget(name) => self.tell_keeper(&Request::Forget { name: name.clone() }).await,
            Action::PublishView => {
                let reader =
                    engine::owner(self.users.edge().map_err(engine::Error::from)?.as_ref())
                        .map(|(_, gid)| (0, gid));
                let generation = view::publish(&self.layout, view, reader)?;
                self.state.lock().published = Some((view::digest(view), generation));
                self.await_edge().await;
                Ok(())
            }
        }
    }

    async fn listen(&self, name: &str, engines: &Engines) -> Result<(), Error> {
        let Some(listener) = engines.listeners.iter().find(|listener| listener.name == name) else {
            return Ok(());
        };
        // A site's socket folder may not be there yet: it is prepared at the same time.
        if let ListenAddress::Unix { path, owner, .. } = &listener.address
            && let Some(folder) = path.parent()
        {
            // Whoever gets to an engine's socket still needs a password.
            if name.starts_with("sql-") {
                crate::files::folder(folder, 0o755, None)?;
            }
            let is_spare = name.starts_with("sql-") || folder == self.layout.run().join("affirm");
            if !is_spare {
                crate::files::folder(folder, 0o750, owner.map(|(_, gid)| (0, gid)))?;
            }
        }
        self.tell_keeper(&Request::Listen { listener: listener.clone() }).await
    }

    async fn start_engine(&self, name: &str, engines: &Arc<Engines>) -> Result<(), Error> {
        let (wanted, engines) = (name.to_owned(), Arc::clone(engines));
        let spec = off_the_loop(move || {
            let spec = match wanted.as_str() {
                MARIADB => engines.mariadb.prepare(),
                EDGE => engines.edge.prepare(),
                SQL => match &engines.sql {
                    Some(sql) => sql.prepare(),
                    None => return Err(Error::Refused("this machine is in no cluster".into())),
                },
                DNS => match &engines.dns {
                    Some(dns) => dns.prepare(),
                    None => return Err(Error::Refused("no names are answered here".into())),
                },
                KEEPALIVED => match &engines.keepalived {
                    Some(keepalived) => keepalived.prepare(),
                    None => {
                        return Err(Error::Refused("no floating address is to come here".into()));
                    }
                },
                ETCD => match &engines.etcd {
                    Some(etcd) => etcd.prepare(),
                    None => return Err(Error::Refused("this node does not vote".into())),
                },
                DOCKER => match &engines.docker {
                    Some(docker) => docker.prepare(),
                    None => return Err(Error::Refused("Docker's daemon is not ours".into())),
                },
                _ => match engines.redis.iter().find(|redis| redis.name() == wanted) {
                    Some(redis) => redis.prepare(),
                    None => return Err(Error::Refused(format!("there is no engine `{wanted}`"))),
                },
            };
            spec.map_err(Error::from)
        })
        .await?;
        self.start(spec).await
    }

    async fn start_instance(&self, id: &InstanceId, fingerprint: &str) -> Result<(), Error> {
        let name = id.site();
        let version = self.version(&name, fingerprint);
        let prepared = self.state.lock().sites.get(&name).and_then(|facts| facts.prepared.clone());
        let (Some(prepared), Some(version)) = (prepared, version) else {
            return Err(Error::Refused(format!("`{id}` is not prepared yet")));
        };
        let instances = self
            .instances_of(&prepared, &version)?
            .named(fingerprint)
            .reading(self.bytecode_of(&version))
            .judged(&self.sound);
        // A site that was prepared before there were confinements has none yet.
        self.keep_etc(&name)?;
        let (is_serving, is_candidate) = {
            let state = self.state.lock();
            let facts = state.sites.get(&name);
            let serving = facts.and_then(|facts| facts.serving.as_ref());
            let candidate = facts.and_then(|facts| facts.candidate.as_ref());
            (
                serving.is_some_and(|serving| serving.fingerprint == fingerprint),
                candidate.is_some_and(|candidate| candidate.version.fingerprint == fingerprint),
            )
        };
        let own = id.clone();
        let spec = off_the_loop(move || {
            if is_serving {
                instances.write_cli_ini()?;
            }
            instances.prepare(&own).map_err(Error::from)
        })
        .await;
        match spec {
            // The engine's own check refused it: waiting would not help.
            Err(Error::Engine(error @ engine::Error::Refused { .. }))
                if is_candidate && self.leads() =>
            {
                self.abandon_rollout(&name, &error.to_string()).await.map_err(Error::from)
            }
            spec => self.start(spec?).await,
        }
    }

    async fn start(&self, spec: ProcessSpec) -> Result<(), Error> {
        let name = spec.name.clone();
        self.tell_keeper(&Request::Start { spec: Box::new(spec) }).await?;
        // The decision after this one must see it.
        self.look_at_processes().await?;
        self.state.lock().verdicts.remove(&name);
        self.started.notify_one();
        Ok(())
    }

    /// Asks the keeper now what there is.
    pub(crate) async fn look_at_processes(&self) -> Result<(), Error> {
        if let Reply::Listed { processes, listeners, keeper, confines, .. } =
            self.ask_keeper(&Request::List).await?
        {
            self.keeper_confines.store(confines, std::sync::atomic::Ordering::Relaxed);
            let mut state = self.state.lock();
            state.processes = processes;
            state.listeners = listeners;
            state.keeper = Some(keeper);
        }
        Ok(())
    }

    pub(crate) async fn tell_keeper(&self, request: &Request) -> Result<(), Error> {
        match self.ask_keeper(request).await? {
            Reply::Refused { because } => Err(Error::Refused(because)),
            _ => {
                self.look_at_processes().await?;
                Ok(())
            }
        }
    }

    async fn create_database(
        &self,
        name: &pressroom_model::id::SiteName,
        mariadb: &engine::mariadb::MariaDb,
    ) -> Result<(), Error> {
        let secrets = crate::secrets::site(&self.layout, name).map_err(std::io::Error::other)?;
        mariadb.create_site(name, &secrets.database).await?;
        self.state.lock().sites.entry(name.clone()).or_default().has_database = true;
        Ok(())
    }

    /// Stops everything but the keeper and this agent: first who serves, then the engines they need.
    pub async fn stop_all(&self, tell: impl Fn(Event)) -> Result<(), Error> {
        self.state.lock().is_stopping = true;
        self.look_at_processes().await?;
        let running = || -> Vec<String> {
            let state = self.state.lock();
            state
                .processes
                .iter()
                .filter(|p| p.pid.is_some())
                .map(|p| p.spec.name.clone())
                .collect()
        };
        for wave in [Wave::Addresses, Wave::Edge, Wave::Php, Wave::Engines] {
            // One whose client had to be killed: while somebody can be asked to end it.
            if wave == Wave::Engines
                && let Err(error) = self.end_leftovers().await
            {
                tracing::warn!(%error, "cannot look for containers");
            }
            let names: Vec<String> =
                running().into_iter().filter(|name| wave_of(name) == Some(wave)).collect();
            let since = clock::now();
            for name in &names {
                tell(Event {
                    step: format!("stop {name}"),
                    detail: String::new(),
                    stage: agent::Stage::Begun,
                    ms: 0,
                });
                self.tell_keeper(&Request::Stop { name: name.clone(), kill: false }).await?;
            }
            // The keeper kills what outlives its grace, so this ends.
            while running().iter().any(|name| names.contains(name)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.look_at_processes().await?;
            }
            for name in names {
                let ms = since.elapsed().as_millis() as u64;
                tell(Event {
                    step: format!("stop {name}"),
                    detail: String::new(),
                    stage: agent::Stage::Done,
                    ms,
                });
            }
        }
        if self.containers.lock().is_own {
            engine::docker::unmount(&self.layout);
        }
        Ok(())
    }
}

/// Who is stopped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wave {
    /// Visitors come to another node from then on.
    Addresses,
    Edge,
    Php,
    Engines,
}

/// The agent itself is in none: it stops last, by the keeper.
fn wave_of(name: &str) -> Option<Wave> {
    match name {
        "agent" => None,
        KEEPALIVED => Some(Wave::Addresses),
        EDGE => Some(Wave::Edge),
        _ if machine::instance_of(name).is_some() => Some(Wave::Php),
        _ => Some(Wave::Engines),
    }
}

/// Runs blocking work without holding up the loop.
pub(crate) async fn off_the_loop<T: Send + 'static, E: From<std::io::Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}

/// An action in words.
pub fn words(action: &Action) -> String {
    match action {
        Action::InitialiseDatabase => "initialise the database".into(),
        Action::Listen(name) => format!("listen for {name}"),
        Action::Unlisten(name) => format!("stop listening for {name}"),
        Action::PrepareSite(site) => format!("prepare site {site}"),
        Action::BuildRelease(site) => format!("build the release of {site}"),
        Action::FetchReleases(site) => format!("fetch the code of {site} from another node"),
        Action::BuildImage(version) => format!("build the image of PHP {version}"),
        Action::CreateDatabase(site) => format!("create the database of {site}"),
        Action::GrantRedis => "tell Redis who may do what".into(),
        Action::InstallWordPress(site) => format!("install WordPress for {site}"),
        Action::CopySite(site) => format!("copy database and media for {site}"),
        Action::UpgradeDatabase(site) => format!("bring the tables of {site} up to date"),
        Action::Start(name) => format!("start {name}"),
        Action::StartInstance(id, _) => format!("start instance {id}"),
        Action::BeginRollout(site, _) => format!("begin the rollout of {site}"),
        Action::CheckCandidate(site) => format!("check the new version of {site}"),
        Action::Switch(site) => format!("switch {site} to the new version"),
        Action::FinishRollout(site) => format!("park the former version of {site}"),
        Action::AbandonRollout(site) => format!("give the new version of {site} up"),
        Action::Stop(name) => format!("stop {name}"),
        Action::Kill(name) => format!("kill {name}"),
        Action::Forget(name) => format!("forget {name}"),
        Action::PublishView => "publish the edge's view".into(),
    }
}
