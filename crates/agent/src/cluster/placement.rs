//! Where sites run: the leader looks who answers, and stores the next change that `plan::placement` finds safe. Every node runs what
//! is stored for it; without a leader, or a store, what it heard last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::cluster::{Node, Role};
use pressroom_model::config::Site;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Placement;
use pressroom_plan::{capacity, placement};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::transaction::Transaction;

use super::{Known, keys};
use crate::agent::{Agent, State};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Others take the share of a node that has not been heard for so long.
const LOST: Duration = Duration::from_secs(45);

/// Since when nodes have not been heard.
type Silent = BTreeMap<NodeName, Instant>;
/// What people were told of sites that do not run as their rules say.
type Told = BTreeMap<SiteName, String>;

impl Agent {
    /// Keeps sites placed for as long as the agent runs; as the leader alone.
    pub(crate) async fn keep_placement(self: Arc<Self>, shutdown: Shutdown) {
        let (mut silent, mut told) = (Silent::new(), Told::new());
        while !shutdown.is_requested() {
            match self.leads() {
                true => {
                    if let Err(error) = self.place(&mut silent, &mut told).await {
                        tracing::warn!(%error, "sites stay where they are for now");
                    }
                }
                // Who leads next begins to count anew: a node is rather waited for twice.
                false => {
                    silent.clear();
                    told.clear();
                }
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn place(&self, silent: &mut Silent, told: &mut Told) -> Result<(), StoreError> {
        let (steps, gone, compromises) = {
            let state = self.state.lock();
            // Before everything was heard, nodes and placements may be missing.
            if !state.known.is_heard {
                return Ok(());
            }
            let nodes = nodes(&state.known, silent);
            let sites = sites(&state);
            let placed = state.known.placements.keys();
            let gone = placed.filter(|name| sites.iter().all(|site| site.name != **name));
            let gone: Vec<SiteName> = gone.cloned().collect();
            let compromises = placement::compromises(&nodes, &sites);
            (placement::steps(&nodes, &sites, clock::wall_ms()), gone, compromises)
        };
        for (site, text) in &compromises {
            if told.get(site) != Some(text) {
                tracing::warn!(%site, "{text}");
                self.notice(text.clone());
            }
        }
        *told = compromises;
        for step in steps {
            let text = serde_json::to_vec(&step.placement).expect("plain data");
            self.commit(Transaction::new().put(keys::placement(&step.site), text)).await?;
            tracing::info!(site = %step.site, because = step.because, "a site is placed");
            // The watch brings it as well; a second decision must not come before.
            self.state.lock().known.placements.insert(step.site, step.placement);
            self.changed.notify_one();
        }
        for site in gone {
            self.commit(Transaction::new().delete(keys::placement(&site))).await?;
            self.state.lock().known.placements.remove(&site);
        }
        Ok(())
    }
}

/// How many instances of a site are to run on a node, which is what it was told, or, before anybody has said so, `min` where PHP
/// runs.
pub(crate) fn wanted_on(known: &Known, name: &NodeName, site: &SiteName, min: u16) -> u16 {
    match (known.placements.get(site), known.nodes.get(name)) {
        (Some(placement), _) => placement.on(name),
        (None, Some(node)) if known.rests(name, Role::App) || !runs_php(node) => 0,
        (None, _) => min,
    }
}

fn runs_php(node: &Node) -> bool {
    node.roles.contains(&Role::App)
}

fn nodes(known: &Known, silent: &mut Silent) -> Vec<placement::Node> {
    let now = clock::now();
    silent.retain(|name, _| known.nodes.contains_key(name) && !known.reports.contains_key(name));
    let nodes = known.nodes.iter().map(|(name, node)| {
        let report = known.reports.get(name).map(|(report, _)| report);
        let is_up = report.is_some();
        let is_lost = !is_up && now >= *silent.entry(name.clone()).or_insert(now) + LOST;
        let room_mib = report.and_then(|report| report.memory_mib).map(capacity::php_memory_mib);
        placement::Node {
            name: name.clone(),
            zone: node.zone.clone(),
            labels: node.labels.clone(),
            is_up,
            is_lost,
            runs_php: runs_php(node),
            is_drained: node.is_drained,
            room_mib,
        }
    });
    nodes.collect()
}

fn sites(state: &State) -> Vec<placement::Site> {
    let config = state.config.iter().flat_map(|config| &config.sites);
    let site = |site: &Site| {
        let facts = state.sites.get(&site.name);
        let serving = facts.and_then(|facts| facts.serving.as_ref());
        // What does not serve yet answers nowhere, which is no reason to try further nodes.
        let is_moving = serving.is_none()
            || facts.is_none_or(|facts| facts.candidate.is_some() || !facts.is_installed);
        let answering = state.known.reports.iter().filter_map(|(node, (report, _))| {
            let count = report.sites.get(&site.name)?.instances.get(&serving?.fingerprint)?;
            Some((node.clone(), *count))
        });
        placement::Site {
            name: site.name.clone(),
            min: site.php.instances.min,
            max: site.php.instances.max,
            instance_mib: capacity::instance_memory_mib(site.php.workers),
            rules: site.placement.clone(),
            is_moving,
            placed: state.known.placements.get(&site.name).cloned(),
            answering: answering.collect(),
        }
    };
    config.map(site).collect()
}

impl Known {
    /// What is placed on a node: how many instances of each site, and why it was changed last.
    pub(crate) fn placed_on(&self, node: &NodeName) -> BTreeMap<SiteName, (u16, String)> {
        let of = |(site, placement): (&SiteName, &Placement)| {
            (site.clone(), (placement.on(node), placement.because.clone()))
        };
        self.placements.iter().map(of).collect()
    }
}
