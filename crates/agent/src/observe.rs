//! From what the agent knows to the values that `plan` decides on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::cluster::Report;
use pressroom_model::cluster::Role;
use pressroom_model::config::{Config, Runtime, Site};
use pressroom_model::id::{NodeName, ReleaseId, SiteName};
use pressroom_model::process::{ListenerSpec, ProcessState};
use pressroom_model::verdict::Health;
use pressroom_plan::affirm;
use pressroom_plan::machine::{
    DNS, DOCKER, Data, EDGE, ETCD, Intent, KEEPALIVED, MARIADB, Observed, Part, SQL, SiteSeen,
    View, instance_of,
};
use pressroom_plan::recycle;
use pressroom_plan::rollout::{self, Other, SiteWanted};
use pressroom_plan::supervise::{Seen, Wanted};
use pressroom_render::redis::{Purpose, Rights};
use pressroom_runtime::clock;

use crate::agent::{Agent, State};
use crate::cluster::Known;
use crate::cluster::placement::wanted_on;
use crate::engine::dns::Dns;
use crate::engine::docker::Daemon;
use crate::engine::edge::{self, Edge};
use crate::engine::etcd::Etcd;
use crate::engine::keepalived::Keepalived;
use crate::engine::mariadb::MariaDb;
use crate::engine::redis::Redis;
use crate::engine::sql::Forwarder;
use crate::engine::{Error, FINGERPRINT, owner};
use crate::facts::SiteFacts;
use crate::secrets;
use crate::site::environment::guard;
use crate::view::{self, Served};
use pressroom_model::snapshot::{self, Snapshot};

/// So long a node that begins is silent towards visitors at most, while it does not know what the others serve.
const SETTLED: Duration = Duration::from_secs(15);

/// The engines as the configuration wants them.
pub struct Engines {
    /// MariaDB.
    pub mariadb: MariaDb,
    /// The object cache, then the sessions.
    pub redis: [Redis; 2],
    /// Docker's daemon, if it is ours to run.
    pub docker: Option<Daemon>,
    /// What carries the database's and Redis's bytes between nodes, in a cluster.
    pub sql: Option<Forwarder>,
    /// What answers questions for names, where that is wanted.
    pub dns: Option<Dns>,
    /// What moves floating addresses, if this node has a part in some.
    pub keepalived: Option<Keepalived>,
    /// etcd, if this node votes.
    pub etcd: Option<Etcd>,
    /// The edge.
    pub edge: Edge,
    /// All listening sockets.
    pub listeners: Vec<ListenerSpec>,
    /// Which affirmation socket is whose.
    pub affirm: affirm::Assignment,
}

impl Engines {
    /// Whether they are still those that a node with this knowledge of the cluster should have.
    fn is_for(&self, known: &Known, own: Option<&NodeName>) -> bool {
        let Some(own) = own else { return true };
        let has_data = known.data.as_ref() == Some(own);
        self.sql.as_ref().is_none_or(|sql| sql.has_data() == has_data)
            && match (&self.etcd, known.voters.get(own)) {
                (Some(etcd), Some(member)) => etcd.is_member(*member),
                (etcd, member) => etcd.is_none() && member.is_none(),
            }
    }
}

/// Everything that one decision is made of.
pub(crate) struct Picture {
    pub intent: Intent,
    pub observed: Observed,
    pub view: Snapshot,
}

impl Agent {
    /// The engines as `config` wants them. Makes users and secrets that are missing.
    pub fn engines(&self, config: &Config) -> Result<Arc<Engines>, Error> {
        let held_back = {
            let state = self.state.lock();
            if let Some((of, held_back, engines)) = &state.engines
                && of == config
                && *held_back == state.held_back
                && engines.is_for(&state.known, self.own_name().as_ref())
                && engines.keepalived.as_ref().map(Keepalived::facts)
                    == self.part_in_addresses(config, &state).as_ref()
            {
                return Ok(Arc::clone(engines));
            }
            state.held_back.clone()
        };
        let engines = Arc::new(self.compose_engines(config, &held_back)?);
        let mut state = self.state.lock();
        // Before the keeper was heard, it is only a guess which affirmation socket is whose.
        if state.keeper.is_some() {
            state.engines = Some((config.clone(), held_back, Arc::clone(&engines)));
        }
        drop(state);
        Ok(engines)
    }

