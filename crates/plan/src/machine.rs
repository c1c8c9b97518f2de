//! One machine: from what operators want and what is observed to the next steps, each with its reason.
//!
//! [`steps`] returns everything whose time has come; what must wait for something else comes out of a later call.
//! It is called after every change, so no step may assume that another of the same answer has been done, and every
//! step may come out twice.

use std::collections::BTreeMap;

use pressroom_model::id::{InstanceId, ReleaseId, SiteName};
use pressroom_model::process::ListenerSpec;
use pressroom_model::rollout::Stage;
use pressroom_model::verdict::Health;

use crate::rollout::{self, SiteWanted};
use crate::supervise::{self, Decision, Seen, Wanted};

/// What operators want of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Whether this machine decides for all.
    pub part: Part,
    /// Where the database and Redis are.
    pub data: Data,
    /// MariaDB, the two Redis servers, and Docker where we run it, in start order.
    pub engines: Vec<Wanted>,
    /// The edge.
    pub edge: Wanted,
    /// Listening sockets.
    pub listeners: Vec<ListenerSpec>,
    /// The sites.
    pub sites: Vec<SiteWanted>,
}

/// A machine's part among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// It decides for all; one that is alone does.
    #[default]
    Leads,
    /// It does what was decided elsewhere.
    Follows,
}

/// Where the database and Redis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Data {
    /// Here.
    #[default]
    Here,
    /// On another node; its sockets here lead there.
    Elsewhere,
}

/// What is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// All processes known to the keeper, the agent left out.
    pub processes: BTreeMap<String, Seen>,
    /// Its listening sockets.
    pub listeners: Vec<ListenerSpec>,
    /// Whether MariaDB's data directory is initialised.
    pub has_database: bool,
    /// The sites.
    pub sites: BTreeMap<SiteName, SiteSeen>,
    /// Where the database and Redis are on another node: whether they answer.
    pub data_answers: bool,
    /// The edge's view: the digest that should be published, the one that is, and whether the edge serves it.
    pub view: View,
}

/// The edge's view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Digest of what should be published.
    pub wanted: String,
    /// Digest of what is.
    pub published: Option<String>,
    /// Whether the edge says that it serves the published one.
    pub is_served: bool,
    /// The published one may be older than what other nodes serve: this machine has just begun, and has not heard them yet or
    /// lacks their code.
    pub may_be_old: bool,
}

/// A site as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SiteSeen {
    /// User, folders and secrets are there.
    pub is_prepared: bool,
    /// Its release is built and materialised.
    pub has_release: bool,
    /// Its database, its database user and their rights are known to be as its secrets say.
    pub has_database: bool,
    /// Its Redis user is known to both servers.
    pub has_redis: bool,
    /// WordPress is installed in its database.
    pub is_installed: bool,
    /// It is an environment: its WordPress is a copy.
    pub is_copy: bool,
    /// Its tables may be older than the WordPress that serves.
    pub wants_upgrade: bool,
    /// It is to become a network, or its network's blogs are to follow another address.
    pub wants_network: bool,
    /// Releases that its versions are made of and that are not here: other nodes have them.
    pub lacks_releases: Vec<ReleaseId>,
    /// The PHP version whose image is not known to be there, if it is to run in containers.
    pub lacks_image: Option<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Initialise MariaDB's data directory.
    InitialiseDatabase,
    /// Hold a listening socket.
    Listen(String),
    /// Close a listening socket.
    Unlisten(String),
    /// Make a site's user, folders, secrets, certificate.
    PrepareSite(SiteName),
    /// Build a site's release from its source.
    BuildRelease(SiteName),
    /// Have the releases of a site that are not here, from other nodes.
    FetchReleases(SiteName),
    /// Build the image that containers of this PHP version are made of.
    BuildImage(String),
    /// Make a site's database and user.
    CreateDatabase(SiteName),
    /// Tell both Redis servers who may do what.
    GrantRedis,
    /// Install WordPress into a site's database, make it a network, or give its blogs another address.
    InstallWordPress(SiteName),
    /// Make an environment's database and media: a copy of another site's.
    CopySite(SiteName),
    /// Bring a site's tables to what the WordPress wants that serves; they are dumped before.
    UpgradeDatabase(SiteName),
    /// Start an engine or the edge, its files rendered and checked before.
    Start(String),
    /// Start an instance of a version, named by its fingerprint.
    StartInstance(InstanceId, String),
    /// Make the wanted version of a site its candidate, at this stage; a site that has served nothing yet serves it at once.
    BeginRollout(SiteName, Stage),
    /// Ask the candidate's first instance for pages, and judge them.
    CheckCandidate(SiteName),
    /// All instances of the candidate answer: send the requests to them.
    Switch(SiteName),
    /// Every edge has switched: the candidate serves, the former version is parked.
    FinishRollout(SiteName),
    /// Give the candidate up; the serving version was never touched.
    AbandonRollout(SiteName),
    /// Ask a process to stop.
    Stop(String),
    /// Kill a process.
    Kill(String),
    /// Forget a process that ended and is not wanted.
    Forget(String),
    /// Publish the edge's view.
    PublishView,
}

