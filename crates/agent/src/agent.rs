//! The loop of a machine's agent: observe, decide by `plan`, apply, and again when something changed.
//!
//! What it remembers in [`State`] is observation and can be had again: an agent that dies loses nothing but the
//! history of probes. What must outlive it is in the store: the intent, and which release each site runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::config::{Config, Site};
use pressroom_model::environment::Environment;
use pressroom_model::id::SiteName;
use pressroom_model::process::{ListenerSpec, ProcessState, Reply, Request};
use pressroom_model::secret::Secret;
use pressroom_model::status::Traffic;
use pressroom_model::unit::ByteSize;
use pressroom_plan::environment::effective;
use pressroom_plan::health::Memory;
use pressroom_plan::machine::Action;
use pressroom_plan::supervise::Exits;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::etcd::EtcdStore;
use pressroom_store::transaction::Transaction;
use pressroom_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};

use crate::author::Authors;
use crate::bytecode::Bytecode;
use crate::cluster::follow::Remembered;
use crate::cluster::{self, Cluster, Known, keys};
use crate::confinement::{self, Means};
use crate::engine::php;
use crate::facts::SiteFacts;
use crate::keeper;
use crate::layout::Layout;
use crate::users::Users;

/// A machine's agent.
pub struct Agent {
    /// Where everything is.
    pub layout: Layout,
    /// The configuration file, for the processes that we start.
    pub config_file: PathBuf,
    /// System users.
    pub users: Users,
    pub(crate) memory: ByteSize,
    pub(crate) cores: u16,
    pub(crate) store: Arc<dyn Store>,
    /// The cluster that this machine is a node of, if it is.
    pub cluster: Option<Arc<Cluster>>,
    /// The same store as etcd's, to ask who votes.
    pub(crate) etcd: Option<EtcdStore>,
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Notify,
    /// The agent is to end, and the keeper starts another one.
    pub(crate) end: Notify,
    /// A process was started: somebody waits for its first answer.
    pub(crate) started: Notify,
    /// When this agent began.
    pub(crate) began: Instant,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) names: crate::names::Names,
    /// Held while the local authority is made.
    pub(crate) authority: Mutex<()>,
    /// Held while the intent is changed: what was read for that must still be so when it is stored.
    intent: tokio::sync::Mutex<()>,
    /// Held while an environment is made or deleted.
    pub(crate) making: tokio::sync::Mutex<()>,
    /// Held by who makes releases, and alone by who deletes some.
    pub(crate) collection: tokio::sync::RwLock<()>,
    /// Held while the tables of a site are dumped and changed: one site after the other, and one way at a time.
    pub(crate) tables: tokio::sync::Mutex<()>,
    pub(crate) authors: Authors,
    pub(crate) bytecode: Bytecode,
    /// What php-fpm need not judge again.
    pub(crate) sound: php::Sound,
    /// What of a confinement this machine can do.
    machine_means: Means,
    /// Whether the keeper can confine.
    pub(crate) keeper_confines: AtomicBool,
    pub(crate) histories: crate::git::Histories,
    /// What is known of uploads and is to be told of them.
    pub(crate) media: cluster::media::Media,
    /// How other programs' files stand, that are kept as templates say.
    pub(crate) templates: crate::template::Board,
    /// May be locked while the state is, never the other way round.
    pub(crate) containers: Mutex<crate::container::Containers>,
}