    fn compose_engines(
        &self,
        config: &Config,
        held_back: &BTreeSet<SiteName>,
    ) -> Result<Engines, Error> {
        let lacks = |name: &str| match self.has_secret(name) {
            true => Ok(()),
            // Ones that were made here would lock us out of everything that the others have.
            false => Err(std::io::Error::other(format!("the secrets `{name}` have not come yet"))),
        };
        lacks("engines.json")?;
        for site in &config.sites {
            lacks(&format!("site-{}.json", site.name))?;
        }
        let secrets = secrets::engines(&self.layout).map_err(std::io::Error::other)?;
        let user = self.users.database()?;
        let mariadb = MariaDb::new(&self.layout, config, self.memory, user, secrets.database);
        let mut passwords = Vec::new();
        let mut owners = BTreeMap::new();
        for site in &config.sites {
            let secret = secrets::site(&self.layout, &site.name).map_err(std::io::Error::other)?;
            let rights = match held_back.contains(&site.name) {
                true => Rights::NothingNew,
                false => Rights::All,
            };
            passwords.push((site.name.clone(), secret.redis, rights));
            if let Some(user) = self.users.site(&site.name)? {
                owners.insert(site.name.clone(), (user.uid, user.gid));
            }
        }
        let redis_user = self.users.redis()?;
        let redis = [Purpose::Cache, Purpose::Sessions].map(|purpose| {
            Redis::new(
                &self.layout,
                purpose,
                config,
                self.memory,
                redis_user.clone(),
                &secrets.redis,
                &passwords,
            )
        });
        let names: Vec<SiteName> = config.sites.iter().map(|site| site.name.clone()).collect();
        let known = edge::known(&self.layout, &names, &self.state.lock().listeners);
        let affirm = affirm::assign(&names, &known);
        let mut listeners = edge::listeners(&self.layout, config, self.cores, &affirm, &owners);
        listeners.extend(self.cluster.as_ref().map(|cluster| edge::mesh(&cluster.membership())));
        let edge =
            Edge::new(&self.layout, &self.config_file, self.users.edge()?, listeners.clone());
        let is_own = self.containers.lock().is_own;
        let docker = is_own.then(|| Daemon::new(&self.layout));
        let sql = match &self.cluster {
            None => None,
            Some(cluster) => {
                let user = self.users.forwarder()?;
                let (own, has_data) = (cluster.membership(), self.has_data());
                Some(Forwarder::new(&self.layout, &self.config_file, user, own, has_data))
            }
        };
        listeners.extend(sql.iter().flat_map(Forwarder::listeners));
        let dns = match config.dns.listen.as_slice() {
            [] => None,
            wanted => {
                let at = crate::names::addresses(wanted, self.own_address());
                Some(Dns::new(&self.layout, &self.config_file, self.users.namer()?, at))
            }
        };
        listeners.extend(dns.iter().flat_map(Dns::listeners));
        let etcd = match self.cluster.as_ref().map(|cluster| cluster.membership()) {
            Some(own) if own.is_voter() => Some(Etcd::of(&self.layout, &self.users, &own)?),
            _ => None,
        };
        let part = self.part_in_addresses(config, &self.state.lock());
        let keepalived = part.map(|facts| Keepalived::new(&self.layout, facts));
        Ok(Engines { mariadb, redis, docker, sql, dns, keepalived, etcd, edge, listeners, affirm })
    }