impl Action {
    /// The site that it is about.
    pub fn site(&self) -> Option<SiteName> {
        match self {
            Self::PrepareSite(name)
            | Self::BuildRelease(name)
            | Self::FetchReleases(name)
            | Self::CreateDatabase(name)
            | Self::InstallWordPress(name)
            | Self::CopySite(name)
            | Self::UpgradeDatabase(name)
            | Self::BeginRollout(name, _)
            | Self::CheckCandidate(name)
            | Self::Switch(name)
            | Self::FinishRollout(name)
            | Self::AbandonRollout(name) => Some(name.clone()),
            Self::StartInstance(id, _) => Some(id.site()),
            Self::InitialiseDatabase
            | Self::Listen(_)
            | Self::Unlisten(_)
            | Self::BuildImage(_)
            | Self::GrantRedis
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Kill(_)
            | Self::Forget(_)
            | Self::PublishView => None,
        }
    }
}

/// An action and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Why.
    pub because: String,
}

/// Name of MariaDB at the keeper.
pub const MARIADB: &str = "mariadb";
/// Name of the object cache's Redis at the keeper.
pub const REDIS_CACHE: &str = "redis-cache";
/// Name of the sessions' Redis at the keeper.
pub const REDIS_SESSIONS: &str = "redis-sessions";
/// Name of the process that carries the database's and Redis's bytes between nodes, at the keeper.
pub const SQL: &str = "sql";
/// Name of the process that answers questions for names, at the keeper.
pub const DNS: &str = "dns";
/// Name of etcd at the keeper.
pub const ETCD: &str = "etcd";
/// Name of what moves floating addresses between nodes, at the keeper.
pub const KEEPALIVED: &str = "keepalived";
/// Name of our own Docker daemon at the keeper.
pub const DOCKER: &str = "docker";
/// Name of the edge at the keeper.
pub const EDGE: &str = "edge";

/// The name of an instance's process at the keeper.
pub fn instance_process(id: &InstanceId) -> String {
    format!("php-{id}")
}

/// The instance behind a process name.
pub fn instance_of(process: &str) -> Option<InstanceId> {
    process.strip_prefix("php-")?.parse().ok()
}

/// Everything whose time has come.
pub fn steps(intent: &Intent, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    listeners(intent, observed, &mut steps);
    engines(intent, observed, &mut steps);
    for site in &intent.sites {
        site_steps(site, intent, observed, &mut steps);
    }
    edge(intent, observed, &mut steps);
    leftovers(intent, observed, &mut steps);
    steps
}

fn push(steps: &mut Vec<Step>, action: Action, because: impl Into<String>) {
    steps.push(Step { action, because: because.into() });
}

fn listeners(intent: &Intent, observed: &Observed, steps: &mut Vec<Step>) {
    for wanted in &intent.listeners {
        match observed.listeners.iter().find(|held| held.name == wanted.name) {
            None => push(steps, Action::Listen(wanted.name.clone()), "nobody listens there yet"),
            Some(held) if held != wanted => {
                push(steps, Action::Listen(wanted.name.clone()), "its address changed");
            }
            Some(_) => {}
        }
    }
    // The old sockets are closed once the edge no longer has them.
    for held in &observed.listeners {
        let is_wanted = intent.listeners.iter().any(|wanted| wanted.name == held.name);
        if !is_wanted && edge_is_current(intent, observed) {
            push(steps, Action::Unlisten(held.name.clone()), "nothing is served there any more");
        }
    }
}

