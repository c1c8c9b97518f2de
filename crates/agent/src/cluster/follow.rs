//! Following the store: everything in it is read once, then every change. What was heard last is kept on disk, so that a node
//! that starts while the store is away begins with that.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pressroom_model::cluster::Report;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::StoreError;
use pressroom_store::entry::{Entry, Revision};
use pressroom_store::key::{Key, Prefix};
use serde::{Deserialize, Serialize};

use super::hearsay::News;
use super::{Cluster, Known, members, membership};
use crate::agent::{Agent, Intent};
use crate::facts::SiteFacts;
use crate::files;
use crate::layout::Layout;

/// Between two tries while the store is away.
const PAUSE: Duration = Duration::from_millis(500);

/// A report is not later than another one by more than this: then a clock was set.
const LATEST_MS: u64 = 10_000;

/// What a node remembers of the store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// What operators want.
    pub intent: Option<Intent>,
    /// What is known of the sites.
    #[serde(default)]
    pub sites: BTreeMap<SiteName, SiteFacts>,
    /// What is known of the nodes.
    #[serde(default)]
    pub known: Known,
}

impl Remembered {
    fn path(layout: &Layout) -> std::path::PathBuf {
        layout.cluster().join("state.json")
    }

    /// What this node remembers; nothing, if it cannot be read.
    pub fn read(layout: &Layout) -> Self {
        let bytes = std::fs::read(Self::path(layout)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Forgets it: what a machine heard before it was removed is of no use.
    pub(super) fn forget(layout: &Layout) -> std::io::Result<()> {
        match std::fs::remove_file(Self::path(layout)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(files::naming(&Self::path(layout), &error))
            }
            _ => Ok(()),
        }
    }

    /// Remembers these as the voters: the store is elsewhere now.
    pub(super) fn forget_voters<'a>(
        layout: &Layout,
        voters: impl Iterator<Item = &'a NodeName>,
    ) -> std::io::Result<()> {
        let mut remembered = Self::read(layout);
        // Their numbers are heard there.
        remembered.known.voters = voters.map(|name| (name.clone(), 0)).collect();
        remembered.write(layout)
    }

    fn write(&self, layout: &Layout) -> std::io::Result<()> {
        let text = serde_json::to_vec(self).expect("plain data");
        files::write(&Self::path(layout), &text, 0o600, None).map(drop)
    }
}