    /// Looks at everything once.
    pub(crate) fn picture(&self, config: &Config, engines: &Engines) -> Result<Picture, Error> {
        let now_ms = clock::wall_ms();
        let docker = engines.docker.as_ref().filter(|_| self.uses_docker());
        let mut state = self.state.lock();
        count_exits(&mut state);
        let mut sites = Vec::new();
        let mut sites_seen = BTreeMap::new();
        let knows_users = engines.redis.iter().all(Redis::knows_users);
        for site in &config.sites {
            let facts = state.sites.entry(site.name.clone()).or_default().clone();
            let prepared =
                facts.prepared.as_ref().filter(|prepared| prepared.is_for(config, site, now_ms));
            let has_release = facts.release.as_ref().is_some_and(|release| {
                crate::site::is_current(release, site)
                    && self.layout.site_root(&site.name, &release.id).is_dir()
            });
            let lacks_releases = self.lacks_releases(&site.name, &facts);
            let lacking = facts.versions().filter(|it| lacks_releases.contains(&it.release.id));
            let lacking = lacking.map(|version| version.fingerprint.clone()).collect();
            sites.push(SiteWanted {
                lacking,
                others: others(&state, site, &facts, self.own_name().as_ref()),
                name: site.name.clone(),
                serving: facts.serving.as_ref().map(|version| version.fingerprint.clone()),
                wanted: self
                    .wanted_version(config, site, &facts)?
                    .map(|version| version.fingerprint),
                candidate: facts.candidate.as_ref().map(|candidate| rollout::Candidate {
                    fingerprint: candidate.version.fingerprint.clone(),
                    stage: candidate.stage,
                    since_ms: candidate.since_ms,
                }),
                parked: facts.parked.as_ref().map(|parked| rollout::Parked {
                    fingerprint: parked.version.fingerprint.clone(),
                    until_ms: parked.until_ms,
                }),
                refused: facts.refused.as_ref().map(|refused| refused.fingerprint.clone()),
                author: match now_ms < facts.author_until_ms && site.file_mods {
                    true => self.author_version(&facts)?.map(|version| version.fingerprint),
                    false => None,
                }
                // PHP that an agent before this one has begun with goes on.
                .or_else(|| facts.change.clone().filter(|change| runs(&state, change))),
                instances: self.instances_here(&state, site),
            });
            let seen = SiteSeen {
                is_prepared: prepared.is_some(),
                has_release,
                has_database: facts.has_database,
                has_redis: knows_users,
                is_installed: facts.is_installed,
                is_copy: site.environment.is_some(),
                // While a rollout is under way, nobody knows yet which WordPress it will be.
                wants_upgrade: facts.candidate.is_none()
                    && facts.serving.as_ref().is_some_and(|serving| {
                        facts.schema_of.as_ref() != Some(&serving.release.wordpress)
                    }),
                wants_network: facts.network != crate::site::network_at(config, site),
                lacks_releases,
                lacks_image: (site.php.runtime == Runtime::Docker && self.image_of(site).is_none())
                    .then(|| site.php.version.clone()),
            };
            sites_seen.insert(site.name.clone(), seen);
        }
        let mut observed = Observed {
            now_ms,
            processes: seen(&state),
            listeners: state.listeners.clone(),
            has_database: engines.mariadb.is_initialised(),
            sites: sites_seen,
            data_answers: data_answers(&state),
            view: View::default(),
        };
        let (view, shown) = self.wanted_view(config, engines, &state, &sites, &observed)?;
        observed.view = View {
            wanted: view::digest(&view),
            published: state.published.as_ref().map(|(digest, _)| digest.clone()),
            is_served: state.is_view_served(),
            may_be_old: false,
        };
        let is_current = state.known.is_heard
            && observed.sites.values().all(|site| site.lacks_releases.is_empty())
            && observed.view.published.as_ref() == Some(&observed.view.wanted);
        observed.view.may_be_old =
            self.cluster.is_some() && !is_current && clock::now() < self.began + SETTLED;
        if observed.view.published.as_ref() == Some(&observed.view.wanted) {
            state.shown = shown;
        }
        let has_data = self.cluster.is_none() || state.known.data == self.own_name();
        let intent = Intent {
            part: if self.leads() { Part::Leads } else { Part::Follows },
            data: if has_data { Data::Here } else { Data::Elsewhere },
            engines: wanted_engines(engines, docker, has_data),
            edge: Wanted { name: EDGE.into(), fingerprint: engines.edge.fingerprint() },
            listeners: engines.listeners.clone(),
            sites,
        };
        Ok(Picture { intent, observed, view })
    }

