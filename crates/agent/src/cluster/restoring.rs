//! Going back to a state that was kept, when the voters that had it are gone for good, or when it is not the state any more that
//! operators want. In an etcd that operators keep, a copy is written over what is there.
//!
//! One node does it: its agent ends, the next one lays the state out as the only member of a new etcd, and sites are served
//! all the while (see the binary's `restore.rs`). It then tells the nodes that do not report where the store is now; they give up
//! the former one, whatever that says, because its restoring came later. So a former quorum that comes back is no second store.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pressroom_model::external;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::election::{Leadership, campaign};
use pressroom_store::etcd::EtcdStore;
use pressroom_store::key::{Key, Prefix};
use pressroom_store::transaction::Transaction;
use pressroom_store::{Store as _, StoreError};
use pressroom_wire::http::{AnyBody, any_body};
use pressroom_wire::identity::public_part;
use serde::{Deserialize, Serialize};

use super::access::{self, Refused};
use super::backups::{self, BackupError};
use super::door::{short, whole};
use super::follow::Remembered;
use super::membership::{self, Membership, MembershipError, keep};
use super::{Cluster, keys};
use crate::agent::Agent;
use crate::layout::Layout;
use crate::secrets;

/// The file of what is to be restored, in the folder of the membership, until it is done.
const FILE: &str = "restore.json";
/// Between two looks who has to be told.
const LOOK: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for the office after it was taken from its holder.
const DEPOSED: Duration = Duration::from_secs(1);

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoringError {
    /// This machine is in no cluster.
    #[error(
        "this machine is in no cluster, and its state is a file of its own: `store/state.redb`"
    )]
    Alone,
    /// What it has cannot be used.
    #[error(
        "this node does not vote, so etcd has no state here to go back to; name a copy, or type it on a node that votes"
    )]
    NoVoter,
    /// The copy.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A file.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// A snapshot; `None`: what etcd has on this node.
    pub from: Option<PathBuf>,
    /// When that was said, milliseconds since 1970.
    pub at_ms: u64,
    /// The etcd that operators keep, where it is another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Etcd>,
}

impl Wanted {
    /// The etcd of operators that the state is to be in, if it is one.
    pub fn external<'a>(&'a self, own: &'a Membership) -> Option<&'a external::Etcd> {
        self.external.as_ref().or(own.external.as_ref())
    }
}

/// Where the store is since it was restored, for a node that asks a former one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// See [`Membership::restored_ms`].
    pub restored_ms: u64,
    /// See [`Membership::token`].
    pub token: String,
    /// See [`Membership::voters`].
    pub voters: BTreeMap<NodeName, SocketAddr>,
    /// See [`Membership::external`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<external::Etcd>,
}

/// Keeps a wish to restore, for the agent that starts next.
pub fn begin(layout: &Layout, wanted: &Wanted) -> Result<(), RestoringError> {
    let own = Membership::read(layout)?.ok_or(RestoringError::Alone)?;
    match (&wanted.from, wanted.external(&own)) {
        (Some(path), Some(_)) => drop(backups::read(path)?),
        (Some(path), None) => backups::check_snapshot(path)?,
        (None, None) if own.is_voter() => {}
        (None, _) => return Err(RestoringError::NoVoter),
    }
    Ok(keep(layout, FILE, &serde_json::to_vec(wanted).expect("plain data"))?)
}

/// What is to be restored, if anything is.
pub fn wanted(layout: &Layout) -> Option<Wanted> {
    serde_json::from_slice(&std::fs::read(layout.cluster().join(FILE)).ok()?).ok()
}

