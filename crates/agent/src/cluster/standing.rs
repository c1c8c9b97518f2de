//! The nodes as people are shown them.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::cluster::{Report, Share, Standing};
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;

use super::Known;
use super::membership::Membership;
use super::removed::Removal;
use crate::agent::Agent;

/// Clocks that differ by more are named: sessions, nonces and leases go by them.
const SKEW_MS: i64 = 500;

impl Agent {
    /// Every node, by name; none where this machine is in no cluster, and it alone where it was removed.
    pub fn standings(&self) -> Vec<Standing> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let ours = cluster.node();
        if let Some(removal) = cluster.removal() {
            return vec![removed(&cluster.membership(), removal)];
        }
        let own = self.own_report();
        let now_ms = clock::wall_ms();
        let state = self.state.lock();
        let known = &state.known;
        let sites = state.config.as_ref().map_or(0, |config| config.sites.len());
        let nodes = known.nodes.iter().map(|(name, node)| {
            let heard = match *name == ours {
                true => Some((&own, now_ms, now_ms)),
                false => known.reports.get(name).map(|(report, at)| (report, report.at_ms, *at)),
            };
            let report = heard.map(|(report, ..)| report);
            let ready = report.map_or(0, |it| it.sites.values().filter(|it| it.is_ready).count());
            let clock_ms = heard.map_or(0, |(_, theirs, ours)| theirs as i64 - ours as i64);
            let program = report.map(|report| report.program.clone()).unwrap_or_default();
            let refused = report.into_iter().flat_map(|report| &report.refused);
            let refused = refused.map(|(address, why)| format!("{address}: {why}"));
            let mut because: Vec<String> = refused.collect();
            if report.is_none() {
                because.push("its agent is not heard".to_owned());
            } else if ready < sites {
                because.push(format!("{ready} of {sites} sites answer there"));
            }
            let waiting = report.map_or(0, |report| report.media_waiting);
            match waiting {
                0 => {}
                1 => because.push("an upload waits there for the object store".into()),
                _ => {
                    because
                        .push(format!("about {waiting} uploads wait there for the object store"));
                }
            }
            if clock_ms.abs() > SKEW_MS {
                because.push(format!("its clock is {clock_ms} ms off ours: set it by NTP"));
            }
            if let Some(report) = report.filter(|report| report.is_certificate_late) {
                let until = clock::rfc3339(report.certificate_until_ms);
                because.push(format!(
                    "its certificate ends on {until} and was not renewed: its notices say why"
                ));
            }
            if !program.is_empty() && program != env!("CARGO_PKG_VERSION") {
                because
                    .push(format!("it runs Pressroom {program}, we {}", env!("CARGO_PKG_VERSION")));
            }
            Standing {
                name: name.clone(),
                zone: node.zone.clone(),
                address: node.address,
                roles: node.roles.clone(),
                labels: node.labels.clone(),
                leader: known.leader.as_ref() == Some(name),
                database: known.data.as_ref() == Some(name),
                voter: known.voters.contains_key(name) && !known.followers.contains(name),
                is_up: report.is_some(),
                is_drained: node.is_drained,
                is_removed: false,
                serves: report.is_some() && sites > 0 && ready == sites,
                program,
                clock_ms,
                addresses: report.map(|report| report.addresses.clone()).unwrap_or_default(),
                because: because.join("; "),
                sites: shares(known, name, report),
            }
        });
        nodes.collect()
    }
}

/// A node that is none any more. Of the others it knows nothing.
fn removed(own: &Membership, removal: Removal) -> Standing {
    Standing {
        name: own.node.clone(),
        zone: own.zone.clone(),
        address: own.address,
        roles: BTreeSet::new(),
        labels: BTreeMap::new(),
        leader: false,
        database: false,
        voter: false,
        is_up: true,
        is_drained: false,
        is_removed: true,
        serves: false,
        program: env!("CARGO_PKG_VERSION").into(),
        clock_ms: 0,
        addresses: BTreeSet::new(),
        because: format!("{removal}; {}", Removal::HINT),
        sites: BTreeMap::new(),
    }
}

/// The PHP of sites that a node runs, or is to run.
fn shares(known: &Known, node: &NodeName, report: Option<&Report>) -> BTreeMap<SiteName, Share> {
    let of = |(site, (placed, because)): (SiteName, (u16, String))| {
        let answering = report.and_then(|report| report.sites.get(&site));
        let answering = answering.map_or(0, |site| site.instances.values().sum());
        (site, Share { placed, answering, because })
    };
    known.placed_on(node).into_iter().map(of).collect()
}