/// What the agent remembers.
#[derive(Default)]
pub(crate) struct State {
    /// The configuration as it was written.
    pub written: Option<Config>,
    /// The environments beside it.
    pub environments: Vec<Environment>,
    /// Environments that are to be deleted, as stored.
    pub leaving: BTreeSet<SiteName>,
    /// Both together: everything that is to be served.
    pub config: Option<Config>,
    pub sites: BTreeMap<SiteName, SiteFacts>,
    pub processes: Vec<ProcessState>,
    pub listeners: Vec<ListenerSpec>,
    pub keeper: Option<i32>,
    /// Verdicts by process name, with the process id that they are about.
    pub verdicts: BTreeMap<String, (i32, Memory)>,
    /// Requests at work by instance.
    pub busy: BTreeMap<String, u32>,
    /// Quick exits by process name.
    pub exits: BTreeMap<String, Exits>,
    /// Instances that are to be replaced because of something that was found, with their process ids.
    pub tired: BTreeMap<String, (i32, String)>,
    pub traffic: Option<Traffic>,
    pub running: BTreeSet<Action>,
    pub failed: BTreeMap<Action, Failed>,
    pub notices: VecDeque<String>,
    /// What confinements lack, as far as it was told.
    pub lacks_told: BTreeSet<String>,
    pub is_stopping: bool,
    /// Steps that the last decision found; none and nothing running: all is as wanted.
    pub open_steps: usize,
    /// Raised by every decision.
    pub decisions: u64,
    /// Digest of the view that was published by us, and its generation.
    pub published: Option<(String, u64)>,
    /// The engines of a configuration and of who is held back, which are costly to compose.
    pub engines: Option<(Config, BTreeSet<SiteName>, Arc<crate::observe::Engines>)>,
    /// The sites that may make no sessions; see [`crate::sessions`].
    pub held_back: BTreeSet<SiteName>,
    /// The figures of that, for people.
    pub held_back_because: String,
    /// Floating addresses here.
    pub floating: crate::floating::Seen,
    /// What is known of the cluster's nodes.
    pub known: Known,
    /// The versions that the published view names.
    pub shown: BTreeMap<SiteName, (String, pressroom_model::id::ReleaseId)>,
    /// Sites that answered a real request through PHP and the database since they last changed.
    pub ready: BTreeMap<SiteName, pressroom_model::verdict::Verdict>,
}

/// An action that failed, and when it is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub times: u32,
    pub again_ms: u64,
    pub because: String,
}

/// Something that the agent did, for whoever follows.
#[derive(Debug, Clone)]
pub struct Event {
    /// What, for people.
    pub step: String,
    /// Why it was begun, or how it failed.
    pub detail: String,
    /// Where it stands.
    pub stage: Stage,
    /// Milliseconds since it began.
    pub ms: u64,
}

/// Where an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Begun.
    Begun,
    /// Done.
    Done,
    /// Failed; it will be tried again.
    Failed,
}

impl State {
    /// What operators want, as it is stored.
    pub(crate) fn intent(&self) -> Option<Intent> {
        let config = self.written.clone()?;
        let (environments, leaving) = (self.environments.clone(), self.leaving.clone());
        Some(Intent { version: 1, config, environments, leaving })
    }

    fn set_intent(&mut self, intent: Intent) {
        self.config = Some(effective(&intent.config, &intent.environments));
        self.written = Some(intent.config);
        self.environments = intent.environments;
        self.leaving = intent.leaving;
    }

    /// Whether the edge says that it serves the view that was published last.
    pub(crate) fn is_view_served(&self) -> bool {
        match (&self.published, &self.traffic) {
            (Some((_, generation)), Some(traffic)) => traffic.generation >= *generation,
            _ => false,
        }
    }
}

/// What failed so far is tried again at once.
fn forgive(state: &mut State) {
    state.failed.clear();
    for facts in state.sites.values_mut() {
        facts.refused = None;
    }
}

const MOST_NOTICES: usize = 50;

/// What operators want, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intent {
    version: u32,
    /// The configuration as it was written.
    pub config: Config,
    #[serde(default)]
    environments: Vec<Environment>,
    /// Environments that are to be deleted, or are not made yet: nothing may be left of them.
    #[serde(default)]
    leaving: BTreeSet<SiteName>,
}

/// What a store remembers of the intent and of the sites in it.
async fn remembered(store: &dyn Store) -> Result<Remembered, StoreError> {
    let stored = store.get(&keys::intent()).await?;
    let intent = stored.and_then(|entry| {
        serde_json::from_slice::<Intent>(&entry.value)
            .inspect_err(|error| {
                tracing::error!(%error, "the stored intent cannot be read; the configuration file counts");
            })
            .ok()
    });
    let mut sites = BTreeMap::new();
    let config = intent.as_ref().map(|intent| effective(&intent.config, &intent.environments));
    let named = config.into_iter().flat_map(|config| config.sites).map(|site| site.name);
    // What is known of those that leave says which releases go with them.
    let leaving = intent.iter().flat_map(|intent| intent.leaving.clone());
    for name in named.chain(leaving) {
        if let Some(entry) = store.get(&keys::site(&name)).await? {
            let facts = serde_json::from_slice(&entry.value).unwrap_or_default();
            sites.insert(name, facts);
        }
    }
    Ok(Remembered { intent, sites, known: Known::default() })
}

