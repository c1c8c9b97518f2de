//! Who may ask etcd: the nodes, by their keys, and nobody else who has a certificate of the authority.
//!
//! etcd is asked directly, so it must know by itself who is a node. Its users are the nodes' keys (the common name of each
//! certificate), which counts for every single question; and it has a list of the keys of removed nodes, which it looks at
//! whenever somebody connects. The leader keeps both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::cluster::Node;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::etcd::EtcdStore;
use pressroom_store::key::Prefix;
use pressroom_store::{Store, StoreError};
use pressroom_wire::authority::{Authority, NODE_LIFE};
use pressroom_wire::identity::Fingerprint;
use serde::{Deserialize, Serialize};

use super::{Cluster, keys, membership};
use crate::agent::Agent;
use crate::engine::etcd;
use crate::layout::Layout;

/// Between two looks at the nodes' records.
const LOOK: Duration = Duration::from_secs(5);
/// Between two comparisons with etcd's users, where the nodes are the same.
const COMPARE: Duration = Duration::from_secs(120);

/// The keys of nodes that were removed, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Until when each could be used, milliseconds since 1970: then its certificate has ended by itself.
    pub keys: BTreeMap<String, u64>,
    /// The list that etcd reads, PEM.
    pub list: String,
}

impl Refused {
    /// The same with these keys, and without those that have ended. `now_ms`: milliseconds since 1970.
    pub fn with(
        mut self,
        authority: &Authority,
        keys: &BTreeSet<String>,
        now_ms: u64,
    ) -> Result<Self, pressroom_wire::WireError> {
        let life = u64::try_from(NODE_LIFE.as_millis()).unwrap_or(u64::MAX);
        self.keys.retain(|_, until| *until > now_ms);
        self.keys.extend(keys.iter().map(|key| (key.clone(), now_ms.saturating_add(life))));
        let keys = self.keys.keys().filter_map(|key| Fingerprint::written(key));
        self.list = authority.refuse(keys, now_ms / 1000)?;
        Ok(self)
    }

    /// What the store has; nothing, if it has none.
    pub(crate) async fn stored(store: &dyn Store) -> Result<Self, StoreError> {
        let entry = store.get(&keys::refused()).await?;
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default())
    }

    /// What this node knows of them; `None`: nothing yet.
    pub(crate) fn known(layout: &Layout) -> Option<Self> {
        let text = std::fs::read(layout.cluster().join(membership::REFUSED)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The keys, as TLS goes by them.
    pub(crate) fn fingerprints(&self) -> BTreeSet<Fingerprint> {
        self.keys.keys().filter_map(|key| Fingerprint::written(key)).collect()
    }

    /// As it is kept and stored.
    pub(crate) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }
}

/// The keys that a cluster's nodes may show, as its store has them.
async fn admitted(store: &dyn Store) -> Result<BTreeSet<String>, StoreError> {
    let nodes: Prefix = keys::nodes();
    let listing = store.list(&nodes).await?;
    let records = listing.entries.iter().map(|entry| serde_json::from_slice::<Node>(&entry.value));
    let mut all = BTreeSet::new();
    for record in records {
        let record = record.map_err(|error| StoreError::Failed {
            doing: "reading the nodes' records",
            cause: error.to_string(),
        })?;
        all.extend(record.keys);
    }
    Ok(all)
}

/// Has etcd answer the nodes alone. `own` is a key of ours: without it among the nodes nothing is changed.
pub async fn restrict(etcd: &EtcdStore, own: &str) -> Result<(), StoreError> {
    let wanted = admitted(etcd).await?;
    match wanted.contains(own) {
        true => etcd.restrict(&wanted).await,
        false => Err(StoreError::Failed {
            doing: "changing who may ask etcd",
            cause: "this node is not among those that may".into(),
        }),
    }
}

impl Agent {
    /// Keeps etcd's users what the nodes are, for as long as the agent runs; as the leader alone.
    pub(crate) async fn keep_access(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let Some(etcd) = self.kept_etcd() else { return };
        let mut compared: Option<(BTreeSet<String>, Instant)> = None;
        while !shutdown.is_requested() {
            match self.leads() {
                true => self.look_at_access(&cluster, &etcd, &mut compared).await,
                false => compared = None,
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    async fn look_at_access(
        &self,
        cluster: &Cluster,
        etcd: &EtcdStore,
        compared: &mut Option<(BTreeSet<String>, Instant)>,
    ) {
        // As they are stored, not as they were heard: a record that is still to come must shut nobody out.
        let Ok(wanted) = admitted(etcd).await else { return };
        let now = clock::now();
        let is_known =
            compared.as_ref().is_some_and(|(keys, at)| *keys == wanted && now < *at + COMPARE);
        if is_known || !self.leads() {
            return;
        }
        let own = cluster.wire.identity().fingerprint();
        match restrict(etcd, own.as_str()).await {
            Ok(()) => *compared = Some((wanted, now)),
            Err(error) => tracing::warn!(%error, "who may ask the store stays as it is for now"),
        }
    }

    /// The keys of a node that is removed, added to those that are refused; as the leader, which has the authority's key.
    pub(super) async fn refused_with(
        &self,
        keys: &BTreeSet<String>,
    ) -> Result<Refused, StoreError> {
        let failed = |cause: String| StoreError::Failed { doing: "refusing a node's keys", cause };
        let refused = Refused::stored(&*self.store).await?;
        let authority =
            membership::authority(&self.layout).map_err(|error| failed(error.to_string()))?;
        refused.with(&authority, keys, clock::wall_ms()).map_err(|error| failed(error.to_string()))
    }

    /// Has etcd answer these keys nothing any more, at once. What fails here the leader's next look does.
    pub(super) async fn shut_out(&self, keys: &BTreeSet<String>) {
        let Some(etcd) = self.kept_etcd() else { return };
        for key in keys {
            if let Err(error) = etcd.refuse(key).await {
                tracing::warn!(%error, "a removed node can ask the store for some seconds more");
            }
        }
    }
}

/// Keeps the list of refused keys for etcd here.
pub(crate) fn take_refused(layout: &Layout, refused: &Refused) {
    if refused.list.is_empty() {
        return;
    }
    let kept = membership::keep(layout, membership::REFUSED, &refused.text());
    if let Err(error) = kept {
        tracing::error!(%error, "the list of refused nodes cannot be kept");
    }
    if let Err(error) = etcd::write_refused(layout) {
        tracing::error!(%error, "etcd here does not know of refused nodes");
    }
}