impl Agent {
    /// Follows for as long as the agent runs.
    pub(crate) async fn follow_store(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        while !shutdown.is_requested() {
            let followed = self.follow_from_now(&cluster, &shutdown).await;
            if let Err(error) = followed {
                let was_heard = std::mem::take(&mut self.state.lock().known.is_heard);
                if was_heard {
                    tracing::warn!(%error, "the store is not heard any more; what runs goes on");
                    self.notice(format!(
                        "the cluster's store is not heard: {error}; what runs goes on, and it is tried again"
                    ));
                }
            }
            // A removed node is refused until it has joined again.
            let pause = if cluster.removal().is_some() { PAUSE * 10 } else { PAUSE };
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn follow_from_now(
        &self,
        cluster: &Cluster,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        let all = Prefix::all();
        let listing = self.store.list(&all).await?;
        cluster.check_ours(&listing.entries)?;
        let mut watch = self.store.watch(&all, listing.revision).await?;
        {
            let _order = cluster.taking.lock();
            cluster.heard.lock().begin(listing.revision);
            self.take_all(cluster, &listing.entries);
            let was_heard = std::mem::replace(&mut self.state.lock().known.is_heard, true);
            if !was_heard {
                self.notice("the cluster's store is heard");
            }
            self.heard(cluster);
        }
        loop {
            let changes = tokio::select! {
                changes = watch.next() => changes,
                () = shutdown.requested() => return Ok(()),
            };
            let changes = match changes {
                // We were too slow: from the beginning.
                Err(StoreError::Compacted { .. }) => return Ok(()),
                changes => changes?,
            };
            cluster.heard.lock().watched(changes.revision);
            self.take_news(cluster, &[changes.into()], listing.revision)?;
        }
    }

    /// Takes transactions over, in their order, but for those that were; whether any was new. The store says them, or another node that
    /// heard them earlier. Whoever says them knows all that is behind `after`.
    pub(super) fn take_news(
        &self,
        cluster: &Cluster,
        news: &[News],
        after: Revision,
    ) -> Result<bool, StoreError> {
        let _order = cluster.taking.lock();
        let mut is_new = false;
        let taken = news.iter().try_for_each(|news| {
            cluster.check_still_ours(&news.changes)?;
            if cluster.heard.lock().take(news, after, clock::now()) {
                for (key, value) in &news.changes {
                    self.take(cluster, key, value.as_deref());
                }
                is_new = true;
            }
            Ok(())
        });
        if is_new {
            self.heard(cluster);
        }
        taken.map(|()| is_new)
    }

    /// Takes everything over as it is, and forgets what is there no more: at once, because a decision in between would not
    /// know where the database is.
    pub(crate) fn take_all(&self, cluster: &Cluster, entries: &[Entry]) {
        let mut fresh = Known::default();
        for entry in entries {
            fresh.take(&entry.key, Some(&entry.value));
        }
        {
            let mut state = self.state.lock();
            let gone = std::mem::take(&mut state.known.gone);
            state.known = Known { is_heard: state.known.is_heard, gone, ..fresh };
        }
        for entry in entries {
            self.take(cluster, &entry.key, Some(&entry.value));
        }
    }

    /// Takes one value over; `None`: it is gone.
    fn take(&self, cluster: &Cluster, key: &Key, value: Option<&[u8]>) {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts.as_slice() {
            ["intent", "config"] if !self.leads() => {
                if let Some(intent) = parsed(key, value) {
                    self.take_intent(intent);
                }
            }
            ["observed", "sites", name] if !self.leads() => {
                if let Ok(name) = name.parse() {
                    self.take_site(&name, parsed(key, value));
                }
            }
            ["secrets", name] => self.take_secret(cluster, name, value),
            ["cluster", "refused"] => {
                if let Some(refused) = parsed(key, value) {
                    super::access::take_refused(&self.layout, &refused);
                    cluster.wire.members.set_removed(refused.fingerprints());
                }
            }
            _ => self.state.lock().known.take(key, value),
        }
    }

    /// What follows from something that was heard: who is let in, what is kept on disk, and a decision. Called while `taking` is held, or
    /// what was known earlier would be kept.
    fn heard(&self, cluster: &Cluster) {
        if cluster.is_elsewhere.load(Ordering::Relaxed) {
            return;
        }
        let (remembered, voters) = {
            let mut state = self.state.lock();
            state.known.note_gone();
            let intent = state.intent();
            let known = state.known.clone();
            let remembered = Remembered { intent, sites: state.sites.clone(), known };
            let voters = state.known.voters.keys().filter_map(|name| {
                let node = state.known.nodes.get(name)?;
                Some((name.clone(), super::member(node).at(pressroom_wire::members::Service::Etcd)))
            });
            (remembered, voters.collect::<BTreeMap<_, _>>())
        };
        cluster.wire.members.set(members(&remembered.known.nodes));
        if let Err(error) = remembered.write(&self.layout) {
            tracing::warn!(%error, "what the store said cannot be kept");
        }
        let news = {
            let mut membership = cluster.membership.write();
            let before = membership.clone();
            membership.nodes.clone_from(&remembered.known.nodes);
            let key = cluster.wire.identity().fingerprint();
            let own = membership.nodes.get(&membership.node);
            if let Some(own) = own.filter(|own| own.keys.contains(key.as_str())).cloned() {
                membership.own = Some(own);
            }
            if !voters.is_empty() {
                membership.voters = voters;
                membership.member = remembered.known.voters.get(&membership.node).copied();
            }
            (*membership != before).then(|| membership.clone())
        };
        if let Some(membership) = news {
            if let Err(error) = membership::Membership::write(&membership, &self.layout) {
                tracing::warn!(%error, "the membership cannot be kept");
            }
            let endpoints = membership.endpoints();
            if !endpoints.is_empty() {
                cluster.endpoints.send_replace(endpoints);
            }
        }
        self.changed.notify_one();
        self.histories.due.notify_one();
    }
}

impl Known {
    /// Whether a node has said something later than that: reports come by the store and from the node itself. A clock that was set
    /// back far is no reason.
    pub(super) fn is_superseded(&self, node: &NodeName, report: &Report) -> bool {
        let known = self.reports.get(node);
        let ahead = known.map_or(0, |(known, _)| known.at_ms.saturating_sub(report.at_ms));
        ahead > 0 && ahead <= LATEST_MS
    }

    /// Notes who does not report, and since when.
    fn note_gone(&mut self) {
        let (nodes, reports) = (&self.nodes, &self.reports);
        self.gone.retain(|name, _| nodes.contains_key(name) && !reports.contains_key(name));
        for name in nodes.keys().filter(|name| !reports.contains_key(*name)) {
            self.gone.entry(name.clone()).or_insert_with(clock::now);
        }
    }

    /// Takes one value over; `None`: it is gone.
    fn take(&mut self, key: &Key, value: Option<&[u8]>) {
        let name = || text(value).and_then(|it| it.parse().ok());
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match parts.as_slice() {
            ["observed", "nodes", name] => {
                let report: Option<Report> = parsed(key, value);
                let Ok(node) = name.parse() else { return };
                match report {
                    None => drop(self.reports.remove(&node)),
                    Some(report) if self.is_superseded(&node, &report) => {}
                    Some(report) => drop(self.reports.insert(node, (report, clock::wall_ms()))),
                }
            }
            ["nodes", name] => with(&mut self.nodes, name, parsed(key, value)),
            ["placement", site] => with(&mut self.placements, site, parsed(key, value)),
            ["leader"] => self.leader = name(),
            ["cluster", "data"] => self.data = name(),
            ["cluster", "sealing"] => self.sealing = parsed(key, value),
            ["cluster", "voters"] => self.voters = parsed(key, value).unwrap_or_default(),
            ["cluster", "followers"] => self.followers = parsed(key, value).unwrap_or_default(),
            _ => {}
        }
    }
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(value?).ok()
}

fn parsed<T: serde::de::DeserializeOwned>(key: &Key, value: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(value?)
        .inspect_err(|error| tracing::error!(%key, %error, "a value in the store cannot be read"))
        .ok()
}

fn with<K: Ord + FromStr, T>(map: &mut BTreeMap<K, T>, name: &str, value: Option<T>) {
    let Ok(name) = name.parse::<K>() else { return };
    match value {
        Some(value) => drop(map.insert(name, value)),
        None => drop(map.remove(&name)),
    }
}