fn edge_is_current(intent: &Intent, observed: &Observed) -> bool {
    observed.processes.get(EDGE).is_some_and(|seen| {
        seen.pid.is_some() && !seen.is_stopping && seen.fingerprint == intent.edge.fingerprint
    })
}

fn engines(intent: &Intent, observed: &Observed, steps: &mut Vec<Step>) {
    for wanted in &intent.engines {
        if wanted.name == MARIADB && !observed.has_database {
            push(steps, Action::InitialiseDatabase, "there is no data directory yet");
            continue;
        }
        let is_own = |listener: &ListenerSpec| is_of([&wanted.name], listener);
        if [SQL, DNS].contains(&wanted.name.as_str()) && !has_sockets(intent, observed, is_own) {
            continue;
        }
        // An address that came to a node without an edge would be lost, and going down it leaves first.
        let is_there = observed.processes.get(&wanted.name).is_some_and(|seen| seen.pid.is_some());
        if wanted.name == KEEPALIVED && !is_there && !serves(observed, EDGE) {
            continue;
        }
        process(wanted, observed, Action::Start(wanted.name.clone()), steps);
    }
}

/// Whether a listener is of one of these processes; the edge's have names of their own.
fn is_of<const N: usize>(processes: [&str; N], listener: &ListenerSpec) -> bool {
    let is_its = |process: &str| {
        listener.name.strip_prefix(process).is_some_and(|rest| rest.starts_with('-'))
    };
    processes.into_iter().any(is_its)
}

fn has_sockets(
    intent: &Intent,
    observed: &Observed,
    are_meant: impl Fn(&ListenerSpec) -> bool,
) -> bool {
    intent.listeners.iter().filter(|it| are_meant(it)).all(|it| observed.listeners.contains(it))
}

fn process(wanted: &Wanted, observed: &Observed, start: Action, steps: &mut Vec<Step>) {
    match supervise::decide(wanted, observed.processes.get(&wanted.name), observed.now_ms) {
        Decision::Leave | Decision::Wait(_) => {}
        Decision::Start(because) => push(steps, start, because),
        Decision::Stop(because) => push(steps, Action::Stop(wanted.name.clone()), because),
        Decision::Kill(because) => push(steps, Action::Kill(wanted.name.clone()), because),
    }
}

fn serves(observed: &Observed, name: &str) -> bool {
    observed.processes.get(name).is_some_and(|seen| seen.pid.is_some() && seen.health.is_serving())
}

/// Whether the database answers, wherever it is.
fn database_serves(intent: &Intent, observed: &Observed) -> bool {
    match intent.data {
        Data::Here => serves(observed, MARIADB),
        Data::Elsewhere => observed.data_answers,
    }
}

/// The same of both Redis servers.
fn redis_serves(intent: &Intent, observed: &Observed) -> bool {
    match intent.data {
        Data::Here => serves(observed, REDIS_CACHE) && serves(observed, REDIS_SESSIONS),
        Data::Elsewhere => observed.data_answers,
    }
}

