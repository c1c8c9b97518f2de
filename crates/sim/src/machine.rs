//! One machine: it observes, decides by `plan`, and what it decides happens after a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use pressroom_model::id::{InstanceId, NodeName, SiteName};
use pressroom_model::process::Exit;
use pressroom_model::verdict::Health;
use pressroom_plan::cron;
use pressroom_plan::machine::{
    Action, Data, EDGE, Intent, Observed, Part, SiteSeen, Step, View, instance_process, steps,
};
use pressroom_plan::rollout::{self, Other, SiteWanted};
use pressroom_plan::supervise::{Seen, Wanted};

use crate::store::{Report, Stored};

/// Milliseconds since 1970 when every history begins.
pub const BEGIN_MS: u64 = 1_800_000_000_000;

/// A process and what is about to become of it.
#[derive(Debug, Clone)]
pub struct Process {
    /// As `plan` sees it.
    pub seen: Seen,
    /// The second in which it answers, or is gone.
    pub turns: u64,
}

/// What an edge serves: per site the version and its instances.
pub type Pools = BTreeMap<SiteName, (String, Vec<InstanceId>)>;

/// Seconds that an etcd takes to begin.
const ETCD: u64 = 4;

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: usize,
    /// It has power again from this second on.
    pub dark_until: u64,
    /// It hears nothing until then.
    pub deaf_until: u64,
    /// How much slower than others it is, until when.
    pub slow: (u64, u64),
    /// How far its clock is off, milliseconds.
    pub clock_ms: i64,
    /// What it heard last.
    pub known: Arc<Stored>,
    /// Its processes by name.
    pub processes: BTreeMap<String, Process>,
    /// What its edge was told, and since when it serves that.
    pub view: Option<(Pools, u64)>,
    /// Its office, and until which second it believes in that.
    pub office: Option<(u64, u64)>,
    /// Cron runs of its own: per site what is remembered, and until when it runs.
    pub cron: BTreeMap<SiteName, (cron::Memory, u64)>,
    /// The number of the next process.
    pub next_pid: i32,
}

impl Machine {
    /// A machine that never ran.
    pub fn new(name: NodeName, zone: usize, known: Arc<Stored>) -> Self {
        Self {
            name,
            zone,
            dark_until: 0,
            deaf_until: 0,
            slow: (1, 0),
            clock_ms: 0,
            known,
            processes: BTreeMap::new(),
            view: None,
            office: None,
            cron: BTreeMap::new(),
            next_pid: 1,
        }
    }

    /// Whether it has power.
    pub fn is_up(&self, second: u64) -> bool {
        second >= self.dark_until
    }

    /// Whether its etcd answers, if it has one: seconds later than its agent.
    pub fn has_etcd(&self, second: u64) -> bool {
        second >= self.dark_until + ETCD
    }

    /// Its clock.
    pub fn now_ms(&self, second: u64) -> u64 {
        BEGIN_MS.saturating_add_signed(self.clock_ms) + second * 1000
    }

    fn factor(&self, second: u64) -> u64 {
        if second < self.slow.1 { self.slow.0 } else { 1 }
    }

    /// How many instances of a site it runs, by what it heard; `min` before anybody has said so.
    pub fn wanted_on(stored: &Stored, node: &NodeName, site: &SiteName, min: u16) -> u16 {
        match stored.placements.get(site) {
            Some(placement) => placement.on(node),
            None if stored.drained.contains(node) => 0,
            None => min,
        }
    }

    /// What was begun comes to its end.
    pub fn pass(&mut self, second: u64) {
        let at_ms = self.now_ms(second);
        for process in self.processes.values_mut().filter(|it| it.turns <= second) {
            let seen = &mut process.seen;
            if seen.is_stopping {
                *seen =
                    Seen { pid: None, is_stopping: false, health: Health::Stopped, ..seen.clone() };
                seen.exit = Some(Exit { code: Some(0), signal: None, at_ms, was_asked: true });
            } else if seen.pid.is_some() && seen.health == Health::Starting {
                seen.health = Health::Healthy;
                seen.since_ms = at_ms;
            }
        }
    }

    /// The power goes: nothing is left of what ran.
    pub fn lose_power(&mut self) {
        self.processes.clear();
        self.view = None;
        self.office = None;
        self.cron.clear();
    }

    fn sites(&self, min: &BTreeMap<SiteName, u16>) -> Vec<SiteWanted> {
        let known = &self.known;
        let sites = known.sites.iter().map(|(name, facts)| {
            let min = min.get(name).copied().unwrap_or(1);
            let others = facts.candidate.iter().flat_map(|candidate| {
                let others = known.reports.iter().filter(|(node, _)| **node != self.name);
                others.filter_map(move |(node, report)| {
                    let (serves, instances) = report.sites.get(name)?;
                    let serves = serves.as_ref()?;
                    let filled = instances.get(&candidate.fingerprint).copied().unwrap_or_default();
                    Some(Other {
                        is_filled: filled >= Self::wanted_on(known, node, name, min),
                        has_switched: *serves == candidate.fingerprint,
                    })
                })
            });
            SiteWanted {
                name: name.clone(),
                serving: Some(facts.serving.clone()),
                wanted: Some(facts.wanted.clone()),
                candidate: facts.candidate.clone(),
                parked: facts.parked.clone(),
                refused: facts.refused.clone(),
                author: None,
                instances: Self::wanted_on(known, &self.name, name, min),
                lacking: Vec::new(),
                others: others.collect(),
            }
        });
        sites.collect()
    }