/// It was restored, or cannot be.
pub fn end(layout: &Layout) -> io::Result<()> {
    match std::fs::remove_file(layout.cluster().join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The membership of the node that has the restored state: its only voter.
pub fn sole(own: &Membership, wanted: &Wanted) -> Membership {
    let address =
        SocketAddr::new(own.address, own.port + pressroom_wire::members::Service::Etcd as u16);
    Membership {
        // Never lower than before, whatever the clock says.
        restored_ms: wanted.at_ms.max(own.restored_ms + 1),
        token: secrets::random(16).reveal().to_owned(),
        voters: [(own.node.clone(), address)].into(),
        member: None,
        removed_ms: 0,
        ..own.clone()
    }
}

/// The membership of a node that puts a copy into the etcd that operators keep.
pub fn moved(own: &Membership, wanted: &Wanted) -> Membership {
    match &wanted.external {
        None => own.clone(),
        Some(etcd) => Membership {
            restored_ms: wanted.at_ms.max(own.restored_ms + 1),
            external: Some(etcd.clone()),
            removed_ms: 0,
            ..own.clone()
        },
    }
}

/// Takes the office from whoever has it, so that what is written next is decided by nobody else. The former leader's writes are
/// refused from then on, and it stands for the office again.
pub async fn depose(own: &Membership, store: &EtcdStore) -> Result<Leadership, StoreError> {
    loop {
        store.commit(Transaction::new().delete(keys::leader())).await?;
        let stood =
            campaign(Arc::new(store.clone()), keys::leader(), own.node.as_str(), super::lead::TTL);
        // Somebody else may have been faster.
        if let Ok(office) = tokio::time::timeout(DEPOSED, stood).await {
            return office;
        }
    }
}

/// A certificate with its key, PEM, that etcd takes for its own administrator's: for a state in which this node was none yet.
pub fn administrator(layout: &Layout, now: u64) -> Result<(String, String), MembershipError> {
    let damaged = |error: pressroom_wire::WireError| MembershipError::Damaged {
        path: membership::authority_key(layout),
        cause: error.to_string(),
    };
    let path = membership::identity_paths(layout).key;
    let key =
        std::fs::read_to_string(&path).map_err(|error| crate::files::naming(&path, &error))?;
    let public = pressroom_wire::authority::PublicKey(public_part(&key).map_err(damaged)?);
    let chain = membership::authority(layout)?.sign_administrator(&public, now).map_err(damaged)?;
    Ok((chain, key))
}

/// Makes a restored state one that this node can go on with: it is the only voter, the nodes are those that it knew last, and
/// nobody leads or reports who did when the copy was taken.
pub async fn mend(layout: &Layout, own: &Membership, store: &EtcdStore) -> Result<(), StoreError> {
    let here = Refused::known(layout).unwrap_or_default();
    let mut refused = Refused::stored(store).await?;
    if refused.list.is_empty() || refused.keys.len() < here.keys.len() {
        refused = here;
    }
    let (former, mut gone): (Vec<Prefix>, Vec<Key>) = match own.external {
        None => (vec![keys::nodes(), keys::reports()], vec![keys::leader(), keys::dissolving()]),
        // There we lead, and reports are of nodes that report.
        Some(_) => {
            (vec![keys::nodes()], vec![keys::voters(), keys::followers(), keys::dissolving()])
        }
    };
    for prefix in &former {
        let listing = store.list(prefix).await?;
        gone.extend(listing.entries.into_iter().map(|entry| entry.key));
    }
    let records: BTreeMap<Key, Vec<u8>> = own
        .nodes
        .iter()
        .map(|(name, node)| (keys::node(name), serde_json::to_vec(node).expect("plain data")))
        .collect();
    gone.retain(|key| !records.contains_key(key));
    let mut writes = Transaction::new().put(keys::refused(), refused.text());
    if own.external.is_none() {
        let member = store.members().await?.first().map_or(0, |member| member.id);
        let voters = serde_json::json!({ own.node.as_str(): member }).to_string();
        writes = writes.put(keys::voters(), voters);
    }
    for key in gone {
        writes = writes.delete(key);
        writes = committed(store, writes).await?;
    }
    for (key, record) in records {
        writes = writes.put(key, record);
        writes = committed(store, writes).await?;
    }
    store.commit(writes).await?;
    if own.external.is_some() {
        return Ok(());
    }
    let key = own.nodes.get(&own.node).and_then(|node| node.keys.first().cloned());
    access::restrict(store, &key.unwrap_or_default()).await
}

/// Commits what has come together, if it is much.
async fn committed(store: &EtcdStore, writes: Transaction) -> Result<Transaction, StoreError> {
    if writes.writes.len() < 100 {
        return Ok(writes);
    }
    store.commit(writes).await?;
    Ok(Transaction::new())
}

impl Agent {
    /// Tells nodes that do not report where the restored store is, for as long as the agent runs: as the leader, or as the only one that
    /// votes there, which may not lead. Where operators keep etcd, everybody tells all others once: they may ask at endpoints that are
    /// about to go.
    pub(crate) async fn tell_restored(self: Arc<Self>, cluster: Arc<Cluster>, shutdown: Shutdown) {
        let mut heard: BTreeSet<NodeName> = BTreeSet::new();
        while !shutdown.is_requested() {
            tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(LOOK) => {} }
            let own = cluster.membership();
            if own.restored_ms == 0
                || own.removed_ms != 0
                || !self.leads() && !own.votes_alone() && own.external.is_none()
            {
                continue;
            }
            let silent: Vec<NodeName> = {
                let known = &self.state.lock().known;
                let nodes = known.nodes.keys();
                let is_told = |name: &NodeName| match own.external {
                    Some(_) => heard.contains(name),
                    None => known.reports.contains_key(name),
                };
                nodes.filter(|name| !is_told(name)).cloned().collect()
            };
            let told = silent.iter().filter(|name| **name != own.node).map(|name| {
                let text = serde_json::to_vec(&Restored {
                    restored_ms: own.restored_ms,
                    token: own.token.clone(),
                    voters: own.voters.clone(),
                    external: own.external.clone(),
                });
                let body = any_body(Full::new(Bytes::from(text.expect("plain data"))));
                let request = Request::post("/restored").body(body).expect("a good path");
                let cluster = &cluster;
                async move {
                    let asked = tokio::time::timeout(PATIENCE, cluster.client.call(name, request));
                    match asked.await {
                        Ok(Ok(answer)) => answer.status().is_success().then(|| name.clone()),
                        Ok(Err(error)) => {
                            tracing::debug!(%name, %error, "it does not hear of the restored store");
                            None
                        }
                        Err(_) => None,
                    }
                }
            });
            heard.extend(crate::probe::futures(told).await.into_iter().flatten());
        }
    }

    /// Goes on with a store that was restored elsewhere, if that was after the one that is known here.
    pub(super) async fn answer_restored(&self, request: Request<Incoming>) -> Response<AnyBody> {
        let restored: Restored =
            match whole(request).await.map(|body| serde_json::from_slice(&body)) {
                Ok(Ok(restored)) => restored,
                _ => return short(StatusCode::BAD_REQUEST, "that is no word of a restored store"),
            };
        let Some(cluster) = &self.cluster else {
            return short(StatusCode::NOT_FOUND, "this machine is in no cluster");
        };
        match self.go_on_with(cluster, restored) {
            Ok(()) => short(StatusCode::NO_CONTENT, Bytes::new()),
            Err(error) => short(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Goes on with the same state at other endpoints of the etcd that operators keep, or as another user, and tells the other nodes;
    /// that it is there was looked at.
    pub fn reach_by(&self, etcd: external::Etcd) -> Result<(), RestoringError> {
        let cluster = self.cluster.as_ref().ok_or(RestoringError::Alone)?;
        let own = cluster.membership();
        let moved = Restored {
            restored_ms: clock::wall_ms().max(own.restored_ms + 1),
            token: own.token,
            voters: BTreeMap::new(),
            external: Some(etcd),
        };
        Ok(self.go_on_with(cluster, moved)?)
    }

    fn go_on_with(&self, cluster: &Cluster, restored: Restored) -> Result<(), MembershipError> {
        let own = cluster.membership();
        let is_nowhere = restored.voters.is_empty() && restored.external.is_none();
        if restored.restored_ms <= own.restored_ms || is_nowhere {
            return Ok(());
        }
        let own = Membership {
            restored_ms: restored.restored_ms,
            token: restored.token,
            voters: restored.voters,
            external: restored.external,
            member: None,
            ..own
        };
        cluster.is_elsewhere.store(true, Ordering::Relaxed);
        own.write(&self.layout)?;
        Remembered::forget_voters(&self.layout, own.voters.keys())?;
        tracing::warn!(
            "the cluster's state is elsewhere: this agent ends, the next one asks there"
        );
        // Every watch of the former store ends with it.
        self.end.notify_one();
        Ok(())
    }
}