    /// The view that the edge should have: sites whose WordPress is installed, so that nobody ever meets the installer.
    fn wanted_view(
        &self,
        config: &Config,
        engines: &Engines,
        state: &State,
        sites: &[SiteWanted],
        observed: &Observed,
    ) -> Result<(Snapshot, Shown), Error> {
        let mut shown = Shown::new();
        let own = self.own_name();
        let before = view::published(&self.layout);
        let mut served = Vec::new();
        for (site, wanted) in config.sites.iter().zip(sites) {
            let Some(facts) = state.sites.get(&site.name).filter(|facts| facts.is_installed) else {
                continue;
            };
            let Some(prepared) = &facts.prepared else { continue };
            let Some((fingerprint, mut pool)) = rollout::pool(wanted, observed) else { continue };
            let candidate = facts.candidate.as_ref().map(|candidate| &candidate.version);
            let mut versions = facts.serving.iter().chain(candidate);
            let Some(version) = versions.find(|v| v.fingerprint == fingerprint) else { continue };
            if pool.is_empty() && wanted.instances > 0 {
                // All of them are being started again: the edge waits for their sockets.
                let old = before
                    .iter()
                    .flat_map(|view| &view.sites)
                    .find(|old| old.name == site.name && old.release == version.release.id);
                pool = old
                    .map(|old| old.pool.iter().map(|backend| backend.id.clone()).collect())
                    .unwrap_or_default();
            }
            pool.sort();
            if !self.layout.site_root(&site.name, &version.release.id).is_dir() {
                // Its files are on their way from another node: it stays as it was until then.
                continue;
            }
            let Some(&affirm) = engines.affirm.of.get(&site.name) else { continue };
            let remote = remote(state, &site.name, &fingerprint, own.as_ref());
            shown.insert(site.name.clone(), (fingerprint, version.release.id.clone()));
            served.push(Served {
                site,
                remote,
                affirm,
                version,
                former: facts.former(&version.release.id, observed.now_ms),
                pool,
                uid: prepared.user.as_ref().map_or_else(|| self.users.own(), |user| user.uid),
                certificate: prepared.certificate.clone(),
                author_node: state.known.leader.clone().filter(|it| Some(it) != own.as_ref()),
                guard: site
                    .environment
                    .as_ref()
                    .map(|environment| guard(environment, &prepared.secrets.cron)),
            });
        }
        let mut view = view::compose(&self.layout, config, &served);
        view.cluster = self.cluster_for_edge(state, &config.edge.health)?;
        view.media = self.cluster.as_ref().map(|_| self.layout.media_socket());
        keep_known(&mut view, config, before);
        Ok((view, shown))
    }

