//! What `status` says: from memory, at once.

use pressroom_model::config::Config;
use pressroom_model::process::ProcessState;
use pressroom_model::status::{Instance, Pid, Process, Site, Status};
use pressroom_model::verdict::{Health, Verdict};
use pressroom_plan::machine::{
    self, DNS, DOCKER, EDGE, ETCD, KEEPALIVED, MARIADB, REDIS_CACHE, REDIS_SESSIONS, SQL,
    instance_of,
};
use pressroom_plan::supervise;

use crate::agent::{Agent, State};
use crate::cluster::removed::Removal;

impl Agent {
    /// The report.
    pub fn status(&self) -> Status {
        let has_data = self.has_data();
        let state = self.state.lock();
        let config = state.config.as_ref();
        Status {
            version: 1,
            keeper: Pid { pid: state.keeper },
            agent: Pid { pid: i32::try_from(std::process::id()).ok() },
            edge: process(&state, EDGE),
            engines: [MARIADB, REDIS_CACHE, REDIS_SESSIONS]
                .into_iter()
                .filter(|_| has_data)
                .chain([SQL, ETCD, DOCKER, DNS, KEEPALIVED].into_iter().filter(|name| {
                    state.processes.iter().any(|process| process.spec.name == *name)
                }))
                .map(|name| process(&state, name))
                .collect(),
            sites: config.iter().flat_map(|config| sites(config, &state)).collect(),
            notices: self.removal().map(told).into_iter().chain(state.notices.clone()).collect(),
            templates: self.templates.all(),
            addresses: self.shown_addresses(&state),
            media_store: self.media.store.status(),
            state: self.kept_where(&state.known),
            traffic: state.traffic.clone(),
        }
    }

    /// Whether everything is as wanted: nothing to do, nothing under way, everybody healthy, every site answering.
    pub fn is_settled(&self) -> bool {
        let status = self.status();
        self.is_done(&status) && status.sites.iter().all(|site| site.verdict.is_serving())
    }

    /// Sites that do not answer although nothing is left to do for them, with the reasons.
    pub fn unanswering(&self) -> Vec<(String, String)> {
        let status = self.status();
        if !self.is_done(&status) {
            return Vec::new();
        }
        let sites = status.sites.into_iter().filter(|site| !site.verdict.is_serving());
        sites.map(|site| (site.name.to_string(), site.because)).collect()
    }

    /// Nothing to do, nothing under way (no rollout either), every process healthy, and the edge serves what was published.
    fn is_done(&self, status: &Status) -> bool {
        let state = self.state.lock();
        state.open_steps == 0
            && state.running.is_empty()
            && state.sites.values().all(|facts| facts.candidate.is_none())
            && state.is_view_served()
            && status.edge.verdict.is_serving()
            && status.engines.iter().all(|engine| engine.verdict.is_serving())
            && status
                .sites
                .iter()
                .flat_map(|site| &site.instances)
                .all(|instance| instance.verdict.is_serving())
    }

    /// How often it was decided: two decisions after an event, everything has taken notice of it.
    pub fn decisions(&self) -> u64 {
        self.state.lock().decisions
    }

    /// Actions that failed at least so often in a row, with their errors.
    pub fn failing(&self, times: u32) -> Vec<(String, String)> {
        let state = self.state.lock();
        state
            .failed
            .iter()
            .filter(|(_, failed)| failed.times >= times)
            .map(|(action, failed)| (crate::apply::words(action), failed.because.clone()))
            .collect()
    }

    /// The last lines that a process wrote, to show its own words.
    pub fn last_words(&self, process: &str) -> String {
        let text = std::fs::read(self.layout.output(process)).unwrap_or_default();
        crate::engine::tail(&String::from_utf8_lossy(&text), 2000)
    }
}

/// Said for as long as it is so.
fn told(removal: Removal) -> String {
    format!("{removal}; {}", Removal::HINT)
}

fn verdict(state: &State, process: &ProcessState) -> Verdict {
    let name = &process.spec.name;
    let quick = state.exits.get(name).map_or(0, |exits| exits.quick);
    let judged = state.verdicts.get(name).filter(|(pid, _)| Some(*pid) == process.pid);
    let judged = judged.map_or_else(
        || Verdict::new(Health::Starting, "started, has not answered yet"),
        |(_, memory)| memory.verdict.clone(),
    );
    let is_looping = quick >= supervise::LOOP_EXITS && !judged.health.is_serving();
    match (process.pid, &process.exit) {
        (_, Some(exit)) if is_looping => Verdict::new(
            Health::CrashLoop,
            format!("ended {quick} times in a row, last: {}", supervise::words(exit)),
        ),
        (None, Some(exit)) => {
            Verdict::new(Health::Stopped, format!("ended: {}", supervise::words(exit)))
        }
        (None, None) => Verdict::new(Health::Stopped, "does not run"),
        (Some(_), _) => judged,
    }
}

fn process(state: &State, name: &str) -> Process {
    let found = state.processes.iter().find(|process| process.spec.name == name);
    let Some(found) = found else {
        let because = "does not run yet".to_owned();
        return Process {
            name: name.into(),
            pid: None,
            verdict: Health::Stopped,
            because,
            starts: 0,
        };
    };
    let mut verdict = verdict(state, found);
    if name == REDIS_SESSIONS && verdict.health.is_serving() && !state.held_back_because.is_empty()
    {
        verdict.because = format!("{}; {}", verdict.because, state.held_back_because);
    }
    Process {
        name: name.into(),
        pid: found.pid,
        verdict: verdict.health,
        because: verdict.because,
        starts: found.starts,
    }
}

fn sites(config: &Config, state: &State) -> Vec<Site> {
    config
        .sites
        .iter()
        .map(|site| {
            let ready = state.ready.get(&site.name).cloned();
            let verdict =
                ready.unwrap_or_else(|| Verdict::new(Health::Unknown, "nobody has asked it yet"));
            let facts = state.sites.get(&site.name);
            Site {
                name: site.name.clone(),
                url: format!("{}/", crate::site::home(config, site)),
                domains: site.domains.clone(),
                verdict: verdict.health,
                because: verdict.because,
                release: facts.and_then(|facts| Some(facts.serving.as_ref()?.release.id.clone())),
                instances: instances(site, state),
            }
        })
        .collect()
}

fn instances(site: &pressroom_model::config::Site, state: &State) -> Vec<Instance> {
    state
        .processes
        .iter()
        .filter_map(|process| {
            let id = instance_of(&process.spec.name).filter(|id| id.site() == site.name)?;
            let verdict = verdict(state, process);
            let seen_by_edge =
                state.traffic.as_ref().and_then(|t| t.busy.get(id.as_str()).copied());
            let busy = seen_by_edge
                .or_else(|| state.busy.get(&machine::instance_process(&id)).copied())
                .unwrap_or_default();
            Some(Instance {
                id,
                pid: process.pid,
                verdict: verdict.health,
                because: verdict.because,
                busy,
                workers: site.php.workers.into(),
            })
        })
        .collect()
}