fn localised(intent: Intent, cluster: &Cluster, layout: &Layout) -> Intent {
    let config = cluster::localised(intent.config, &cluster.membership(), layout);
    Intent { config, ..intent }
}

impl Agent {
    /// An agent with what its store remembers; `fallback` is the configuration as the file has it. A node of a cluster begins
    /// with what it heard last, and takes over what it hears from then on.
    pub async fn open(
        layout: Layout,
        config_file: &Path,
        store: Arc<dyn Store>,
        fallback: Option<Config>,
        node: Option<(Arc<Cluster>, EtcdStore)>,
    ) -> Result<Arc<Self>, StoreError> {
        let (cluster, etcd) = node.unzip();
        let known = match &cluster {
            None => remembered(&*store).await?,
            Some(_) => Remembered::read(&layout),
        };
        let mut known = known;
        if let Some(own) = cluster.as_ref().map(|cluster| cluster.membership())
            && own.nodes.len() == 1
        {
            // A founder has not heard of itself yet.
            known.known.data.get_or_insert(own.node);
        }
        let fallback = fallback.map(|config| Intent {
            version: 1,
            config,
            environments: Vec::new(),
            leaving: BTreeSet::new(),
        });
        let mut state = State { sites: known.sites, known: known.known, ..State::default() };
        if let Some(intent) = known.intent.or(fallback) {
            state.set_intent(match &cluster {
                Some(cluster) => localised(intent, cluster, &layout),
                None => intent,
            });
        }
        let published = crate::view::published(&layout);
        state.held_back = crate::engine::redis::held_back(&layout);
        state.floating = crate::floating::Seen::read(&layout);
        state.published = published.map(|view| (crate::view::digest(&view), view.generation));
        let users = Users::new();
        let (machine_means, missing) = match users.are_separate() {
            true => confinement::means(),
            false => Default::default(),
        };
        let agent = Self {
            layout,
            config_file: config_file.to_owned(),
            users,
            memory: crate::host::memory(),
            cores: crate::host::cores(),
            store,
            cluster,
            etcd,
            state: Mutex::new(state),
            changed: Notify::new(),
            end: Notify::new(),
            started: Notify::new(),
            began: clock::now(),
            events: broadcast::channel(1024).0,
            names: crate::names::Names::default(),
            authority: Mutex::new(()),
            intent: tokio::sync::Mutex::default(),
            making: tokio::sync::Mutex::default(),
            collection: tokio::sync::RwLock::default(),
            tables: tokio::sync::Mutex::default(),
            authors: Authors::default(),
            bytecode: Bytecode::default(),
            sound: php::Sound::default(),
            histories: crate::git::Histories::default(),
            media: cluster::media::Media::default(),
            templates: crate::template::Board::default(),
            machine_means,
            keeper_confines: AtomicBool::new(false),
            containers: Mutex::default(),
        };
        if !missing.is_empty() {
            let missing = missing.join(", ");
            agent.notice(format!("this machine cannot give sites {missing}; users and permissions alone keep them apart there"));
        }
        if let Some(config) = agent.config() {
            agent.containers.lock().choose(&agent.layout, &config);
        }
        let agent = Arc::new(agent);
        if agent.leads() {
            agent.take_up_changes();
        }
        Ok(agent)
    }

    /// How new versions of sites are confined.
    pub(crate) fn means(&self) -> Means {
        match self.keeper_confines.load(Ordering::Relaxed) {
            true => self.machine_means,
            false => Means::default(),
        }
    }

    pub(crate) fn is_prepared(&self, site: &SiteName) -> bool {
        self.state.lock().sites.get(site).is_some_and(|facts| facts.prepared.is_some())
    }

    /// Tells once what confinements lack.
    pub(crate) fn tell_lacks(&self) {
        let mut lacks: BTreeSet<String> = BTreeSet::new();
        if self.users.are_separate() && !self.keeper_confines.load(Ordering::Relaxed) {
            lacks.insert("the keeper is older than this agent and confines nobody; `pressroom down` and `up` replace it".into());
        }
        let mut state = self.state.lock();
        for process in state.processes.iter().filter(|process| process.pid.is_some()) {
            lacks.extend(process.lacks.iter().map(|lack| format!("instances have {lack}")));
        }
        let news: Vec<String> = lacks.difference(&state.lacks_told).cloned().collect();
        state.lacks_told = lacks;
        drop(state);
        news.into_iter().for_each(|lack| self.notice(lack));
    }