fn site_steps(site: &SiteWanted, intent: &Intent, observed: &Observed, steps: &mut Vec<Step>) {
    let name = &site.name;
    let seen = observed.sites.get(name).cloned().unwrap_or_default();
    let go_on = |steps: &mut Vec<Step>| match intent.part {
        Part::Leads => rollout::steps(site, observed, steps),
        Part::Follows => rollout::follow(site, observed, steps),
    };
    if !seen.is_prepared {
        push(steps, Action::PrepareSite(name.clone()), "its user and folders are not there yet");
        // What serves goes on meanwhile: a preparation that fails must not leave the dead lying.
        if seen.is_installed && site.serving.is_some() {
            go_on(steps);
        }
        return;
    }
    if !seen.lacks_releases.is_empty() {
        push(steps, Action::FetchReleases(name.clone()), "other nodes have its code");
    } else if !seen.has_release && intent.part == Part::Leads {
        push(steps, Action::BuildRelease(name.clone()), "its code is not there yet");
    }
    let is_ours = intent.engines.iter().any(|engine| engine.name == DOCKER);
    if let Some(version) = &seen.lacks_image
        && (!is_ours || serves(observed, DOCKER))
    {
        let action = Action::BuildImage(version.clone());
        // One for all sites.
        if steps.iter().all(|step| step.action != action) {
            push(steps, action, format!("`{name}` is to run in containers of it"));
        }
    }
    if intent.part == Part::Follows {
        if intent.data == Data::Here && !seen.has_redis && redis_serves(intent, observed) {
            grant(name, steps);
        }
        if seen.is_installed {
            go_on(steps);
        }
        return;
    }
    if !seen.has_database && database_serves(intent, observed) {
        let because = match seen.is_installed {
            true => "its user and rights are set again, in case its secrets were lost",
            false => "it has no database yet",
        };
        push(steps, Action::CreateDatabase(name.clone()), because);
    }
    // Where Redis is elsewhere, the node that has it tells it.
    let has_redis = seen.has_redis || intent.data == Data::Elsewhere;
    if !has_redis && redis_serves(intent, observed) {
        grant(name, steps);
    }
    // What is installed had all of it before this agent began: its instances wait for nobody.
    if !(seen.is_installed || seen.has_release && has_redis && seen.has_database) {
        return;
    }
    let has_answer = database_serves(intent, observed);
    if !seen.is_installed && seen.is_copy && seen.has_database && has_answer {
        push(steps, Action::CopySite(name.clone()), "it is a copy of another site");
    } else if !seen.is_installed && seen.has_database && has_answer {
        push(steps, Action::InstallWordPress(name.clone()), "its database is empty");
    } else if seen.wants_network && has_answer {
        push(
            steps,
            Action::InstallWordPress(name.clone()),
            "its network is new, or its address is",
        );
    }
    if seen.is_installed && seen.wants_upgrade && has_answer {
        push(steps, Action::UpgradeDatabase(name.clone()), "another WordPress serves");
    }
    if seen.is_installed && seen.wants_network {
        // A new version would find no blogs yet; the one that serves goes on as it is.
        let unmoved = SiteWanted { wanted: None, ..site.clone() };
        rollout::steps(&unmoved, observed, steps);
        return;
    }
    rollout::steps(site, observed, steps);
}

fn grant(name: &SiteName, steps: &mut Vec<Step>) {
    push(steps, Action::GrantRedis, format!("Redis does not know yet what `{name}` may do"));
}

/// The instances of a site that the keeper knows, by number.
pub(crate) fn instances_of<'a>(
    name: &'a SiteName,
    observed: &'a Observed,
) -> impl Iterator<Item = (InstanceId, &'a Seen)> {
    observed.processes.iter().filter_map(move |(process, seen)| {
        Some((instance_of(process).filter(|id| id.site() == *name)?, seen))
    })
}

fn edge(intent: &Intent, observed: &Observed, steps: &mut Vec<Step>) {
    let view = &observed.view;
    if view.published.as_ref() != Some(&view.wanted) {
        push(steps, Action::PublishView, "sites or instances changed");
    }
    let runs = observed.processes.get(EDGE).is_some_and(|seen| seen.pid.is_some());
    if view.may_be_old && !runs {
        // Visitors wait, or are led elsewhere, rather than see what was.
        return;
    }
    let has_sockets = has_sockets(intent, observed, |listener| !is_of([SQL, DNS], listener));
    if has_sockets && view.published.is_some() {
        process(&intent.edge, observed, Action::Start(EDGE.into()), steps);
    }
}

/// Processes that nobody wants: of sites that are gone.
fn leftovers(intent: &Intent, observed: &Observed, steps: &mut Vec<Step>) {
    for (name, seen) in &observed.processes {
        let is_known = name == EDGE
            || intent.engines.iter().any(|wanted| wanted.name == *name)
            || instance_of(name)
                .is_some_and(|id| intent.sites.iter().any(|site| site.name == id.site()));
        if is_known || seen.is_stopping {
            continue;
        }
        match seen.pid {
            Some(_) => push(steps, Action::Stop(name.clone()), "its site was removed"),
            None => push(steps, Action::Forget(name.clone()), "its site was removed"),
        }
    }
}

/// What is thought of a process, with crash loops named.
pub fn health(seen: &Seen) -> Health {
    match seen.pid {
        None if seen.quick_exits >= supervise::LOOP_EXITS => Health::CrashLoop,
        None => Health::Stopped,
        Some(_) if seen.quick_exits >= supervise::LOOP_EXITS && !seen.health.is_serving() => {
            Health::CrashLoop
        }
        Some(_) => seen.health,
    }
}

#[cfg(test)]
mod tests;