    /// Decides, as `Agent::decide` does.
    pub fn decide(&mut self, min: &BTreeMap<SiteName, u16>, second: u64) -> Vec<Step> {
        let sites = self.sites(min);
        let seen = SiteSeen {
            is_prepared: true,
            has_release: true,
            has_database: true,
            has_redis: true,
            is_installed: true,
            ..SiteSeen::default()
        };
        let part = if self.leads(second) { Part::Leads } else { Part::Follows };
        let mut observed = Observed {
            now_ms: self.now_ms(second),
            processes: self
                .processes
                .iter()
                .map(|(name, it)| (name.clone(), it.seen.clone()))
                .collect(),
            has_database: true,
            sites: sites.iter().map(|site| (site.name.clone(), seen.clone())).collect(),
            data_answers: true,
            ..Observed::default()
        };
        let pools = pools(&sites, &observed);
        observed.view = View {
            wanted: "wanted".into(),
            published: self.view.as_ref().map(|(published, _)| match *published == pools {
                true => "wanted".into(),
                false => "former".into(),
            }),
            is_served: self.view.as_ref().is_some_and(|(_, since)| *since <= second),
            may_be_old: false,
        };
        let edge = Wanted { name: EDGE.into(), fingerprint: "edge".into() };
        let intent =
            Intent { part, data: Data::Here, engines: vec![], edge, listeners: vec![], sites };
        let steps = steps(&intent, &observed);
        if steps.iter().any(|step| step.action == Action::PublishView) {
            self.view = Some((pools, second + self.factor(second) - 1));
        }
        steps
    }

    /// Whether it believes that it leads.
    pub fn leads(&self, second: u64) -> bool {
        self.office.is_some_and(|(_, until)| second < until)
    }

    /// Does one thing of its own; rollout steps are the world's, which has the store.
    pub fn apply(&mut self, action: &Action, second: u64) {
        let (factor, now_ms) = (self.factor(second), self.now_ms(second));
        match action {
            Action::StartInstance(id, version) => {
                self.start(&instance_process(id), version, second + 2 * factor, now_ms);
            }
            Action::Start(name) => self.start(name, "edge", second + factor, now_ms),
            Action::Stop(name) | Action::Kill(name) => {
                if let Some(process) = self.processes.get_mut(name) {
                    process.seen.is_stopping = true;
                    process.turns = second + 2 * factor;
                }
            }
            Action::Forget(name) => drop(self.processes.remove(name)),
            _ => {}
        }
    }

    fn start(&mut self, name: &str, fingerprint: &str, turns: u64, now_ms: u64) {
        let seen = Seen {
            fingerprint: fingerprint.to_owned(),
            pid: Some(self.next_pid),
            is_stopping: false,
            exit: None,
            quick_exits: 0,
            health: Health::Starting,
            because: String::new(),
            since_ms: now_ms,
            busy: 0,
            tired: None,
        };
        self.next_pid += 1;
        self.processes.insert(name.to_owned(), Process { seen, turns });
    }

    /// One of its instances dies.
    pub fn kill_one(&mut self, which: u64, second: u64) {
        let at_ms = self.now_ms(second);
        let alive = self.processes.values_mut().filter(|it| it.seen.pid.is_some());
        let mut alive: Vec<_> = alive.filter(|it| it.seen.fingerprint != "edge").collect();
        let count = alive.len().max(1) as u64;
        if let Some(process) = alive.get_mut((which % count) as usize) {
            let seen = &mut process.seen;
            (seen.pid, seen.is_stopping, seen.health) = (None, false, Health::Stopped);
            seen.exit = Some(Exit { code: None, signal: Some(9), at_ms, was_asked: false });
        }
    }

    /// Instances that answer, by site and version.
    pub fn answering(&self, site: &SiteName) -> BTreeMap<String, u16> {
        let mut counts = BTreeMap::new();
        for (name, process) in &self.processes {
            let is_its =
                pressroom_plan::machine::instance_of(name).is_some_and(|id| id.site() == *site);
            let seen = &process.seen;
            if is_its && seen.pid.is_some() && !seen.is_stopping && seen.health.is_serving() {
                *counts.entry(seen.fingerprint.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// What it says of itself.
    pub fn report(&self, second: u64) -> Report {
        let served = self.view.as_ref().filter(|(_, since)| *since <= second);
        let site = |name: &SiteName| {
            let serves =
                served.and_then(|(pools, _)| pools.get(name)).map(|(version, _)| version.clone());
            (name.clone(), (serves, self.answering(name)))
        };
        Report { sites: self.known.sites.keys().map(site).collect() }
    }
}

fn pools(sites: &[SiteWanted], observed: &Observed) -> Pools {
    let pools =
        sites.iter().filter_map(|site| Some((site.name.clone(), rollout::pool(site, observed)?)));
    pools.collect()
}