    /// The cluster as the edge needs to know it, with an identity that it can read.
    fn cluster_for_edge(
        &self,
        state: &State,
        health: &snapshot::HealthRules,
    ) -> Result<Option<snapshot::Cluster>, Error> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let reader = owner(self.users.edge()?.as_ref()).map(|(_, gid)| (0, gid));
        let folder = self.layout.engine("edge-identity");
        let paths = crate::cluster::lend_identity(&self.layout, &folder, reader)?;
        let peers = state.known.nodes.iter().map(|(name, node)| snapshot::Peer {
            node: name.clone(),
            zone: node.zone.clone(),
            address: node.address,
            port: node.port,
            keys: node.keys.iter().cloned().collect(),
        });
        Ok(Some(snapshot::Cluster {
            node: cluster.node(),
            identity: [paths.chain, paths.key, paths.authority],
            peers: peers.collect(),
            health: health.clone(),
            is_drained: state.known.rests(&cluster.node(), Role::Edge),
            is_removed: cluster.removal().is_some(),
        }))
    }

    /// Our name in the cluster, where we are in one.
    pub(crate) fn own_name(&self) -> Option<NodeName> {
        self.cluster.as_ref().map(|cluster| cluster.node())
    }

    /// How many instances of a site are to run here.
    fn instances_here(&self, state: &State, site: &Site) -> u16 {
        let min = site.php.instances.min;
        if self.removal().is_some() {
            return 0;
        }
        self.own_name().map_or(min, |own| wanted_on(&state.known, &own, &site.name, min))
    }

    /// Releases of a site's versions that are not here, where other nodes may have them.
    fn lacks_releases(&self, name: &SiteName, facts: &SiteFacts) -> Vec<ReleaseId> {
        if self.cluster.is_none() {
            return Vec::new();
        }
        let mut ids = facts.used();
        ids.sort();
        ids.dedup();
        ids.retain(|id| !self.layout.site_root(name, id).is_dir());
        ids
    }
}

/// Fingerprint and release of the version that a view has of each site.
pub(crate) type Shown = BTreeMap<SiteName, (String, ReleaseId)>;

/// Other nodes on which instances of a version answer.
fn remote(
    state: &State,
    site: &SiteName,
    fingerprint: &str,
    own: Option<&NodeName>,
) -> Vec<NodeName> {
    let reports = state.known.reports.iter().filter(|(name, _)| own != Some(name));
    let runs = |(_, (report, _)): &(&NodeName, &(Report, u64))| {
        let known = report.sites.get(site);
        known.is_some_and(|site| site.instances.get(fingerprint).is_some_and(|count| *count > 0))
    };
    reports.filter(runs).map(|(name, _)| name.clone()).collect()
}

/// Whether the database and Redis answer on the node that has them.
fn data_answers(state: &State) -> bool {
    let data = state.known.data.as_ref();
    let report = data.and_then(|node| state.known.reports.get(node));
    report.is_some_and(|(report, _)| report.data == Some(true))
}

/// How a site's candidate stands on the other nodes that serve the site.
fn others(state: &State, site: &Site, facts: &SiteFacts, own: Option<&NodeName>) -> Vec<Other> {
    let Some(candidate) = &facts.candidate else { return Vec::new() };
    let fingerprint = &candidate.version.fingerprint;
    let others = state.known.reports.iter().filter(|(name, _)| own != Some(name));
    others
        .filter_map(|(name, (report, _))| {
            let report = report.sites.get(&site.name).filter(|report| report.serves.is_some())?;
            let wanted = wanted_on(&state.known, name, &site.name, site.php.instances.min);
            let filled = report.instances.get(fingerprint).copied().unwrap_or_default();
            Some(Other {
                is_filled: filled >= wanted,
                has_switched: report.serves.as_ref() == Some(fingerprint),
            })
        })
        .collect()
}

/// A site that was served stays in the view as it was until we know better: an agent that has just begun, or that
/// lost its store, must not take sites from the edge.
fn keep_known(view: &mut Snapshot, config: &Config, before: Option<Snapshot>) {
    for old in before.into_iter().flat_map(|view| view.sites) {
        let is_wanted = config.sites.iter().any(|site| site.name == old.name);
        if is_wanted && view.sites.iter().all(|site| site.name != old.name) {
            view.sites.push(old);
        }
    }
    let place = |name: &SiteName| config.sites.iter().position(|site| site.name == *name);
    view.sites.sort_by_key(|site| place(&site.name));
}