    /// The configuration as it was written: without environments.
    pub fn written(&self) -> Option<Config> {
        self.state.lock().written.clone()
    }

    /// The environments of all sites.
    pub fn environments(&self) -> Vec<Environment> {
        self.state.lock().environments.clone()
    }

    /// Everything that is to be served: the configuration, and a site for each environment.
    pub fn config(&self) -> Option<Config> {
        self.state.lock().config.clone()
    }

    /// Stores a new intent and wakes the loop. `passwords` are for sites that this intent installs.
    pub async fn intend(
        &self,
        config: Config,
        passwords: BTreeMap<SiteName, Secret>,
    ) -> Result<(), StoreError> {
        // An agent that dies before the installation must not invent other ones.
        for (site, password) in &passwords {
            if let Err(error) = crate::secrets::keep_given(&self.layout, site, password) {
                tracing::error!(%site, %error, "cannot keep the given password");
            }
        }
        let _alone = self.intent.lock().await;
        let leaving = self.state.lock().leaving.clone();
        self.intend_all(config, self.environments(), leaving).await
    }

    /// Changes the environments beside the same configuration, stores that, and wakes the loop.
    pub(crate) async fn change_environments(
        &self,
        change: impl FnOnce(&mut Vec<Environment>, &mut BTreeSet<SiteName>),
    ) -> Result<(), StoreError> {
        let _alone = self.intent.lock().await;
        let Some(written) = self.written() else { return Ok(()) };
        let (mut environments, mut leaving) = {
            let state = self.state.lock();
            (state.environments.clone(), state.leaving.clone())
        };
        change(&mut environments, &mut leaving);
        self.intend_all(written, environments, leaving).await
    }

    async fn intend_all(
        &self,
        written: Config,
        environments: Vec<Environment>,
        leaving: BTreeSet<SiteName>,
    ) -> Result<(), StoreError> {
        let intent = Intent { version: 1, config: written, environments, leaving };
        let intent = match &self.cluster {
            Some(cluster) => localised(intent, cluster, &self.layout),
            None => intent,
        };
        let bytes = serde_json::to_vec(&intent).expect("a configuration is plain data");
        self.commit(Transaction::new().put(keys::intent(), bytes)).await?;
        self.containers.lock().choose(&self.layout, &intent.config);
        let mut state = self.state.lock();
        state.set_intent(intent);
        forgive(&mut state);
        state.is_stopping = false;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes over what the leader has stored as the intent.
    pub(crate) fn take_intent(&self, intent: Intent) {
        let Some(cluster) = &self.cluster else { return };
        let intent = localised(intent, cluster, &self.layout);
        self.containers.lock().choose(&self.layout, &intent.config);
        let mut state = self.state.lock();
        if state.intent().as_ref().map(|it| &it.config) != Some(&intent.config) {
            forgive(&mut state);
        }
        state.set_intent(intent);
    }

    /// Takes over what the leader has stored of a site; `None`: it is gone.
    pub(crate) fn take_site(&self, name: &SiteName, facts: Option<SiteFacts>) {
        let mut state = self.state.lock();
        let Some(facts) = facts else {
            state.sites.remove(name);
            return;
        };
        let known = state.sites.entry(name.clone()).or_default();
        let own = std::mem::replace(known, facts);
        // What is this machine's own affair.
        known.prepared = own.prepared;
        known.has_database = own.has_database;
        let means = self.means();
        let versions =
            known.serving.iter_mut().chain(known.candidate.as_mut().map(|it| &mut it.version));
        for version in versions.filter(|version| version.image.is_none()) {
            version.means = means;
        }
        known.author_until_ms = own.author_until_ms;
    }

    /// We decide from now on: what only a leader's agent keeps in mind is looked at again.
    pub(crate) fn took_office(self: &Arc<Self>) {
        self.take_up_changes();
        self.changed.notify_one();
    }

    /// The configuration as it holds here, whoever wrote it.
    pub fn localised(&self, config: Config) -> Config {
        match &self.cluster {
            Some(cluster) => cluster::localised(config, &cluster.membership(), &self.layout),
            None => config,
        }
    }

    /// Waits until this agent should end, because the next one begins differently.
    pub async fn should_end(&self) {
        self.end.notified().await;
    }

    /// Whether the cluster's store answers within `patience`, asked until it does; always where there is one machine.
    pub async fn store_answers(&self, patience: Duration) -> bool {
        if self.cluster.is_none() {
            return true;
        }
        let asking = async {
            while self.store.get(&keys::leader()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(patience, asking).await.is_ok()
    }

    /// The node that leads, as far as it was heard.
    pub fn leader(&self) -> Option<pressroom_model::id::NodeName> {
        self.state.lock().known.leader.clone()
    }

    /// The node that has the database and Redis; `None`: this machine, which is in no cluster, or nobody knows yet.
    pub fn data_node(&self) -> Option<pressroom_model::id::NodeName> {
        self.state.lock().known.data.clone()
    }

    /// Whether the database and Redis are this machine's.
    pub fn has_data(&self) -> bool {
        match &self.cluster {
            None => true,
            Some(cluster) => self.state.lock().known.data.as_ref() == Some(&cluster.node()),
        }
    }

    /// Decides again after a `down` that did not come to its end, and tries at once what has failed so far.
    pub fn resume(&self) {
        let mut state = self.state.lock();
        forgive(&mut state);
        state.is_stopping = false;
        drop(state);
        self.changed.notify_one();
    }

    /// Remembers facts about a site for the next agent.
    pub(crate) async fn remember(&self, site: &SiteName) -> Result<(), StoreError> {
        let facts = self.state.lock().sites.get(site).cloned().unwrap_or_default();
        let bytes = serde_json::to_vec(&facts).expect("facts are plain data");
        self.commit(Transaction::new().put(keys::site(site), bytes)).await
    }

    /// Forgets a site that was removed.
    pub(crate) async fn forget(&self, site: &SiteName) -> Result<(), StoreError> {
        self.state.lock().sites.remove(site);
        self.commit(Transaction::new().delete(keys::site(site))).await
    }

    /// Everything that is done, as it is done.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Adds a sentence to what `status` shows.
    pub fn note(&self, text: impl Into<String>) {
        self.notice(text);
    }

    pub(crate) fn notice(&self, text: impl Into<String>) {
        let text = text.into();
        let now = pressroom_runtime::clock::rfc3339(pressroom_runtime::clock::wall_ms());
        let mut state = self.state.lock();
        state.notices.push_front(format!("{now} {text}"));
        state.notices.truncate(MOST_NOTICES);
    }

    /// One call to the keeper.
    pub(crate) async fn ask_keeper(&self, request: &Request) -> Result<Reply, keeper::CallError> {
        keeper::Client::new(&self.layout.keeper_socket()).call(request).await
    }

    /// Runs until it is told to stop. Children go on.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let group = Group::new("agent", shutdown.clone());
        group.spawn("processes", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_processes(stop)
        });
        group.spawn("probes", {
            let agent = Arc::clone(&self);
            move |stop| agent.probe_processes(stop)
        });
        group.spawn("integrity", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_files(stop)
        });
        group.spawn("containers", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_containers(stop)
        });
        group.spawn("authors", {
            let agent = Arc::clone(&self);
            move |stop| agent.keep_authors(stop)
        });
        group.spawn("bytecode", {
            let agent = Arc::clone(&self);
            move |stop| agent.keep_bytecode(stop)
        });
        group.spawn("histories", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_histories(stop)
        });
        group.spawn("leavers", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_leavers(stop)
        });
        group.spawn("readiness", {
            let agent = Arc::clone(&self);
            move |stop| agent.probe_sites(stop)
        });
        group.spawn("templates", {
            let agent = Arc::clone(&self);
            move |stop| agent.keep_templates(stop)
        });
        group.spawn("sessions", {
            let agent = Arc::clone(&self);
            move |stop| agent.watch_sessions(stop)
        });
        group.spawn("addresses", {
            let agent = Arc::clone(&self);
            move |stop| agent.keep_addresses(stop)
        });
        self.spawn_names(&group);
        let agent = Arc::clone(&self);
        group.spawn("media", move |stop| agent.keep_media(stop));
        if let Some(cluster) = self.cluster.clone() {
            self.spawn_as_node(&group, &cluster);
        }
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            if !self.state.lock().is_stopping {
                self.decide(&group);
            }
        }
        let late = group.finish(Duration::from_secs(10)).await;
        if !late.is_empty() {
            tracing::warn!(?late, "these did not end in time");
        }
    }

    /// Waits for news of the keeper's children; replaces a keeper that is gone or frozen.
    async fn watch_processes(self: Arc<Self>, shutdown: Shutdown) {
        let client = keeper::Client::new(&self.layout.keeper_socket());
        let mut seen = 0;
        let mut failures = 0;
        while !shutdown.is_requested() {
            let request = Request::Watch { seen, wait_ms: 1000 };
            let reply = tokio::select! {
                reply = tokio::time::timeout(Duration::from_secs(3), client.call(&request)) => reply,
                () = shutdown.requested() => break,
            };
            match reply {
                Ok(Ok(Reply::Listed { generation, keeper, processes, listeners, confines })) => {
                    failures = 0;
                    self.keeper_confines.store(confines, Ordering::Relaxed);
                    let is_news = generation != seen;
                    seen = generation;
                    let mut state = self.state.lock();
                    state.keeper = Some(keeper);
                    state.processes = processes;
                    state.listeners = listeners;
                    drop(state);
                    if is_news {
                        self.tell_lacks();
                        self.changed.notify_one();
                    }
                }
                other => {
                    failures += 1;
                    tracing::warn!(?other, failures, "the keeper does not answer");
                    if failures >= 2 && !self.state.lock().is_stopping {
                        self.replace_keeper();
                        failures = 0;
                        seen = 0;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// What a node of a cluster does besides.
    fn spawn_as_node(self: &Arc<Self>, group: &Group, cluster: &Arc<Cluster>) {
        let with = || (Arc::clone(self), Arc::clone(cluster));
        let (agent, it) = with();
        group.spawn("follow", move |stop| agent.follow_store(it, stop));
        let (agent, it) = with();
        group.spawn("hearsay", move |stop| agent.ask_what_is_heard(it, stop));
        let (agent, it) = with();
        group.spawn("stand", move |stop| agent.stand(it, stop));
        let (agent, it) = with();
        group.spawn("presence", move |stop| agent.be_present(it, stop));
        let agent = Arc::clone(self);
        group.spawn("voters", move |stop| agent.keep_voters(stop));
        let (agent, it) = with();
        group.spawn("access", move |stop| agent.keep_access(it, stop));
        let (agent, it) = with();
        group.spawn("certificate", move |stop| agent.keep_certificate(it, stop));
        let (agent, it) = with();
        group.spawn("removal", move |stop| agent.watch_removal(it, stop));
        let (agent, it) = with();
        group.spawn("backups", move |stop| agent.keep_backups(it, stop));
        let (agent, it) = with();
        group.spawn("restored", move |stop| agent.tell_restored(it, stop));
        let agent = Arc::clone(self);
        group.spawn("placement", move |stop| agent.keep_placement(stop));
        let agent = Arc::clone(self);
        group.spawn("commits", move |stop| agent.answer_commits(stop));
        let (agent, it) = with();
        group.spawn("sealing", move |stop| agent.keep_sealing(it, stop));
        let (agent, it) = with();
        group.spawn("secrets", move |stop| agent.share_secrets(it, stop));
    }

    /// Starts a new keeper, which adopts us and all others. One that is frozen is killed first: it holds the lock.
    fn replace_keeper(&self) {
        let old = keeper::running(self.layout.data());
        if let Some(pid) = old.and_then(rustix::process::Pid::from_raw) {
            self.notice(format!("the keeper (process {pid:?}) does not answer: killing it"));
            if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                tracing::error!(%error, "cannot kill the keeper");
            }
        }
        let arguments = [
            "keep".to_owned(),
            "--data".to_owned(),
            self.layout.data().display().to_string(),
            "--config".to_owned(),
            self.config_file.display().to_string(),
        ];
        let log = self.layout.output("keeper");
        let started =
            crate::host::own_program().map_err(|error| error.to_string()).and_then(|program| {
                keeper::spawn_detached(&program, &arguments, &log)
                    .map_err(|error| error.to_string())
            });
        match started {
            Ok(pid) => {
                self.notice(format!("started a new keeper (process {pid}); it adopts what runs"));
            }
            Err(error) => self.notice(format!("cannot start a new keeper: {error}")),
        }
    }

    /// The configuration of one site.
    pub fn site(&self, name: &SiteName) -> Option<Site> {
        self.state.lock().config.as_ref()?.sites.iter().find(|site| site.name == *name).cloned()
    }
}