fn wanted_engines(engines: &Engines, docker: Option<&Daemon>, has_data: bool) -> Vec<Wanted> {
    let mariadb = Wanted { name: MARIADB.into(), fingerprint: engines.mariadb.fingerprint() };
    let redis = engines
        .redis
        .iter()
        .map(|redis| Wanted { name: redis.name().into(), fingerprint: redis.fingerprint() });
    let docker =
        docker.map(|docker| Wanted { name: DOCKER.into(), fingerprint: docker.fingerprint() });
    let data = std::iter::once(mariadb).chain(redis).filter(|_| has_data);
    let etcd = engines.etcd.as_ref();
    let etcd = etcd.map(|etcd| Wanted { name: ETCD.into(), fingerprint: etcd.fingerprint() });
    let sql = engines.sql.as_ref();
    let sql = sql.map(|sql| Wanted { name: SQL.into(), fingerprint: sql.fingerprint() });
    let dns = engines.dns.as_ref();
    let dns = dns.map(|dns| Wanted { name: DNS.into(), fingerprint: dns.fingerprint() });
    let keepalived = engines.keepalived.as_ref();
    let keepalived =
        keepalived.map(|it| Wanted { name: KEEPALIVED.into(), fingerprint: it.fingerprint() });
    etcd.into_iter().chain(data).chain(sql).chain(docker).chain(dns).chain(keepalived).collect()
}

/// Whether a process of this fingerprint runs.
fn runs(state: &State, fingerprint: &str) -> bool {
    state.processes.iter().any(|process| {
        process.pid.is_some()
            && process.spec.env.get(FINGERPRINT).is_some_and(|of| of == fingerprint)
    })
}

/// Counts exits that were not counted yet.
fn count_exits(state: &mut State) {
    for process in &state.processes {
        let Some(exit) = &process.exit else { continue };
        let fingerprint = process.spec.env.get(FINGERPRINT).map_or("", String::as_str);
        let exits = state.exits.entry(process.spec.name.clone()).or_default();
        exits.note(fingerprint, process.started_ms, exit);
    }
}

/// All processes but the agent, as `plan` sees them.
fn seen(state: &State) -> BTreeMap<String, Seen> {
    state
        .processes
        .iter()
        .filter(|process| process.spec.name != "agent")
        .map(|process| {
            let name = process.spec.name.clone();
            let judged = state.verdicts.get(&name).filter(|(pid, _)| Some(*pid) == process.pid);
            let tired = tired(state, process);
            let seen = Seen {
                fingerprint: process.spec.env.get(FINGERPRINT).cloned().unwrap_or_default(),
                pid: process.pid,
                is_stopping: process.is_stopping,
                exit: process.exit.clone(),
                quick_exits: state.exits.get(&name).map_or(0, |exits| exits.quick),
                health: judged.map_or(Health::Starting, |(_, memory)| memory.verdict.health),
                because: judged
                    .map(|(_, memory)| memory.verdict.because.clone())
                    .unwrap_or_default(),
                since_ms: judged.map_or(process.started_ms, |(_, memory)| memory.since_ms),
                busy: state.busy.get(&name).copied().unwrap_or_default(),
                tired,
            };
            (name, seen)
        })
        .collect()
}

/// Why a running instance is to be replaced although it is well.
fn tired(state: &State, process: &ProcessState) -> Option<String> {
    let pid = process.pid?;
    if let Some((tired, because)) = state.tired.get(&process.spec.name)
        && *tired == pid
    {
        return Some(because.clone());
    }
    let id = instance_of(&process.spec.name)?;
    let site = state.config.as_ref()?.sites.iter().find(|site| site.name == id.site())?;
    let most_ms = u64::try_from(site.php.max_age.get().as_millis()).unwrap_or(u64::MAX);
    recycle::because_of_age(&id, process.started_ms, most_ms, clock::wall_ms())
}
